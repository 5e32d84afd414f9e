"""Where arrays live: one mesh, replicated states, batches cut along `data`."""
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgen.errors import UserError


def make_mesh() -> Mesh:
  """All devices of all processes on one axis, `data`."""
  return jax.make_mesh((jax.device_count(),), ("data",),
                       axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """Whole on every device."""
  return NamedSharding(mesh, P())


def batched(mesh: Mesh) -> NamedSharding:
  """First axis cut over the devices."""
  return NamedSharding(mesh, P("data"))


def check_batch(batch: int, accumulate: int, mesh: Mesh) -> None:
  """Raises UserError unless every device gets equal parts of every batch."""
  parts = mesh.size * accumulate
  if batch < 1 or batch % parts:
    near = max(round(batch / parts), 1) * parts
    raise UserError(
        f"batch={batch} does not divide among {mesh.size} devices x "
        f"accumulate={accumulate}: take a multiple of {parts}, such as {near}")


def place(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """This process's share of a global batch -> the global batch on devices."""
  sharding = batched(mesh)
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)
  return {k: jax.make_array_from_process_local_data(sharding, v)
          for k, v in batch.items()}


def prefetch(batches: Iterator[Any], mesh: Mesh, ahead: int = 2
             ) -> Iterator[dict[str, jax.Array]]:
  """Batches on devices, `ahead` of them under way while the step runs.

  Transfers are asynchronous: asking for one early is all that is needed.
  """
  queue = []
  for batch in batches:
    queue.append(place(batch, mesh))
    if len(queue) > ahead:
      yield queue.pop(0)
  yield from queue
