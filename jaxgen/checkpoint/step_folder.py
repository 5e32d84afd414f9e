"""A step's folder on disk: whose it is, how it begins and how it goes.

Other people's files may lie beside ours, and links may lead anywhere. What is
removed or moved is a real folder, named by a step, that holds our mark (or our
seal: older ones have no mark). The mark is there before all else in the folder
and goes last, so what was killed half-way is known as ours. In a bucket all of
it is objects, see `files`: the seal then says names alone.
"""

import json
import os
import pathlib
import re
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
  return sorted(step for name in files.folders(root) if (step := number(name)) is not None)


def sizes(path: Path) -> dict[str, int | None]:
  """`files.sizes` of one step, without the seal and what becomes it."""
  return {
    name: size
    for name, size in files.sizes(path).items()
    if not name.rpartition("/")[2].startswith((SEAL, files.DRAFT))
  }


def begin(path: Path) -> None:
  """Makes a step's folder, which holds the mark when it appears.

  Raises:
    OSError: Something is there already, or it cannot be written.
  """
  line = "This folder is a checkpoint of jaxgen's, which removes it when it has newer ones.\n"
  texts = {MARK: line, FACTS: json.dumps({"init_timestamp_nsecs": time.time_ns()})}
  files.new_folder(path, texts, draft=f".begun-{pathlib.PurePath(path).name}")


def ours(path: Path) -> bool:
  """Whether a path is a step's folder that we made, and no link to one."""
  path = files.path(path)
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
  path = files.path(path)
  return ours(path) or all((path / n).exists() for n in (COMMIT, *ITEMS))


def sealed(path: Path) -> dict[str, int | None]:
  """The files that a seal names; none if there is no seal that can be read."""
  file = files.path(path) / SEAL
  try:
    named = json.loads(file.read_text()) if file.is_file() else {}
  except (OSError, ValueError):
    return {}
  return named if isinstance(named, dict) else {}


def committed(path: Path) -> bool:
  """Whether a step was saved to its end."""
  return (files.path(path) / COMMIT).exists()


def foreign(path: Path) -> list[str]:
  """What somebody else put into a folder of ours."""
  if named := sealed(path):
    return sorted(sizes(path).keys() - named.keys() - {MARK})
  return sorted(
    name
    for name in files.names(path)
    if name not in ENTRIES and not name.startswith((SEAL, files.DRAFT))
  )


def empty(path: Path) -> bool:
  """Whether a path is a folder with nothing in it, and no link."""
  path = files.path(path)
  return path.is_dir() and not path.is_symlink() and not files.names(path)


def removable(path: Path) -> bool:
  """Whether a folder is ours, and nobody put anything into it."""
  return ours(path) and not foreign(path)


def vacate(path: Path) -> None:
  """Empties a `removable` folder but for the mark, which makes it ours to remove.

  Of a save that failed other files may still be on their way, by threads of TensorStore's.
  """
  path = files.path(path)
  (path / MARK).touch()
  for name in (SEAL, COMMIT):
    (path / name).unlink(missing_ok=True)
  files.empty_folder(path, but=MARK)


def remove(path: Path) -> None:
  """Removes a `removable` folder. A kill on the way leaves it unfinished."""
  path = files.path(path)
  vacate(path)
  (path / MARK).unlink()
  path.rmdir()


def clear(root: Path) -> None:
  """Removes the folders of ours whose save was never finished."""
  for step in present(root):
    path = files.join(root, str(step))
    if not committed(path) and not sealed(path) and removable(path):
      remove(path)


def prune(root: Path, keep: int, every: int | None) -> None:
  """Removes finished steps of ours but the newest, and multiples of `every`."""
  finished = [
    step for step in present(root) if committed(path := files.join(root, str(step))) and ours(path)
  ]
  for step in finished[:-keep]:
    path = files.join(root, str(step))
    if (every is None or step % every) and removable(path):
      remove(path)


def strangers(root: Path) -> list[str]:
  """Names that are not ours, those of steps last; hidden ones left out."""
  own = {str(s) for s in present(root) if alike(path := files.join(root, str(s))) or empty(path)}
  return sorted(
    (n for n in files.names(root) if n not in own and n[0] != "."),
    key=lambda n: (number(n) is not None, n),
  )


def named(names: Collection[str], most: int = 8) -> str:
  """Some names in a line: 'a', 'b' and 4 more."""
  shown = [repr(name) for name in names]
  more = len(shown) - most
  return ", ".join(shown[:most]) + (f" and {more} more" if more > 0 else "")
