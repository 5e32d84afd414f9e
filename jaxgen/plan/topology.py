"""TPUs that need not be there: their names, and what the makers say of them.

A topology is "kind:shape" or "kind:shape:slices": `v5e:16x16` is a pod of 256
chips, `v5e:16x16:2` two of them that are joined by the data centre's network.
"""

import importlib.util
import os
import re
from typing import Any, NamedTuple

import jax

from jaxgen.errors import UserError, nearest

GIB = 2**30


class Chip(NamedTuple):
  """A kind of TPU chip."""

  peak: float  # dense bf16 operations/s, as published
  per_cycle: int  # operations of the matrix units in a cycle of the compiler's estimates
  hbm: int  # bytes that a program may take, as the compiler says when it refuses
  link: float  # bytes/s of one link, one way; two links for each axis of the torus
  dcn: float  # bytes/s of one chip's share of its host's network card
  wraps: int  # edges of a slice that are whole rings are multiples of this

  @property
  def clock(self) -> float:
    """Cycles/s."""
    return self.peak / self.per_cycle


# Peaks, links and network: the makers' documentation, and "How to scale your
# model" (Austin et al. 2025), ch. 2.
CHIPS = {
  "v4": Chip(275e12, 2**18, int(30.75 * GIB), 45e9, 6.25e9, 4),
  "v5e": Chip(197e12, 2**17, int(15.75 * GIB), 45e9, 3.125e9, 16),
  "v5p": Chip(459e12, 2**18, int(95.73 * GIB), 90e9, 6.25e9, 4),
  "v6e": Chip(918e12, 2**19, int(31.24 * GIB), 90e9, 12.5e9, 16),
}
# What the compiler would else ask the machine it runs on.
QUIET = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-16",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_LOG_DIR": "disabled",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_MIN_LOG_LEVEL": "3",
}


class Topology(NamedTuple):
  """A machine to compile for."""

  name: str
  kind: str
  edges: tuple[int, ...]  # of a slice
  slices: int

  @property
  def chip(self) -> Chip:
    """What it is made of."""
    return CHIPS[self.kind]

  @property
  def rings(self) -> list[tuple[int, bool]]:
    """Of each axis longer than one: chips along it, whether its ends meet."""
    return [(n, n % self.chip.wraps == 0) for n in self.edges if n > 1]


def parse(name: str) -> Topology:
  """Reads a topology's name; UserError for what is none."""
  match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)(?::(\d+))?", name)
  if not match:
    raise UserError(
      f"topology={name!r}: want kind:shape, such as v5e:16x16, "
      "or kind:shape:slices, such as v5e:16x16:2; or here"
    )
  kind, shape, slices = match.groups()
  if kind not in CHIPS:
    raise UserError(f"topology={name!r}: there are {', '.join(CHIPS)}" + nearest(kind, CHIPS))
  edges = tuple(int(n) for n in shape.split("x"))
  axes = 2 if kind in ("v5e", "v6e") else 3
  if len(edges) != axes:
    raise UserError(
      f"topology={name!r}: a slice of {kind} has {axes} edges, "
      f"such as {kind}:{'x'.join('4' * axes)}"
    )
  if min(edges) < 1 or slices is not None and int(slices) < 1:
    raise UserError(f"topology={name!r}: want whole numbers from 1")
  return Topology(name, kind, edges, int(slices or 1))


def devices(topology: Topology) -> list[Any]:
  """Its devices, for compiling alone.

  Raises:
    UserError: The compiler is not installed, or knows no such slice.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise UserError(
      "compiling for TPUs needs their compiler: pip install 'jaxgen[tpu]', or --topology=here"
    )
  for name, value in QUIET.items():
    os.environ.setdefault(name, value)
  # A machine without TPUs would look for them, and for long.
  jax.config.update("jax_platforms", "cpu")
  from jax.experimental import topologies

  megacore = {"chip_config_name": "megacore"} if topology.kind == "v4" else {}
  name = f"{topology.kind}:{'x'.join(map(str, topology.edges))}"
  try:
    pod = topologies.get_topology_desc(name, "tpu", num_slices=topology.slices, **megacore)
    return list(pod.devices)
  except Exception as e:
    raise UserError(
      f"topology={topology.name!r}: the compiler knows no such slice: {str(e).splitlines()[0]}"
    ) from e
