"""Progress on stderr: a line that is rewritten, or plain lines off a terminal."""

import contextlib
import io
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO

from jaxgen.distributed import join
from jaxgen.errors import printable


class Progress:
  """One line: steps of how many, speed, time left, and the losses.

  Rewritten in place on a terminal, printed every 15 s elsewhere. Speed is that
  of the last minute; what came before the first call does not count.
  """

  def __init__(
    self,
    total: int,
    batch: int,
    *,
    unit: str,
    stream: TextIO,
    clock: Callable[[], float] = time.monotonic,
  ):
    self.losses: dict[str, float] = {}  # the latest, by key ("gen/loss")
    self._total, self._batch, self._unit = total, batch, unit
    self._stream, self._clock = stream, clock
    self._live = stream.isatty()
    self._marks: deque[tuple[float, int]] = deque()
    self._due = -math.inf
    self._step = 0

  def at(self, step: int) -> None:
    """`step` steps are done; prints if the last line is old enough."""
    now, self._step = self._clock(), step
    if now < self._due and self._marks and step < self._total:
      return
    self._due = now + (0.2 if self._live else 15)
    self._marks.append((now, step))
    while len(self._marks) > 2 and now - self._marks[0][0] > 60:
      self._marks.popleft()
    self._write(self.line())

  def line(self) -> str:
    """At most 79 characters on a terminal."""
    parts = [f"{self._step:,}/{self._total:,}"]
    (t0, s0), (t1, s1) = self._marks[0], self._marks[-1]
    if s1 > s0 and t1 > t0:
      pace = (s1 - s0) / (t1 - t0)
      speed = pace * self._batch
      speed = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
      parts.append(f"{speed} {self._unit}/s")
      parts.append(f"{duration((self._total - self._step) / pace)} left")
    alone = len(self.losses) == 1
    parts += [f"{'loss' if alone else k} {v:.4g}" for k, v in self.losses.items()]
    if not self._live:
      return "  ".join(parts)
    bar = "━" * round(12 * min(1, self._step / max(1, self._total)))
    return f"{bar:╌<12} {'  '.join(parts)}"[:79]

  def print_line(self, text: str) -> None:
    """Prints a line of its own; the progress line comes back below it."""
    self._write(text, end="\n")
    if self._live and self._marks:
      self._write(self.line())

  def end(self) -> None:
    """The last line stays, and the prompt gets a line of its own."""
    if self._live and self._marks:
      self._stream.write("\n")
      self._stream.flush()

  def _write(self, line: str, end: str = "") -> None:
    line = printable(line)
    self._stream.write(f"\r\x1b[K{line}{end}" if self._live else f"{line}\n")
    self._stream.flush()


def duration(seconds: float) -> str:
  """How people write durations: 0:42, 12:34, 5:06:07, 3 days 4 h."""
  s = max(0, round(seconds))
  if s >= 172_800:
    return f"{s // 86_400} days {s % 86_400 // 3600} h"
  hours, minutes = s // 3600, s % 3600 // 60
  if hours:
    return f"{hours}:{minutes:02}:{s % 60:02}"
  return f"{minutes}:{s % 60:02}"


QUIET = 2.0  # seconds that work takes before its progress is shown


class Bars:
  """Progress of long work on stderr, one line for each kind."""

  def __init__(self, stream: TextIO | None = None):
    self.stream = stream or (sys.stderr if join.is_main_process() else io.StringIO())
    self.what, self.bar, self.start = "", None, 0.0

  def __call__(self, what: str, done: int, total: int) -> None:
    """`done` of `total` are done; another `what` begins another line."""
    now = time.monotonic()
    if what != self.what:
      self.end()
      self.what, self.start = what, now
      self.bar = Progress(total, 1, unit=what, stream=self.stream)
    if now - self.start >= QUIET:
      self.bar.at(done)

  def of(self, what: str, total: int) -> Callable[[int], None]:
    """f(done), for one kind of work."""
    return lambda done: self(what, done, total)

  def end(self) -> None:
    """The line stays."""
    if self.bar:
      self.bar.end()


@contextlib.contextmanager
def status_lines(stream: TextIO, every: float = 10.0) -> Iterator[Callable[[str], None]]:
  """Yields announce(text), which prints what goes on now.

  While that goes on, a line every `every` seconds says that it still does.
  """
  text, start, over = "", time.monotonic(), threading.Event()

  def announce(what: str) -> None:
    nonlocal text, start
    text, start = printable(what), time.monotonic()
    print(f"{text} ...", file=stream, flush=True)

  def repeat() -> None:
    while not over.wait(every):
      seconds = time.monotonic() - start
      if text and seconds >= every:
        print(f"  still {text}, {seconds:.0f} s", file=stream, flush=True)

  thread = threading.Thread(target=repeat, daemon=True)
  thread.start()
  try:
    yield announce
  finally:
    over.set()
    thread.join()
