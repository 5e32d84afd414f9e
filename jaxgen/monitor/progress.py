"""The line on the terminal that says how far, how fast and how long still."""

import contextlib
import io
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from jaxgen.distributed import gather
from jaxgen.errors import printable


class Progress:
  """One line: how far, how fast, how long still, and the losses.

  Rewritten in place on a terminal, printed now and then elsewhere. Speed is
  that of the last minute and does not count what came before the first call.
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
    """Now after `step`; prints at most every 0.2 s, or 15 s off terminal."""
    now, self._step = self._clock(), step
    if now < self._due and self._marks and step < self._total:
      return
    self._due = now + (0.2 if self._live else 15)
    self._marks.append((now, step))
    while len(self._marks) > 2 and now - self._marks[0][0] > 60:
      self._marks.popleft()
    self._print(self.line())

  def line(self) -> str:
    """The line itself, at most 79 characters on a terminal."""
    parts = [f"{self._step:,}/{self._total:,}"]
    (t0, s0), (t1, s1) = self._marks[0], self._marks[-1]
    if s1 > s0 and t1 > t0:
      pace = (s1 - s0) / (t1 - t0)
      speed = pace * self._batch
      speed = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
      parts.append(f"{speed} {self._unit}/s")
      parts.append(f"{duration((self._total - self._step) / pace)} left")
    if len(self.losses) == 1:
      parts += [f"loss {value:.4g}" for value in self.losses.values()]
    else:
      parts += [f"{k} {value:.4g}" for k, value in self.losses.items()]
    if not self._live:
      return "  ".join(parts)
    done = min(1, self._step / max(1, self._total))
    bar = "━" * round(12 * done)
    return f"{bar:╌<12} {'  '.join(parts)}"[:79]

  def say(self, text: str) -> None:
    """Prints a line of its own; the progress line comes back below it."""
    text = printable(text)
    self._stream.write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
    if self._live and self._marks:
      self._print(self.line())
    self._stream.flush()

  def end(self) -> None:
    """The last line stays, and the prompt gets a line of its own."""
    if self._live and self._marks:
      self._stream.write("\n")
      self._stream.flush()

  def _print(self, line: str) -> None:
    line = printable(line)
    self._stream.write(f"\r\x1b[K{line}" if self._live else f"{line}\n")
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


QUIET = 2.0  # seconds of work before its progress is told


class Bars:
  """Progress of long work on stderr, one line for each kind."""

  def __init__(self, stream: TextIO | None = None):
    self.stream = stream or (sys.stderr if gather.is_main_process() else io.StringIO())
    self.what, self.bar, self.begun = "", None, 0.0

  def __call__(self, what: str, done: int, total: int) -> None:
    """Now `done` of `total`."""
    now = time.monotonic()
    if what != self.what:
      self.end()
      self.what, self.begun = what, now
      self.bar = Progress(total, 1, unit=what, stream=self.stream)
    if now - self.begun >= QUIET:
      self.bar.at(done)

  def of(self, what: str, total: int) -> Callable[[int], None]:
    """The same for one kind of work."""
    return lambda done: self(what, done, total)

  def end(self) -> None:
    """The line stays."""
    if self.bar:
      self.bar.end()


@contextlib.contextmanager
def telling(stream, every: float = 10.0) -> Iterator[Any]:
  """Within, say(text) tells what is being done, and again while it lasts."""
  news, over = threading.Event(), threading.Event()
  now = {"text": None, "since": time.monotonic()}

  def say(text):
    now.update(text=text, since=time.monotonic())
    print(f"{printable(text)} ...", file=stream, flush=True)
    news.set()

  def repeat():
    while not over.is_set():
      if news.wait(every):
        news.clear()
      elif now["text"]:
        passed = time.monotonic() - now["since"]
        print(f"  still {now['text']}, {passed:.0f} s", file=stream, flush=True)

  thread = threading.Thread(target=repeat, daemon=True)
  thread.start()
  try:
    yield say
  finally:
    over.set()
    news.set()
    thread.join()
