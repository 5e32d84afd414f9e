"""Processes that watch each other: who died or hangs is named, and all end.

Every process has two threads. One tells process 0 all the time what the main
thread is at (a Beat), and asks whether the run has been called off; in process
0 it also judges. The other sees to it that the first gets answers: if not,
process 0 itself is gone or frozen. None of them waits for a main thread, which
may hang in a collective for ever.

All goes through the key-value store of jax's coordinator, in process 0:

  beat/<i>   what process i is at, always overwritten
  end        status and reason: whoever writes first calls the run off
  gone/<i>   process i has read that, and leaves

The coordinator itself notices silence too, after twice our patience, and jax
then aborts: so do processes whose threads are stuck as well.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from jaxgen.errors import printable

LONGEST = 2000  # characters of the line that a process ends with
LOST = 75  # exit status: a process died or hangs, restart all
ORDER = {
  phase: i
  for i, phase in enumerate(  # within a step
    ("data", "compile", "step", "pictures", "eval", "checkpoint"), 1
  )
}


class Beat(NamedTuple):
  """What a main thread is at.

  Attributes:
    step: Steps it has begun.
    phase: "data", "step", "checkpoint", ...
    seconds: For how long it has been in that phase.
    limit: How long that may last.
    trouble: Why it cannot go on, as it sees it: a connection broke, say.
  """

  step: int = 0
  phase: str = "starting"
  seconds: float = 0.0
  limit: float = float("inf")
  trouble: str = ""


def judge(beats: Mapping[int, Beat], silent: Mapping[int, float], patience: float) -> str | None:
  """What is wrong with a run, in one line; None if nothing is.

  Args:
    beats: By process, the newest of each.
    silent: For how many seconds nothing new came of each.
    patience: Silence that means death. When others are in trouble already a
      sixth of it is enough.
  """
  troubled = [i for i, beat in beats.items() if beat.trouble]
  limit = patience / 6 if troubled else patience
  dead = [i for i, seconds in silent.items() if seconds > limit]
  if dead:
    longest = max(silent[i] for i in dead)
    return (
      f"{named(dead)} died: no sign of life for {longest:.0f} s, last "
      f"at step {beats[dead[0]].step} ({beats[dead[0]].phase})"
    )
  # Nobody is dead: then what they say is what is wrong.
  old = [i for i in troubled if beats[i].seconds > patience / 3]
  if old:
    return f"{named(old[:1])} cannot go on: {beats[old[0]].trouble}"
  # Who waits for others is late as well. Behind them all is who keeps them
  # waiting, and may have reason to: pictures take longer than a step.
  place = {i: (b.step, ORDER.get(b.phase, 0)) for i, b in beats.items()}
  behind = [i for i in beats if place[i] == min(place.values())]
  if not any(beats[i].seconds > beats[i].limit for i in behind):
    return None
  hang = "hang" if len(behind) > 1 else "hangs"
  return (
    f"{named(behind)} {hang}: at step {beats[behind[0]].step} "
    f"({beats[behind[0]].phase}) for "
    f"{max(beats[i].seconds for i in behind):.0f} s"
  )


def named(processes: list[int]) -> str:
  """ "process 3", or "processes 3, 5"."""
  plural = "es" if len(processes) > 1 else ""
  return f"process{plural} {', '.join(map(str, processes))}"


class Store:
  """The coordinator's key-value store, as far as we need it."""

  def __init__(self, client: Any):
    self.client = client  # jax's

  def put(self, key: str, value: str) -> None:
    """Writes, over what was there."""
    self.client.key_value_set(f"jaxgen/{key}", value, allow_overwrite=True)

  def first(self, key: str, value: str) -> None:
    """Writes if nothing is there."""
    with contextlib.suppress(Exception):
      self.client.key_value_set(f"jaxgen/{key}", value)

  def all(self, folder: str) -> dict[str, str]:
    """{name: value} of folder/name."""
    entries = self.client.key_value_dir_get(f"jaxgen/{folder}/")
    return {key.rsplit("/", 1)[1]: value for key, value in entries}


class Silence:
  """For how long nothing was heard, by somebody who listens every `tick`.

  While the listener itself was held up, on a machine that is overloaded or was
  paused, there may have been something to hear: that counts little.
  """

  def __init__(self, tick: float, clock: Callable[[], float] = time.monotonic):
    self.tick, self.clock, self.heard, self.last = tick, clock, 0.0, clock()

  def seconds(self) -> float:
    """Since the beginning; call every `tick`."""
    now = self.clock()
    self.heard += min(now - self.last, 3 * self.tick)
    self.last = now
    return self.heard


class Guard:
  """The two threads of one process.

  Attributes:
    report: Says what the main thread is at.
  """

  def __init__(self, index: int, count: int, store: Store, patience: float):
    self.index, self.count, self.store = index, count, store
    self.patience, self.meetings = patience, 0
    self.tick = min(1.0, patience / 10)
    self.report: Callable[[], Beat] = Beat
    self.trouble = None  # (why, since when)
    self.over = threading.Event()  # all went well
    self.threads: list[threading.Thread] = []
    self.no_answer = Silence(self.tick)  # of the store
    self.newest_beats: dict[int, tuple[str, Silence]] = {}  # newest beat of each

  def start(self) -> None:
    """Begins to watch."""
    for target in (self.talk, self.listen):
      self.threads.append(threading.Thread(target=target, daemon=True, name="guard"))
      self.threads[-1].start()

  def stop(self) -> None:
    """Ends the watch: no thread is within jax when the process goes."""
    self.over.set()
    for thread in self.threads:
      thread.join(self.patience)

  def talk(self) -> None:
    """In a thread: tells, asks, judges."""
    count = 0
    while not self.over.wait(self.tick):
      count += 1
      with contextlib.suppress(Exception):  # `listen` says so if it lasts
        self.store.put(f"beat/{self.index}", json.dumps([count, *self.beat()]))
        end = self.store.all("end")
        self.no_answer = Silence(self.tick)
        if end:
          self.leave(*json.loads(end["0"]))
        if self.index == 0 and (why := self.verdict()):
          self.leave(LOST, f"{why}; start all {self.count} again")

  def listen(self) -> None:
    """In a thread: leaves if process 0 does not answer."""
    while not self.over.wait(self.tick):
      if self.no_answer.seconds() > self.patience:
        exit_now(
          LOST,
          "process 0 is gone or frozen: no answer from it for "
          f"{self.patience:.0f} s; start all {self.count} again",
        )

  def beat(self) -> Beat:
    """Where this process is."""
    if self.trouble is None:
      return self.report()
    why, since = self.trouble
    return self.report()._replace(trouble=why, phase="trouble", seconds=time.monotonic() - since)

  def verdict(self) -> str | None:
    """`judge` of what the store holds."""
    texts = self.store.all("beat")
    for i in range(self.count):
      text = texts.get(str(i), "")
      if i not in self.newest_beats or self.newest_beats[i][0] != text:
        self.newest_beats[i] = text, Silence(self.tick)
    beats = {
      i: Beat(*json.loads(text)[1:]) if text else Beat()
      for i, (text, _) in self.newest_beats.items()
    }
    silent = {i: since.seconds() for i, (_, since) in self.newest_beats.items()}
    return judge(beats, silent, self.patience)

  def blame(self, why: str) -> NoReturn:
    """The main thread cannot go on, perhaps for another's fault: who died?"""
    self.trouble = why, time.monotonic()
    time.sleep(self.patience + 10 * self.tick)
    self.leave(LOST, f"process {self.index} cannot go on: {why}")

  def leave(self, status: int, line: str) -> NoReturn:
    """Ends this process, and all others with the same status and line."""
    if self.index:  # a store that hangs must not hold us up
      late = threading.Timer(5 * self.tick, exit_now, (status, line))
      late.daemon = True
      late.start()
    # Where nobody is lost all will read it, sooner or later.
    end = time.monotonic() + (5 * self.tick if status == LOST else self.patience)
    with contextlib.suppress(Exception):
      self.store.first("end/0", json.dumps([status, line]))
      status, line = _verdict[:] = json.loads(self.store.all("end")["0"])
      self.store.put(f"gone/{self.index}", "")
      # With process 0 goes the store, so it waits for those who read.
      while (
        self.index == 0 and time.monotonic() < end and (len(self.store.all("gone")) < self.count)
      ):
        time.sleep(self.tick / 4)
    exit_now(status, line)


_departing = threading.RLock()
_verdict: list = []  # status and line on which the run has ended, once that is known here


def exit_now(status: int, line: str) -> NoReturn:
  """Ends the process at once, with one line; the first to call it does."""
  with _departing:
    with contextlib.suppress(Exception):
      line = printable(" ".join(line.split()))
      if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
      print(f"jaxgen: {line}", file=sys.stderr, flush=True)
    with contextlib.suppress(Exception):  # a pipe may be broken
      sys.stdout.flush()
    # Not sys.exit: it would wait for background saves and loader threads.
    os._exit(status)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(signal_number):
  # Process 0 may be gone before we are, who have read why.
  exit_now(
    *_verdict
    or (
      LOST,
      "jax gave up, see above: most likely process 0 died, or not everybody came; start all again",
    )
  )


def catch_abort() -> None:
  """Turns jax's abort without its coordinator into a line and a status.

  It comes from a thread of jax's own, where Python hears of no signal.
  """
  ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)


def restore_abort() -> None:
  """Takes `catch_abort` back: where Python ends, its handler would abort again, without end."""
  ctypes.CDLL(None).signal(signal.SIGABRT, None)
