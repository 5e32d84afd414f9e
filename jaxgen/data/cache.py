"""Where prepared data lies, and how it gets there once and complete."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from jaxgen import files
from jaxgen.errors import UserError

MARK = "begun_by_jaxgen.txt"  # in a folder that becomes prepared data


def root(data_dir: str | None = None) -> Path:
  """`data_dir`, or $JAXGEN_DATA, or `data` in the user's cache."""
  path = data_dir or os.environ.get("JAXGEN_DATA") or files.cache() / "data"
  if files.choose(path, False, True):
    raise UserError(f"prepared data lie in a folder that all see, and not in a bucket: {path}")
  return Path(path).expanduser().absolute()


def once(target: Path, make: Callable[[Path], None]) -> Path:
  """The folder `target`, made first if it is not there.

  `make(tmp)` writes tmp/<target's name>, which is renamed into place: what
  exists is complete, however many processes start at once or are killed.
  """
  if target.exists():
    return target
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / f".{target.name}.lock") as alone:
      if not target.exists():
        _make(target, make, alone)
  except OSError as e:
    raise UserError(
      f"cannot prepare {target}: {e}; $JAXGEN_DATA names a folder to use instead"
    ) from e
  return target


def _make(target: Path, make: Callable[[Path], None], alone: bool) -> None:
  prefix = f".{target.name}.tmp-"
  if alone:  # so what lies here was left by somebody who was killed
    for old in target.parent.iterdir():
      if old.name.startswith(prefix) and not old.is_symlink():
        _remove(old)
  tmp = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
  try:
    (tmp / MARK).touch()
    make(tmp)
    os.rename(tmp / target.name, target)
  except OSError:
    if not target.exists():  # else another process was faster: as good
      raise
  finally:
    shutil.rmtree(tmp, ignore_errors=True)


def _remove(old: Path) -> None:
  """Removes a folder that we made for a draft, or an empty one."""
  if (old / MARK).is_file():
    shutil.rmtree(old, ignore_errors=True)
  else:
    with contextlib.suppress(OSError):
      old.rmdir()


@contextlib.contextmanager
def _locked(path: Path):
  """Waits for the lock; yields False where the filesystem has none."""
  with open(path, "a") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX)
      alone = True
    except OSError:  # some network filesystems: the rename still is atomic
      alone = False
    yield alone
