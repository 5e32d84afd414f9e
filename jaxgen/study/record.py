"""The file of a study: its first line holds the settings, each other a choice.

Of an opinion test choices are ratings, and settings say so: {"test": "mos"}.

A choice is on the disk before its visitor sees the next pair.
"""

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from jaxgen import files, forms
from jaxgen.errors import UserError
from jaxgen.forms import Whole

HEADER = {"study": dict}
CHOICE = {
  "visitor": str, "trial": Whole(0), "real": str, "fake": str, "left": str,
  "choice": str, "fooled": bool, "ms": float,
}  # fmt: skip


RATING = {
  "visitor": str, "trial": Whole(0), "system": str, "clip": str, "rating": Whole(1), "ms": float,
}  # fmt: skip


def read(path: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
  """A study's settings, its choices, and the bytes that hold them.

  A last line that was cut off while it was written is not counted.

  Raises:
    UserError: no such file, or not that of a study.
  """
  try:
    data = files.path(path).read_bytes()
  except OSError as e:
    raise UserError(f"cannot read {path}: {e.strerror}") from e
  size = data.rfind(b"\n") + 1
  rows = []
  for i, text in enumerate(data[:size].splitlines(), 1):
    damage = lambda why, i=i: f"{path}, line {i}: not what a study writes: {why}"
    form = HEADER if i == 1 else RATING if is_opinion(rows[0]["study"]) else CHOICE
    rows.append(forms.loads(text, form, damage))
  if not rows:
    raise UserError(f"{path} holds no study")
  return rows[0]["study"], rows[1:], size


def is_opinion(study: dict[str, Any]) -> bool:
  """Whether settings are of an opinion test."""
  return study.get("test") == "mos"


def line(row: dict[str, Any]) -> bytes:
  """A row as UTF-8; bytes of names that are none are escaped, and come back."""
  text = json.dumps(row, ensure_ascii=False)
  return text.encode(errors="backslashreplace") + b"\n"


class Record:
  """An open file of a study, of this process alone.

  Attributes:
    rows: The choices so far.
  """

  def __init__(self, path: str | Path, study: dict[str, Any]):
    """Opens a new file, or goes on with one of the same settings.

    Raises:
      UserError: cannot be written, is in use, or has other settings.
    """
    path = Path(path)
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      self.file = open(path, "ab", buffering=0)
    except OSError as e:
      raise UserError(f"cannot write {path}: {e.strerror}") from e
    try:
      fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
      raise UserError(f"{path} is in use by another study") from e
    self.rows: list[dict[str, Any]] = []
    if line({"study": study})[:-1].startswith(path.read_bytes()):
      self.file.truncate(0)  # a first line that was cut off
      self._write({"study": study})
      return
    before, self.rows, size = read(path)
    for name in study.keys() | before.keys():
      if study.get(name) != before.get(name):
        raise UserError(
          f"{path} was begun with {name}={before.get(name)}, not "
          f"{study.get(name)}: give another --out"
        )
    self.file.truncate(size)

  def append(self, row: dict[str, Any]) -> None:
    """Adds a choice, which is on the disk when this returns, or not at all."""
    self._write(row)
    self.rows.append(row)

  def _write(self, row: dict[str, Any]) -> None:
    size = os.fstat(self.file.fileno()).st_size
    text = line(row)
    try:
      if self.file.write(text) < len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      os.fsync(self.file.fileno())
    except OSError:
      self.file.truncate(size)
      raise

  def close(self) -> None:
    """Closes the file and releases its lock."""
    self.file.close()
