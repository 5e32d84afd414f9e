"""A step's folder on disk: whose it is, how it begins and how it goes.

Other people's files may lie beside ours, and links may lead anywhere. What is
removed or moved is a real folder, named by a step, that holds our mark (or our
seal: older ones have no mark). The mark is there before all else in the folder
and goes last, so what was killed half-way is known as ours.
"""

import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Collection

from jaxgen import files

MARK, COMMIT, SEAL = "begun_by_jaxgen.txt", "commit_success.txt", "SEAL.json"
FACTS = "_CHECKPOINT_METADATA"  # Orbax's, which misses it
ITEMS = "state", "meta"
ENTRIES = {MARK, COMMIT, SEAL, FACTS, *ITEMS}
Path = str | os.PathLike[str]


def number(name: str) -> int | None:
  """The step that a folder's name says; None if it is no step's name."""
  step = int(name) if re.fullmatch("0|[1-9][0-9]{0,9}", name) else 2**31
  return step if step < 2**31 else None  # as the state counts them


def present(root: Path) -> list[int]:
  """All steps with a folder, complete or not, ours or not, oldest first."""
  try:
    names = os.listdir(root)
  except (FileNotFoundError, NotADirectoryError):
    return []
  return sorted(
    step
    for name in names
    if (step := number(name)) is not None and os.path.isdir(os.path.join(root, name))
  )


def sizes(path: Path, prefix: str = "") -> dict[str, int]:
  """{file: bytes} of one step, without the seal and what becomes it.

  Links are not followed. What is neither folder nor file, such as a pipe, has
  -1 bytes: reading it may never end.
  """
  by_file = {}
  with os.scandir(path) as entries:
    for entry in entries:
      if entry.is_dir(follow_symlinks=False):
        by_file |= sizes(entry.path, f"{prefix}{entry.name}/")
      elif not entry.name.startswith((SEAL, files.DRAFT)):
        size = entry.stat(follow_symlinks=False).st_size
        by_file[prefix + entry.name] = size if entry.is_file() else -1
  return by_file


def begin(path: Path) -> None:
  """Makes a step's folder, which holds the mark when it appears.

  Raises:
    OSError: Something is there already, or it cannot be written.
  """
  path = pathlib.Path(path)
  draft = path.with_name(f".begun-{path.name}")  # one that was killed is reused
  draft.mkdir(exist_ok=True)
  if draft.is_symlink() or set(os.listdir(draft)) - {MARK, FACTS}:
    raise FileExistsError(17, "is in the way", str(draft))
  try:
    (draft / MARK).write_text(
      "This folder is a checkpoint of jaxgen's, which removes it when it has newer ones.\n"
    )
    (draft / FACTS).write_text(json.dumps({"init_timestamp_nsecs": time.time_ns()}))
    if os.path.lexists(path):  # an empty folder would be replaced
      raise FileExistsError(17, "is in the way", str(path))
    draft.rename(path)
  except OSError:
    for name in (MARK, FACTS):
      (draft / name).unlink(missing_ok=True)
    draft.rmdir()
    raise


def ours(path: Path) -> bool:
  """Whether a path is a step's folder that we made, and no link to one."""
  path = pathlib.Path(path)
  return (
    number(path.name) is not None
    and not path.is_symlink()
    and path.is_dir()
    and ((path / MARK).is_file() or bool(sealed(path)))
  )


def alike(path: Path) -> bool:
  """Whether a folder may be a finished checkpoint, if perhaps a linked one.

  Older ones that were killed between commit and seal are not known as ours.
  """
  path = pathlib.Path(path)
  return ours(path) or all((path / n).exists() for n in (COMMIT, *ITEMS))


def sealed(path: Path) -> dict[str, int]:
  """The files that a seal names; none if there is no seal that can be read."""
  file = pathlib.Path(path) / SEAL
  try:
    named = json.loads(file.read_text()) if file.is_file() else {}
  except (OSError, ValueError):
    return {}
  return named if isinstance(named, dict) else {}


def committed(path: Path) -> bool:
  """Whether a step was saved to its end."""
  return os.path.exists(os.path.join(path, COMMIT))


def foreign(path: Path) -> list[str]:
  """What somebody else put into a folder of ours."""
  if named := sealed(path):
    return sorted(sizes(path).keys() - named.keys() - {MARK})
  return sorted(
    name
    for name in os.listdir(path)
    if name not in ENTRIES and not name.startswith((SEAL, files.DRAFT))
  )


def empty(path: Path) -> bool:
  """Whether a path is a folder with nothing in it, and no link."""
  return os.path.isdir(path) and not os.path.islink(path) and not os.listdir(path)


def removable(path: Path) -> bool:
  """Whether a folder is ours, and nobody put anything into it."""
  return ours(path) and not foreign(path)


def remove(path: Path) -> None:
  """Removes a `removable` folder. A kill on the way leaves it unfinished."""
  path = pathlib.Path(path)
  (path / MARK).touch()
  for name in (SEAL, COMMIT):
    (path / name).unlink(missing_ok=True)
  with os.scandir(path) as entries:
    for entry in entries:
      if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
      elif entry.name != MARK:
        os.unlink(entry.path)
  (path / MARK).unlink()
  path.rmdir()


def clear(root: Path) -> None:
  """Removes the folders of ours whose save was never finished."""
  for step in present(root):
    path = os.path.join(root, str(step))
    if not committed(path) and not sealed(path) and removable(path):
      remove(path)


def prune(root: Path, keep: int, every: int | None) -> None:
  """Removes finished steps of ours but the newest, and multiples of `every`."""
  finished = [
    step
    for step in present(root)
    if committed(path := os.path.join(root, str(step))) and ours(path)
  ]
  for step in finished[:-keep]:
    path = os.path.join(root, str(step))
    if (every is None or step % every) and removable(path):
      remove(path)


def strangers(root: Path) -> list[str]:
  """Names that are not ours, those of steps last; hidden ones left out."""
  own = {str(s) for s in present(root) if alike(path := os.path.join(root, str(s))) or empty(path)}
  return sorted(
    (n for n in os.listdir(root) if n not in own and n[0] != "."),
    key=lambda n: (number(n) is not None, n),
  )


def named(names: Collection[str], most: int = 8) -> str:
  """Some names in a line: 'a', 'b' and 4 more."""
  shown = [repr(name) for name in names]
  more = len(shown) - most
  return ", ".join(shown[:most]) + (f" and {more} more" if more > 0 else "")
