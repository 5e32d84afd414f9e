"""One writer at a time in a workdir; readers need no lock.

The lock is the operating system's, on the file WORKDIR/.jaxgen.lock. It goes
when the process that holds it ends, however it ends; the file stays, and tells
who holds it while somebody does. Child processes do not inherit it, and it
holds across machines that share the file system, where that knows locks. In a
bucket it is an object that is renewed: see `lease`.
"""

import contextlib
import datetime
import errno
import fcntl
import functools
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from jaxgen import files
from jaxgen.checkpoint import disk
from jaxgen.distributed import join
from jaxgen.errors import UserError

FILE = ".jaxgen.lock"
LEASE = 120  # seconds that a file server may take to see that a machine died
HOLDER = re.compile(r"process \d+ on ([\w.-]+) since [\d :+-]+\n")


@contextlib.contextmanager
def exclusive(workdir: str | os.PathLike, wait: bool = False) -> Iterator[None]:
  """Within, nobody else writes to a workdir, which is made if need be.

  Of several processes the first holds the lock for all.

  Args:
    workdir: The folder.
    wait: For as long as it takes, in place of an error.

  Raises:
    UserError: On all processes: somebody holds it, or it cannot be written.
  """
  give_back = None

  def take():
    nonlocal give_back
    try:
      give_back = files.choose(workdir, acquire_file, acquire_lease)(workdir, wait)
    except UserError as e:
      return str(e)
    return ""

  if join.joined():
    why = join.consult("", lambda _: take())
  else:
    why = disk.first_error(take() if jax.process_index() == 0 else "")
  try:
    if why:
      raise UserError(why)
    yield
  finally:
    if give_back is not None:
      give_back()


def acquire_file(workdir: str | os.PathLike, wait: bool) -> Callable[[], None]:
  """The lock of a folder -> what gives it back."""
  return functools.partial(release, acquire(Path(workdir), wait))


def acquire_lease(workdir: str | os.PathLike, wait: bool) -> Callable[[], None]:
  """The lock of a workdir in a bucket -> what gives it back."""
  from jaxgen.checkpoint import lease  # here, for what talks to buckets takes time to import

  return lease.acquire(workdir, wait).release


def acquire(workdir: Path, wait: bool = False) -> int:
  """The lock, as an open file; closing it gives it back. Errors as `exclusive`.

  Where the file system has no locks there is a line on stderr.
  """
  file, start, announced = open_lock_file(workdir), time.monotonic(), False
  while True:
    try:
      # Not flock: that is inherited by children that outlive us.
      fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      break
    except OSError as e:
      if e.errno not in (errno.EACCES, errno.EAGAIN):
        print(
          f"jaxgen: {workdir} cannot be locked here ({e.strerror}): see to "
          "it yourself that nobody else trains there",
          file=sys.stderr,
        )
        break
    who = HOLDER.fullmatch(read(file))
    holder = who[0].strip() if who else "another process"
    away = who and who[1] != socket.gethostname()
    if not wait and not (away and time.monotonic() - start < LEASE):
      os.close(file)
      raise UserError(
        f"{workdir} is in use by {holder}: wait until it ends, or take another --workdir"
      )
    if not announced:
      announced = True
      print(f"jaxgen: waiting for {holder}, who holds {workdir}", file=sys.stderr, flush=True)
    time.sleep(0.5)
  sign(file)
  return file


def release(file: int) -> None:
  """Gives the lock back."""
  with contextlib.suppress(OSError):
    if HOLDER.fullmatch(read(file)):
      os.ftruncate(file, 0)
  os.close(file)


def open_lock_file(workdir: Path) -> int:
  """The file that is locked; UserError unless it can be written."""
  path = workdir / FILE
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
  except OSError as e:
    raise UserError(
      f"cannot write to {path} ({e.strerror}): choose another workdir or free some space"
    ) from e
  if not stat.S_ISREG(os.fstat(file).st_mode):
    os.close(file)
    raise UserError(f"{path} is in the way: move it elsewhere")
  return file


def read(file: int) -> str:
  """What the file says, as far as it may be ours."""
  return os.pread(file, 1000, 0).decode(errors="replace")


def sign(file: int) -> None:
  """Writes down who holds the lock; somebody else's text is left alone."""
  text = read(file)
  if text and not HOLDER.fullmatch(text):
    return
  now = datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")
  line = f"process {os.getpid()} on {socket.gethostname()} since {now}\n"
  with contextlib.suppress(OSError):  # a full disk: the lock holds anyhow
    os.ftruncate(file, 0)
    os.pwrite(file, line.encode(), 0)
