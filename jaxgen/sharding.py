"""Where arrays live: one mesh, batches cut over all of it.

The mesh has two axes. Along `data` every device has all of the state, along
`fsdp` each has its part. All samples, steps and states are the same programs
on any mesh, to float tolerance.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgen import core
from jaxgen.errors import UserError

AXES = "data", "fsdp"
SMALL = 2**12  # elements: what is smaller is whole everywhere


def make_mesh(
  shape: Mapping[str, int] | None = None, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """All devices of all processes, by default with the batch alone cut.

  Args:
    shape: {"data": n, "fsdp": m}, as `config.mesh`; 0 is what is left.
    devices: Those of another machine, to compile for it; default: our own.

  Raises:
    UserError: The shape wants another number of devices.
  """
  # By process, and not as they are wired: the rows that a process reads are
  # then those of its devices, whatever the machine.
  devices = sorted(
    devices or jax.devices(), key=lambda d: (getattr(d, "slice_index", 0), d.process_index, d.id)
  )
  sizes = dict(data=0, fsdp=1) if shape is None else dict(shape)
  free = [axis for axis, size in sizes.items() if not size]
  if len(free) == 1:
    sizes[free[0]] = len(devices) // math.prod(size for size in sizes.values() if size)
  if math.prod(sizes.values()) != len(devices):
    product = " x ".join(f"mesh.{k}={v}" for k, v in (shape or {}).items())
    raise UserError(
      f"{product} does not fit {len(devices)} devices: their "
      "product must be that; one may be 0, which is what is left"
    )
  return Mesh(
    np.array(devices).reshape(sizes["data"], sizes["fsdp"]),
    AXES,
    axis_types=(AxisType.Auto,) * len(AXES),
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Whole on every device."""
  return NamedSharding(mesh, P())


def batched(mesh: Mesh) -> NamedSharding:
  """First axis cut over all devices, in their order."""
  return NamedSharding(mesh, P(mesh.axis_names))


def leaf_sharding(leaf: Any, mesh: Mesh) -> NamedSharding:
  """How a leaf of the state is kept: along `fsdp`, by its longest axis.

  By the longest that this cuts evenly; whole where there is none, and where so
  little is saved that fetching it costs more.
  """
  parts = mesh.shape.get("fsdp", 1)
  axes = [i for i, n in enumerate(leaf.shape) if n % parts == 0]
  if parts == 1 or leaf.size < SMALL or not axes:
    return replicated(mesh)
  longest = max(axes, key=lambda i: leaf.shape[i])
  return NamedSharding(mesh, P(*[None] * longest, "fsdp"))


def shardings(state: core.State, mesh: Mesh) -> core.State:
  """A sharding for every leaf of a state, or of its shapes.

  Weights, their averages and what optimisers keep of them are cut alike, for
  they are shaped alike. Statistics and counters are whole everywhere.
  """
  place = functools.partial(jax.tree.map, lambda leaf: leaf_sharding(leaf, mesh))
  everywhere = jax.tree.map(lambda _: replicated(mesh), state)
  return everywhere.replace(params=place(state.params), opt=place(state.opt), ema=place(state.ema))


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Within a program: the same arrays, all of them on every device."""
  return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def layout(mesh: Mesh) -> core.Layout:
  """Where the train step wants its arrays, see there.

  Weights are fetched whole before they are used. Left to itself, XLA would cut
  the convolutions in place of the batch, and pass their edges around.
  """
  rows = lambda tree: jax.lax.with_sharding_constraint(tree, batched(mesh))
  if mesh.shape["fsdp"] == 1:
    return core.Layout(rows=rows)
  place = lambda tree: jax.lax.with_sharding_constraint(
    tree, jax.tree.map(lambda leaf: leaf_sharding(leaf, mesh), tree)
  )
  return core.Layout(functools.partial(replicate, mesh=mesh), place, rows)


def check_batch(batch: int, accumulate: int, mesh: Mesh) -> None:
  """Raises UserError unless every device gets equal parts of every batch."""
  parts = mesh.size * accumulate
  if batch < 1 or batch % parts:
    near = max(round(batch / parts), 1) * parts
    raise UserError(
      f"batch={batch} does not divide among {mesh.size} devices x "
      f"accumulate={accumulate}: take a multiple of {parts}, such as {near}"
    )


def shard_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
  """This process's share of a global batch -> the global batch on devices."""
  sharding = batched(mesh)
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)
  return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), batch)


def local_rows(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Of a global batch that every process has, this process's share."""
  i, n = jax.process_index(), jax.process_count()
  return {k: v[i * len(v) // n : (i + 1) * len(v) // n] for k, v in batch.items()}


def everywhere(tree: Any, mesh: Mesh) -> Any:
  """What every process has for itself -> whole on every device."""
  if jax.process_count() > 1:  # or jax would send it from one to the other
    tree = jax.device_get(tree)
  return jax.device_put(tree, replicated(mesh))


def fetch(x: jax.Array) -> np.ndarray:
  """A global array on every host, also of parts that are not its own."""
  if x.is_fully_addressable or x.is_fully_replicated:
    return jax.device_get(x)
  return multihost_utils.process_allgather(x, tiled=True)


def prefetch(batches: Iterator[Any], mesh: Mesh, ahead: int = 2) -> Iterator[dict[str, jax.Array]]:
  """Batches on devices, `ahead` of them under way while the step runs.

  Transfers are asynchronous: asking for one early is all that is needed.
  """
  queue = []
  for batch in batches:
    queue.append(shard_batch(batch, mesh))
    if len(queue) > ahead:
      yield queue.pop(0)
  yield from queue
