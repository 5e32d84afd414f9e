"""What a program sends from chip to chip, and how long that takes at best.

A chip's links are used in both directions, those of all axes at once: to give
every chip of a ring all of an array of B bytes takes B / W, where W is the sum
of the links' speeds, and another way round as long again to sum it first. Each
hop adds a microsecond. (Austin et al. 2025, "How to scale your model", ch. 3.)
Ends of an axis that do not meet halve its speed.

What is sent while a chip computes costs nothing, as long as one thing at a time
is on the wires; what is not there when it is wanted is waited for.
"""

import heapq
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxgen.plan.hlo import Instruction, Module, arrays
from jaxgen.plan.topology import Chip, Topology

# How often an array goes over the links.
PASSES = {
  "all-reduce": 2.0,
  "all-gather": 1.0,
  "reduce-scatter": 1.0,
  "all-to-all": 0.25,
  "ragged-all-to-all": 0.25,
  "collective-permute": 1.0,
  "collective-broadcast": 1.0,
}
HOP = 1e-6  # seconds
SEND = "send between slices"
GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")
MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
AXIS = re.compile(r"'(\w+)'=(\d+)")
ALONG = re.compile(r"'(\w+)'(?::\(\d+\)(\d+))?")
CHANNEL = re.compile(r"channel_id=(\d+)")


class Transfer(NamedTuple):
  """Something that is sent."""

  kind: str  # one of PASSES, or SEND
  bytes: int  # of the whole array; between slices, what one chip sends
  group: int  # chips that take part together; 0: all of them
  times: int  # in a run of the program
  start: int  # cycles of the run before it begins
  end: int  # cycles of the run before it is waited for
  op_name: str  # where in the traced function it comes from

  @property
  def meanwhile(self) -> int:
    """Cycles of other work, each time it is sent."""
    return (self.end - self.start) // self.times


def transfers(module: Module, turns: int = 1) -> list[Transfer]:
  """All that a program sends, as it begins; `turns` as for `Module.running`.

  TPUs send while they compute in two ways: between a line that starts and one
  that is done, or in parts that are fused with other work. Those share a
  channel: the first begins to send, and the last waits for the end.
  """
  sent: list[Transfer] = []
  latest: dict[str, tuple[int, set[str]]] = {}  # by channel: where, its lines
  starts: dict[str, int] = {}  # by line: where
  busy = 0
  for i, times in module.running(turns):
    if i.opcode.endswith("-done"):
      for at in {starts[o] for o in i.operands if o in starts}:
        sent[at] = sent[at]._replace(end=busy)
    after = busy + i.cycles * times
    for part, kind in sends(module, i):
      channel = CHANNEL.search(part.text)
      # Sums of which parts are kept are whole lines, and may share channels.
      alone = is_reduce_scatter(i) or not channel
      key = i.name if alone else f"{kind} {channel[1]} {arrays(part.shape)}"
      at, lines = latest.get(key, (0, {i.name}))
      if i.name not in lines:
        sent[at] = sent[at]._replace(end=busy)
        lines.add(i.name)
        continue
      latest[key] = len(sent), {i.name}
      starts[i.name] = len(sent)
      n, size = (2, arrays(part.shape)[0]) if kind == SEND else (group(part), full_size(part, kind))
      sent.append(Transfer(kind, size, n, times, after, after, i.op_name))
    busy = after
  return sent


def sends(module: Module, i: Instruction) -> list[tuple[Instruction, str]]:
  """What of a line is sent, and as what."""
  if i.opcode == "send" and "is_host_transfer=true" in i.text:
    return [(i, SEND)]
  return [
    (part, "reduce-scatter" if is_reduce_scatter(i) else kind)
    for part in module.inside(i)
    if (kind := part.opcode.removesuffix("-start")) in PASSES
  ]


def is_reduce_scatter(i: Instruction) -> bool:
  """Whether it is a sum of which each chip keeps a part, as TPUs print it."""
  return i.opcode == "fusion" and any(name.startswith("all-reduce-scatter") for name in i.calls)


def full_size(i: Instruction, kind: str) -> int:
  """Bytes of all that is summed, gathered, exchanged or to be scattered."""
  sizes = arrays(i.shape)
  if i.opcode.endswith("-start") and kind != "all-reduce":
    # (operands, results, ..), or ((operands), (results)).
    inner = i.shape[1:].startswith("(")
    several = i.shape[1:].partition(")")[0].count("[") if inner else 1
    sizes = sizes[several : 2 * several]
  parts = max(group(i), 1) if i.opcode.startswith("reduce-scatter") else 1
  return sum(sizes) * parts


def group(i: Instruction) -> int:
  """How many take part together; 0 where the text leaves it open: all."""
  if match := IOTA.search(i.text):
    return int(match[2])
  if match := MESH.search(i.text):
    sizes = dict(AXIS.findall(match[1]))
    return math.prod(int(part or sizes[axis]) for axis, part in ALONG.findall(match[2]))
  if "source_target_pairs" in i.text:
    return 2
  match = GROUPS.search(i.text)
  return len(match[1].split(",")) if match and match[1] else 0


def seconds(transfer: Transfer, topology: Topology) -> float:
  """How long a transfer takes once, when nothing else is on the wires."""
  chip = topology.chip
  if transfer.kind == SEND:
    share = 2 * (topology.slices - 1) / topology.slices
    return share * transfer.bytes / chip.dcn
  n = transfer.group or math.prod(topology.edges)
  if n == 1:
    return 0.0
  if transfer.kind == "collective-permute":
    return transfer.bytes / chip.link + HOP
  speed, hops = path(n, topology.rings, chip)
  passes = PASSES[transfer.kind]
  return passes * transfer.bytes * (n - 1) / n / speed + max(1.0, passes) * hops * HOP


def path(n: int, rings: Sequence[tuple[int, bool]], chip: Chip) -> tuple[float, float]:
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


def waits(sent: Sequence[Transfer], topology: Topology) -> list[float]:
  """Seconds of a run that a chip waits for each transfer.

  Links carry one after the other, in the order in which they begin; the data
  centre's network is wires of its own.
  """
  clock, late = topology.chip.clock, 0.0
  free = {True: 0.0, False: 0.0}  # when the wires are, between slices and within
  waiting, arrival = [0.0] * len(sent), [0.0] * len(sent)
  due: list[tuple[float, int]] = []  # a heap: when each is needed
  for n, t in enumerate([*sent, None]):
    while due and (t is None or due[0][0] <= t.start):
      end, m = heapq.heappop(due)
      waiting[m] = max(0.0, arrival[m] - end / clock - late)
      late += waiting[m]
    if t is not None:
      wires = t.kind == SEND
      start = max(t.start / clock + late, free[wires])
      arrival[n] = free[wires] = start + t.times * seconds(t, topology)
      heapq.heappush(due, (t.end, n))
  return waiting


def summary(sent: Sequence[Transfer], topology: Topology | None) -> list[dict[str, Any]]:
  """By kind, the slowest first: how many, bytes, seconds, seconds in the open.

  Seconds are None where the network is not known.
  """
  rows = []
  exposed = waits(sent, topology) if topology else [None] * len(sent)
  for kind in dict.fromkeys(t.kind for t in sent):
    own = [(t, wait) for t, wait in zip(sent, exposed, strict=True) if t.kind == kind]
    row = {
      "kind": kind,
      "count": sum(t.times for t, _ in own),
      "bytes": sum(t.times * t.bytes for t, _ in own),
      "seconds": None,
      "exposed_seconds": None,
    }
    if topology:
      row["seconds"] = sum(t.times * seconds(t, topology) for t, _ in own)
      row["exposed_seconds"] = sum(wait for _, wait in own)
    rows.append(row)
  return sorted(rows, key=lambda r: -(r["seconds"] or 0))
