"""Progress of long work, on stderr."""
import io
import sys
import time
from collections.abc import Callable
from typing import TextIO

from jaxgen.distributed import gather
from jaxgen.monitor.progress import Progress

QUIET = 2.0  # seconds of work before its progress is told


class Bars:
  """Progress of long work on stderr, one line for each kind."""

  def __init__(self, stream: TextIO | None = None):
    self.stream = stream or (sys.stderr if gather.lead() else io.StringIO())
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
