"""Where the wall time of a training goes, over all the lives of its workdir.

Time is cut into phases, one after the other without a gap:

  init        building, reading the checkpoint
  compile     of train steps
  data        waiting for batches
  step        taking steps, and reading what came of them
  checkpoint  what a save keeps the loop from; the rest is in the background
  pictures, eval
  lost        steps of earlier lives that were not saved
  down        nobody was there

Goodput is the share of `step` in all of it. Waiting for a bucket that throttles
or is away falls into the phase that waits; how often it was asked again in this
life is counted, `goodput/retries`.
"""

import collections
import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from jaxgen import files
from jaxgen.distributed.watchdog import Beat
from jaxgen.monitor.progress import duration

STEPPING = "data", "step"  # short phases: all else may be long
LONGER = 40  # times
FIRST = 16  # steps that say nothing of how long one takes


class Loss(NamedTuple):
  """What became of the time after a checkpoint, seen by those who resume."""

  steps: int
  seconds: float  # spent on them
  down: float  # seconds nobody was there


def loss(rows: Iterable[Mapping[str, Any]], saved: float | None, step: int, now: float) -> Loss:
  """Reads from a log what came to nothing.

  Args:
    rows: As `log.read_rows` gives them: {"time": ..., "step" or "start": ...}.
    saved: When the checkpoint was made, seconds since 1970; None: there is
      none, and all is lost.
    step: That of the checkpoint.
    now: When this life begins.
  """
  seconds, down, last, at = 0.0, 0.0, step, saved
  for row in (r for r in rows if r.get("time") is not None):
    at = row["time"] if at is None else at
    gone = max(0.0, row["time"] - at)
    if "start" in row:  # nobody is seen to live before its first row
      down += gone
    else:
      seconds += gone
    if row["time"] > at or saved is None:
      last = max(last, row.get("step", 0))
    at = max(at, row["time"])
  if at is not None:
    down += max(0.0, now - at)
  return Loss(last - step, seconds, down)


class Goodput:
  """A stopwatch with names.

  Attributes:
    seconds: By phase, of this life and those before, up to the last `enter`.
  """

  def __init__(self, stall: float = 45.0, clock: Callable[[], float] = time.monotonic):
    """Begins in phase "init". `stall`: see `beat`."""
    self.clock, self.stall = clock, stall
    self.seconds: dict[str, float] = collections.defaultdict(float)
    self.phase, self.since, self.step = "init", clock(), 0
    self.recent = collections.deque(maxlen=64)  # seconds that steps took
    self.mark, self.before = 0.0, files.retries()

  def enter(self, phase: str) -> None:
    """From now on it is this phase."""
    now = self.clock()
    self.seconds[self.phase] += now - self.since
    self.phase, self.since = phase, now

  @contextlib.contextmanager
  def during(self, phase: str) -> Iterator[None]:
    """Within it is this phase, afterwards again the one before."""
    before = self.phase
    self.enter(phase)
    yield
    self.enter(before)

  def start(self, step: int) -> None:
    """Stepping begins, with the batch of `step`."""
    self.stepped(step)
    self.enter("data")

  def stepped(self, step: int) -> None:
    """So many steps are done."""
    self.enter("step")
    stepping = sum(self.seconds[phase] for phase in STEPPING)
    self.recent.append(stepping - self.mark)
    self.step, self.mark = step, stepping

  def resume(self, past: Mapping[str, float], gone: Loss, step: int) -> None:
    """Takes over from earlier lives, of which the last was `saved`."""
    for phase, seconds in {**past}.items():
      self.seconds[phase] += seconds
    self.seconds["lost"] += gone.seconds
    self.seconds["down"] += gone.down
    self.step = step
    self.mark = sum(self.seconds[phase] for phase in STEPPING)

  def totals(self) -> dict[str, float]:
    """Seconds by phase, up to now."""
    self.enter(self.phase)
    return dict(self.seconds)

  def retries(self) -> int:
    """Requests to a bucket that were made once more since it began."""
    return files.retries() - self.before

  def scalars(self) -> dict[str, float]:
    """For the log: the share of steps in all, seconds by phase, a bucket's retries."""
    totals = self.totals()
    share = totals.get("step", 0.0) / (sum(totals.values()) or 1.0)
    again = self.retries()
    return (
      {"goodput/share": share}
      | {f"goodput/{k}_seconds": v for k, v in sorted(totals.items()) if v}
      | ({"goodput/retries": float(again)} if again else {})
    )

  def line(self) -> str:
    """For people."""
    totals = self.totals()
    share = self.scalars()["goodput/share"]
    parts = sorted((-v, k) for k, v in totals.items() if v >= 0.5)
    again = self.retries()
    asked = f"; {again} requests to the bucket were made again" if again else ""
    spent = ", ".join(f"{k} {duration(-v)}" for v, k in parts)
    return f"goodput {share:.1%} of {duration(sum(totals.values()))}: {spent}{asked}"

  def beat(self) -> Beat:
    """What the main thread is at; called from another one.

    A step may take `stall` seconds, or 10 times the mean of late. All else,
    compiling above all, may take 40 times `stall`; so may the first steps, for
    the host runs ahead of the device.
    """
    phase, seconds = self.phase, self.clock() - self.since
    limit, recent = LONGER * self.stall, list(self.recent)
    if phase in STEPPING and len(recent) > FIRST:
      limit = max(self.stall, 10 * statistics.mean(recent))
    return Beat(self.step, phase, seconds, limit)
