"""Files as we keep them: whole or not at all, JSON with numbers of any kind.

A path is a folder or file of this machine's, or an address in a bucket:
gs://bucket/a/b, s3://bucket/a/b. `path` makes pathlib's methods of either, and
what those do not cover stands here: no other module asks where a path leads.
What differs in a bucket:

  a file      appears whole when its write ends; no drafts, nothing to rename
  a folder    is there while an object is below it: `new_folder` by conditional
              writes, so that of two who make one at once one is refused
  sizes       no store tells them: None, and an object cannot be torn anyway
  a log       cannot be appended to: `growing` keeps it in memory and rewrites
              it every few seconds; `settle` waits until all is written
  TensorBoard writes to a folder of this machine that is copied: `mirrored`
  reading     of files that are searched or mapped: `local` copies them once

`jaxgen.bucket` does it, imported when an address is met.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxgen.errors import UserError

DRAFT = ".jaxgen-"  # how the names of drafts begin
SCHEMES = ("gs://", "s3://")
Address = str | os.PathLike[str]
T = TypeVar("T")


def path(address: Address) -> Path:
  """By pathlib's methods: a path of this machine, or a `bucket.paths.BucketPath`.

  Raises:
    UserError: it is an address of another kind, such as https://.
  """
  if choose(address, False, True):
    from jaxgen.bucket.paths import BucketPath

    return BucketPath(address)
  if "://" in str(address):
    raise UserError(f"{address}: a path is a folder or file, gs://bucket/name or s3://bucket/name")
  return Path(address).expanduser()


def choose(address: Address, here: T, in_bucket: T) -> T:
  """One of two, by where a path leads; for what has to differ altogether."""
  return in_bucket if str(address).startswith(SCHEMES) else here


def join(folder: Address, name: str) -> str:
  """The path of what is in a folder, as text."""
  return str(path(folder) / name)


@contextlib.contextmanager
def atomic(path: Address) -> Iterator[Path]:
  """Within, a draft is to be written; at the end it becomes the file `path`.

  Until then the file is as it was, and after any failure too: a full disk, a
  signal. No draft is left but by SIGKILL. Folders are made as needed.

  A link is followed, as by a shell's `>`: what it points at is replaced. What
  is no file, such as /dev/stdout or a pipe, is written to and stays what it is.

  Yields:
    The draft's name, a file of this machine; nothing is there yet.

  Raises:
    OSError: It cannot be written; the name in it is `path`.
  """
  place = _elsewhere(path)
  if place is not None:
    with tempfile.TemporaryDirectory(prefix="jaxgen-") as folder:
      yield (draft := Path(folder) / "draft")
      with draft.open("rb") as source, place.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    return
  named = Path(path)
  target = Path(os.path.realpath(named))
  # Not the file's own name: that may be as long as names can be.
  draft = target.with_name(f"{DRAFT}{os.getpid()}-{secrets.token_hex(4)}.tmp")
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    yield draft
    if target.exists():
      shutil.copymode(target, draft)
    draft.replace(target)
  except OSError as e:
    if e.errno and e.filename in (None, str(draft)):
      e.filename, e.filename2 = str(named), None
    raise
  finally:
    with contextlib.suppress(OSError):  # else it would hide what went wrong
      draft.unlink(missing_ok=True)


def _elsewhere(address: Address) -> Path | None:
  """What a draft is copied to: an object, a device, a pipe; None of a file."""
  place = path(address)
  special = os.path.exists(place) and not place.is_dir() and not place.is_file()
  return choose(address, place if special else None, place)


def write_bytes(path: Address, content: bytes) -> None:
  """A file, by `atomic`."""
  with atomic(path) as draft:
    draft.write_bytes(content)


def write_text(path: Address, text: str) -> None:
  """A file in UTF-8, by `atomic`."""
  write_bytes(path, text.encode())


def write_json(path: Address, value: Any) -> None:
  """A file of `plain(value)`, by `atomic`."""
  write_text(path, json.dumps(plain(value), indent=1) + "\n")


def lexists(address: Address) -> bool:
  """Whether something is there, be it a link that leads nowhere."""
  place = path(address)
  return place.is_symlink() or place.exists()


def names(folder: Address) -> list[str]:
  """What is in a folder, in no order; OSError if it is none."""
  return [p.name for p in path(folder).iterdir()]


def folders(top: Address) -> list[str]:
  """Names of the folders in a folder; none if that is not there."""
  if choose(top, False, True):
    from jaxgen.bucket import objects

    return sorted({n.partition("/")[0] for n in objects.names_below(top) if "/" in n})
  try:
    return [name for name in os.listdir(top) if os.path.isdir(os.path.join(top, name))]
  except (FileNotFoundError, NotADirectoryError):
    return []


def sizes(folder: Address, prefix: str = "") -> dict[str, int | None]:
  """{file below a folder: bytes}; None of an object.

  Links are not followed. What is neither folder nor file, such as a pipe, has
  -1 bytes: reading it may never end.
  """
  if choose(folder, False, True):
    from jaxgen.bucket import objects

    return dict.fromkeys(objects.names_below(folder))
  by_file = {}
  with os.scandir(folder) as entries:
    for entry in entries:
      if entry.is_dir(follow_symlinks=False):
        by_file |= sizes(entry.path, f"{prefix}{entry.name}/")
      else:
        size = entry.stat(follow_symlinks=False).st_size
        by_file[prefix + entry.name] = size if entry.is_file() else -1
  return by_file


def holds_bytes(file: Address) -> bool:
  """Whether a file is not empty."""
  with path(file).open("rb") as stream:
    return bool(stream.read(1))


def folder_for(file: Address) -> Path:
  """The folder that a file would be in, or the nearest above that is there."""
  place = path(file).parent
  while choose(place, not lexists(place), False):
    place = place.parent
  return place


def shown_below(top: Address) -> Iterator[str]:
  """Files below a folder, and links to folders; no hidden ones."""
  if choose(top, False, True):
    from jaxgen.bucket import objects

    yield from (n for n in objects.names_below(top) if "/." not in f"/{n}")
    return
  for folder, below, names in os.walk(top):
    below[:] = [d for d in below if not d.startswith(".")]
    links = [d for d in below if os.path.islink(os.path.join(folder, d))]
    for name in names + links:
      if not name.startswith("."):
        yield Path(folder, name).relative_to(top).as_posix()


def new_folder(folder: Address, texts: Mapping[str, str], draft: str) -> None:
  """Makes a folder that holds some files when it appears.

  Args:
    folder: Its path.
    texts: The files' names, and what is in them.
    draft: Name beside it, taken meanwhile; what a kill left of it is reused.

  Raises:
    OSError: Something is there already, or it cannot be written.
  """
  place = path(folder)
  taken = FileExistsError(17, "is in the way", str(place))
  if choose(folder, False, True):
    from jaxgen.bucket import objects

    if place.exists():
      raise taken
    for name, text in texts.items():
      if objects.write(place / name, text.encode(), objects.MISSING) is None:
        raise taken
    return
  scratch = place.with_name(draft)
  scratch.mkdir(exist_ok=True)
  if scratch.is_symlink() or set(os.listdir(scratch)) - texts.keys():
    raise FileExistsError(17, "is in the way", str(scratch))
  try:
    for name, text in texts.items():
      (scratch / name).write_text(text)
    if os.path.lexists(place):  # an empty folder would be replaced
      raise taken
    scratch.rename(place)
  except OSError:
    for name in texts:
      (scratch / name).unlink(missing_ok=True)
    scratch.rmdir()
    raise


def empty_folder(folder: Address, but: str) -> None:
  """Removes all that is in a folder, except one file."""
  place = path(folder)
  for entry in list(place.iterdir()):
    if entry.is_dir() and not entry.is_symlink():
      choose(entry, shutil.rmtree, lambda p: p.rmtree())(entry)
    elif entry.name != but:
      entry.unlink()


def move(folder: Address, target: Address, last: str) -> None:
  """Renames a folder. In a bucket: copies, then removes, the file `last` last."""
  place = path(folder)
  if choose(folder, True, False):
    place.rename(target)
    return
  place.copy_tree(path(target))
  empty_folder(place, but=last)
  (place / last).unlink(missing_ok=True)


def check_writable(folder: Address) -> None:
  """OSError if nothing can be written in a folder, which is made."""
  if choose(folder, False, True):
    from jaxgen.bucket import objects

    return objects.check_access(folder)
  Path(folder).mkdir(parents=True, exist_ok=True)
  tempfile.TemporaryFile(dir=folder).close()


def truncate(file: Address, size: int) -> None:
  """Cuts a file off after `size` bytes."""
  if choose(file, True, False):
    return os.truncate(file, size)
  write_bytes(file, path(file).read_bytes()[:size])


def growing(file: Address) -> Any:
  """A text file to write at the end of: write(text), flush(), close().

  What was flushed is with the operating system, or in a bucket some seconds
  later: see `settle`.
  """
  if choose(file, False, True):
    from jaxgen.bucket.growing import Growing

    return Growing(file)
  return open(file, "a")  # noqa: SIM115


def append(file: Address, line: bytes) -> None:
  """Adds a line to a file to which others may be adding: nobody's is torn."""
  if choose(file, False, True):
    from jaxgen.bucket.growing import Growing

    log = Growing(file)
    log.write(line.decode())
    return log.close()
  with open(file, "ab", buffering=0) as out:
    out.write(line)


def settle() -> None:
  """Waits until all that was flushed to growing files has arrived; or OSError."""
  if module := sys.modules.get("jaxgen.bucket.growing"):
    module.settle()


def is_away(error: BaseException | None) -> bool:
  """Whether it is that a server cannot be reached, which passes by itself."""
  return isinstance(error, OSError) and error.errno == errno.EHOSTUNREACH


def retries() -> int:
  """How often a bucket was asked once more by this process: throttled, or away."""
  module = sys.modules.get("jaxgen.bucket.objects")
  return module.retries() if module else 0


def mirrored(folder: Address) -> Any:
  """A folder that a library writes to: `.path`, of this machine; close().

  In a bucket it is a copy of what is there, made every half minute.
  """
  if choose(folder, False, True):
    from jaxgen.bucket.growing import Mirror

    return Mirror(folder)
  return _Here(str(folder))


class _Here:
  """A folder that needs no copy."""

  full = False

  def __init__(self, folder):
    self.path = folder

  def close(self):
    pass


def local(address: Address) -> Path:
  """A path of this machine with what is there: of a bucket a copy, made once.

  Raises:
    UserError: nothing is at an address, or more than all copies may take.
  """
  if choose(address, False, True):
    from jaxgen.bucket import replica

    return replica.of(address, cache() / "copies")
  return Path(address).expanduser()


def with_addresses(text: str) -> str:
  """A message in which copies of `local` go by the addresses of what they are of."""
  module = sys.modules.get("jaxgen.bucket.replica")
  return module.with_addresses(text) if module else text


def copies_limit() -> float:
  """Bytes that copies of what lies in buckets may take."""
  from jaxgen.bucket import replica

  return replica.limit()


def version(file: Address) -> str:
  """What changes when a file does: of an object its generation."""
  if choose(file, False, True):
    from jaxgen.bucket import objects

    return objects.generation(file).hex()
  stat = os.stat(file)
  return f"{stat.st_size} {stat.st_mtime_ns}"


def read_parts(file: Address, starts: Sequence[int], size: int) -> list[bytes]:
  """Parts of a file, each of `size` bytes; of an object all at once."""
  if choose(file, False, True):
    from jaxgen.bucket import objects

    return objects.read_parts(file, starts, size)
  with open(file, "rb") as stream:
    return [os.pread(stream.fileno(), size, start) for start in starts]


def scratch(folder: Address) -> Path:
  """Where to work on what will be `folder`: there, or in the user's cache."""
  key = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
  return choose(folder, path(folder), cache() / "scratch" / key)


def publish(folder: Path, address: Address, last: str) -> None:
  """Puts what was made in `scratch` where it belongs, the file `last` at the end."""
  if choose(address, True, False):
    return  # it is there
  for name in sorted(shown_below(folder), key=lambda name: name == last):
    write_bytes(join(address, name), (folder / name).read_bytes())
  shutil.rmtree(folder)


def plain(value: Any) -> Any:
  """Nested values as JSON can say them; what is not finite becomes "inf"."""
  if isinstance(value, Mapping):
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple | np.ndarray):
    return [plain(v) for v in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not np.isfinite(value):
    return str(value)
  return value


def digest(value: Any) -> str:
  """Sixteen hex digits that identify a value of JSON."""
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache() -> Path:
  """Our folder below $XDG_CACHE_HOME, or below ~/.cache; may not exist."""
  home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return Path(home).expanduser().absolute() / "jaxgen"
