"""Where results may go, checked before the work: nobody's files are lost.

A file that jaxgen wrote is replaced by one of its kind, and the verb says so;
any other is refused. A folder of pictures must hold nothing but what the same
command wrote before it was interrupted.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxgen import files
from jaxgen.audio import wav
from jaxgen.errors import UserError
from jaxgen.monitor import pictures

# Fields by which a JSON file is one of ours, whichever verb wrote it.
RESULTS = ({"made", "scores"}, {"made", "bits_per_dim"}, {"scores", "protocol"})


def kind_of(out: str) -> str:
  """ ".png", ".npz" or "", for a folder; UserError for anything else."""
  path = files.path(out)
  kind = path.suffix.lower()
  if out.endswith(os.sep) or kind and path.is_dir():
    kind = ""
  if kind not in ("", ".png", ".npz"):
    raise UserError(f"--out={out}: want x.png, x.npz or a folder")
  return kind


def check_picture(path: str | os.PathLike, flag: str) -> bool:
  """Like `check_file`, of what is to be a PNG."""
  if Path(path).suffix.lower() != ".png":
    raise UserError(f"{flag}={path}: want x.png")
  return check_file(path, flag)


def check_file(path: str | os.PathLike, flag: str = "--out", member: str = "arr_0") -> bool:
  """Whether a file is there that will be replaced: an older one of ours.

  Args:
    path: The file.
    flag: For messages.
    member: What an npz file of its kind holds.

  Raises:
    UserError: Another file is there, or a folder, or none can be written.
  """
  path = files.path(path)
  _check_parent(path, flag)
  if path.is_dir():
    raise UserError(f"{flag}={path} is a folder: want a file")
  if not path.is_file() or not files.holds_bytes(path):
    return False  # nothing, a link to nothing, a pipe, an empty file
  if not ours(path, member):
    raise UserError(
      f"{flag}={path} is there, and is none that jaxgen would "
      "replace: give another name, or move it away"
    )
  return True


def check_folder(
  path: str | os.PathLike, of: Callable[[str], Mapping[str, Any] | None], flag: str = "--out"
) -> bool:
  """Whether a folder holds pictures that will be written again.

  Args:
    path: The folder, which need not be there. Hidden files are not looked at.
    of: A picture's name -> the info it will hold, or the part of it that is
      known by now; None for names that will not be written.
    flag: For messages.

  Raises:
    UserError: It holds something else, or cannot be written to.
  """
  path = files.path(path)
  _check_parent(path / "x", flag)
  names = sorted(files.shown_below(path))
  strange = [name for name in names if not _matches(path / name, of(name))]
  if strange:
    raise UserError(
      f"{flag}={path} holds {len(strange)} file{'s' * (len(strange) > 1)} "
      f"that this command does not write, such as {strange[0]}: give a new "
      "or an empty folder, or move them away"
    )
  return bool(names)


def check_report(
  home: str | os.PathLike, index: str, others: Iterable[str], keys: Iterable[str] = ()
) -> bool:
  """Whether a folder has an older report of ours, which is to be replaced.

  Args:
    home: The folder, which need not be there.
    index: Name of the JSON file that is written first.
    others: Names of the files that go with it.
    keys: What the index holds, unless whoever reads it sees to that.

  Raises:
    UserError: There is a file of such a name that is none of a report.
  """
  home = files.path(home)
  _check_parent(home / index, "--out")
  has_report = (home / index).exists()
  if has_report and not set(keys) <= _read_json(home / index).keys():
    raise UserError(
      f"--out: {home / index} is no report of ours: move it away, or give another folder"
    )
  for name in others:
    path = home / name
    if path.exists() and not (has_report and (path.suffix not in (".png", ".wav") or ours(path))):
      raise UserError(
        f"--out: {path} is there, and is none of a report of "
        "ours: move it away, or give another folder"
      )
  return has_report


def ours(path: Path, member: str = "arr_0") -> bool:
  """Whether jaxgen wrote a file: a picture, a clip, a sample file, results as JSON."""
  if path.suffix.lower() in (".png", ".wav"):
    return _info(path) is not None
  if path.suffix == ".npz":
    try:
      with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        return {"info.npy", f"{member}.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
      return False
  fields = _read_json(path).keys() if path.suffix == ".json" else set()
  return any(keys <= fields for keys in RESULTS)


def _check_parent(path: Path, flag: str) -> None:
  """UserError if no file can be written in the folder of this path."""
  place = files.folder_for(path)
  if files.lexists(place) and not place.is_dir():
    raise UserError(f"{flag}: {place} is no folder: give another name")
  try:  # permissions do not tell, where the disk or its kind say no
    files.check_writable(place)
  except OSError as e:
    raise UserError(f"{flag}: nothing can be written in {place}: {e.strerror}") from e


def _matches(path: Path, want: Mapping[str, Any] | None) -> bool:
  """Whether a picture or a clip says that it was made like this."""
  info = None if want is None else _info(path)
  return info is not None and _within(json.loads(json.dumps(want)), info)


def _within(part: Any, value: Any) -> bool:
  """Whether all that one value of JSON says is said by the other."""
  if isinstance(part, dict) and isinstance(value, dict):
    return all(k in value and _within(v, value[k]) for k, v in part.items())
  return part == value


def _info(path: Path) -> dict[str, Any] | None:
  """How a picture or a clip was made; None if it is none of ours."""
  try:
    return (wav if path.suffix.lower() == ".wav" else pictures).read_info(path)
  except UserError:
    return None


def _read_json(path: Path) -> dict[str, Any]:
  """A JSON object; an empty one for anything else."""
  try:
    value = json.loads(path.read_bytes())
  except (OSError, ValueError, RecursionError):
    return {}
  return value if isinstance(value, dict) else {}
