"""What grows while it is written, in a bucket, where nothing can be appended to.

`Growing` is a log: kept in memory, and written anew from a thread every few
seconds, to which somebody else may add lines. `Mirror` is a folder of a
library's that writes files of its own, such as TensorBoard's events.

While the bucket is away the training goes on, and they try again. SIGKILL
costs what came since the last writing; `settle` is called before a checkpoint
counts, so that of steps that are in a checkpoint no row is lost.
"""

import contextlib
import pathlib
import sys
import tempfile
import threading
import weakref

from jaxgen.bucket import objects
from jaxgen.errors import printable

EVERY = 5.0  # seconds between two writings of a log, at least
MIRRORED = 30.0  # of a folder
FULL = 4 << 20  # bytes: files larger than that are best left, and others begun

_all: "weakref.WeakSet[Growing]" = weakref.WeakSet()


def settle() -> None:
  """Waits until every log has all its lines in its bucket; or OSError."""
  for log in list(_all):
    log.upload()


class Growing:
  """A text file in a bucket that lines are added to."""

  def __init__(self, address: str):
    """Reads what is there."""
    self.address = str(address)
    self._pending = b""
    self._content, self._generation = self._read()
    self._text = threading.Lock()  # of _pending
    self._turn = threading.Lock()  # of writing
    self._thread = _Ticker(self.upload, EVERY, self.address)
    _all.add(self)

  def write(self, text: str) -> None:
    """Adds to the end; nothing is sent yet."""
    with self._text:
      self._pending += text.encode()

  def flush(self) -> None:
    """From now on it is under way."""
    self._thread.wake()

  def close(self) -> None:
    """Waits until all is there; OSError if it cannot be written."""
    self._thread.stop()
    _all.discard(self)
    self.upload()

  def upload(self) -> None:
    """Writes what was added; what others added meanwhile comes before it."""
    with self._turn:
      with self._text:
        lines = self._pending
      if not lines:
        return
      while (new := self._put(self._content + lines)) is None:
        self._content, self._generation = self._read()
      self._content, self._generation = self._content + lines, new
      with self._text:
        self._pending = self._pending[len(lines) :]

  def _put(self, content):
    return objects.write(self.address, content, self._generation)

  def _read(self):
    """What is there -> (bytes, generation), of one moment."""
    while True:
      generation = objects.generation(self.address)
      if generation == objects.MISSING:
        return b"", generation
      with contextlib.suppress(FileNotFoundError):
        content = objects.read(self.address)
        if objects.generation(self.address) == generation:
          return content, generation


class Mirror:
  """A folder of this machine whose files are copied into one of a bucket.

  Attributes:
    path: The folder, which goes at the end.
    full: Whether the newest file is too large to be copied again and again.
  """

  def __init__(self, address: str):
    self.address = str(address)
    self._folder = tempfile.TemporaryDirectory(prefix="jaxgen-events-")
    self.path = self._folder.name
    self._copied: dict[str, int] = {}
    self._thread = _Ticker(self.upload, MIRRORED, self.address)
    self._thread.wake()

  @property
  def full(self) -> bool:
    files = sorted(pathlib.Path(self.path).iterdir(), key=lambda p: p.stat().st_mtime_ns)
    return bool(files) and files[-1].stat().st_size > FULL

  def upload(self) -> None:
    """Copies the files that have grown."""
    for file in sorted(pathlib.Path(self.path).iterdir()):
      content = file.read_bytes()
      if len(content) != self._copied.get(file.name):
        objects.write(f"{self.address}/{file.name}", content)
        self._copied[file.name] = len(content)
    self._thread.wake()

  def close(self) -> None:
    """The last copy; what cannot be written is left out, as on a full disk."""
    self._thread.stop()
    with contextlib.suppress(OSError):
      self.upload()
    self._folder.cleanup()


class _Ticker:
  """A thread that calls a function once it was woken, with pauses between."""

  def __init__(self, call, pause, what):
    self._call, self._pause, self._what = call, pause, what
    self._due, self._end = threading.Event(), threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True, name="upload")
    self._thread.start()

  def wake(self):
    self._due.set()

  def stop(self):
    self._end.set()
    self._due.set()
    if threading.current_thread() is not self._thread:
      self._thread.join()

  def _run(self):
    trouble = ""
    while not self._end.wait(self._pause):
      self._due.wait()
      self._due.clear()
      if self._end.is_set():
        return
      try:
        self._call()
        trouble = ""
      except OSError as e:
        if e.strerror != trouble:
          trouble = e.strerror
          line = f"jaxgen: {self._what} cannot be written ({trouble}): it is tried again"
          print(printable(line), file=sys.stderr, flush=True)
        self._due.set()
