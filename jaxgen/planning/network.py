"""What a program sends from chip to chip, and how long that takes at best.

A chip's links are used in both directions, those of all axes at once: to give
every chip of a ring all of an array of B bytes takes B / W, where W is the sum
of the links' speeds, and another way round as long again to sum it first. Each
hop adds a microsecond. (Austin et al. 2025, "How to scale your model", ch. 3.)
Ends of an axis that do not meet halve its speed.
"""
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxgen.planning.hlo import Instruction, Module, arrays
from jaxgen.planning.topology import Chip, Topology

# How often an array goes over the links.
PASSES = {"all-reduce": 2., "all-gather": 1., "reduce-scatter": 1.,
          "all-to-all": .25, "ragged-all-to-all": .25,
          "collective-permute": 1., "collective-broadcast": 1.}
HOP = 1e-6  # seconds
SENT = "send between slices"
GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")


class Transfer(NamedTuple):
  """Something that is sent.

  Attributes:
    kind: One of PASSES, or SENT.
    bytes: Of the whole array: summed, gathered or to be scattered; between
      slices, what one chip sends.
    group: Chips that take part together; 0: all of them.
    times: How often in a run of the program.
    meanwhile: Cycles of other work between its start and its end.
    op_name: Where it comes from.
  """
  kind: str
  bytes: int
  group: int
  times: int
  meanwhile: int
  op_name: str


def transfers(module: Module, turns: int = 1) -> list[Transfer]:
  """All that a program sends; `turns` as for `Module.running`."""
  found = []
  for i, times in module.running(turns):
    if i.opcode == "send" and "is_host_transfer=true" in i.text:
      found.append(Transfer(SENT, arrays(i.shape)[0], 2, times,
                            meanwhile(module, i), i.op_name))
      continue
    for part in module.inside(i):
      kind = part.opcode.removesuffix("-start")
      if kind in PASSES:
        found.append(Transfer(
            kind, whole(part, kind), group(part), times,
            meanwhile(module, i) if part.opcode != kind else 0, i.op_name))
  return found


def whole(i: Instruction, kind: str) -> int:
  """Bytes of all that is summed, gathered, exchanged or to be scattered."""
  sizes = arrays(i.shape)
  if i.opcode.endswith("-start") and kind != "all-reduce":
    # (operands, results, ..), or ((operands), (results)).
    inner = i.shape[1:].startswith("(")
    several = i.shape[1:].partition(")")[0].count("[") if inner else 1
    sizes = sizes[several:2 * several]
  return sum(sizes) * (max(group(i), 1) if kind == "reduce-scatter" else 1)


def group(i: Instruction) -> int:
  """How many take part together; 0 where the text leaves it open: all."""
  if found := IOTA.search(i.text):
    return int(found[2])
  if "source_target_pairs" in i.text:
    return 2
  found = GROUPS.search(i.text)
  return len(found[1].split(",")) if found and found[1] else 0


def meanwhile(module: Module, start: Instruction) -> int:
  """Cycles of what stands between an operation's start and its end."""
  for lines in module.computations.values():
    if start in lines:
      cycles = 0
      for i in lines[lines.index(start) + 1:]:
        if start.name in i.operands and i.opcode.endswith("-done"):
          return cycles
        cycles += i.cycles
  return 0


def seconds(transfer: Transfer, topology: Topology) -> float:
  """How long a transfer takes once, when nothing else is on the wires."""
  chip = topology.chip
  if transfer.kind == SENT:
    share = 2 * (topology.slices - 1) / topology.slices
    return share * transfer.bytes / chip.dcn
  n = transfer.group or math.prod(topology.edges)
  if n == 1:
    return 0.
  if transfer.kind == "collective-permute":
    return transfer.bytes / chip.link + HOP
  speed, hops = path(n, topology.rings, chip)
  passes = PASSES[transfer.kind]
  return (passes * transfer.bytes * (n - 1) / n / speed
          + max(1., passes) * hops * HOP)


def path(n: int, rings: Sequence[tuple[int, bool]], chip: Chip
         ) -> tuple[float, float]:
  """Bytes/s out of a chip in a group of n, and hops to the farthest."""
  within = []
  for ring in sorted(rings, reverse=True):
    if n <= 1:
      break
    # Part of an axis is a line whose ends do not meet.
    within.append((min(n, ring[0]), ring[1] and n >= ring[0]))
    n = -(-n // ring[0])
  speed = sum(chip.link * (2 if meet else 1) for _, meet in within)
  return speed, sum(k / 2 if meet else k - 1 for k, meet in within)


def summary(found: Sequence[Transfer], topology: Topology | None
            ) -> list[dict[str, Any]]:
  """By kind, the slowest first: how many, bytes, seconds, seconds in the open.

  Seconds are None where the network is not known.
  """
  rows = []
  for kind in dict.fromkeys(t.kind for t in found):
    of = [t for t in found if t.kind == kind]
    row = {"kind": kind, "count": sum(t.times for t in of),
           "bytes": sum(t.times * t.bytes for t in of),
           "seconds": None, "exposed_seconds": None}
    if topology:
      took = [(t, seconds(t, topology)) for t in of]
      row["seconds"] = sum(t.times * s for t, s in took)
      row["exposed_seconds"] = sum(
          t.times * max(0., s - t.meanwhile / topology.chip.clock)
          for t, s in took)
    rows.append(row)
  return sorted(rows, key=lambda r: -(r["seconds"] or 0))
