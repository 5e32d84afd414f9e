"""Rows of a long report: each is written as it ends, and a killed run goes on from there.

Some fields of a row say its place, that is of what it is; digits in "spec" say with what
it was made. A row of the same place and spec is not made again, and a row of the same
place and another spec gives way to the new one.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen import forms
from jaxgen.data import arrayfile
from jaxgen.data.npz import open_npz
from jaxgen.errors import UserError

Row = Mapping[str, Any]


def read(path: pathlib.Path, form: Any, what: str) -> dict[str, Any] | None:
  """An earlier run's report; None if there is none.

  Args:
    path: The JSON file.
    form: Of it, see `forms`.
    what: The report, in words.

  Raises:
    UserError: It is something else.
  """
  try:
    return forms.read(path, form, lambda why: f"{path} is no {what} ({why}): move it away")
  except FileNotFoundError:
    return None


def identity(row: Row, place: Sequence[str]) -> tuple:
  """What tells a row from all others."""
  return tuple(row[k] for k in (*place, "spec"))


def find(rows: Sequence[Row], job: Row, place: Sequence[str]) -> Row | None:
  """The row of a job's place and spec, if it is there."""
  return next((r for r in rows if identity(r, place) == identity(job, place)), None)


def put(rows: Sequence[Row], new: Sequence[Row], place: Sequence[str]) -> list[Row]:
  """The rows, where new ones take the place of those of the same place."""
  places = {tuple(r[k] for k in place) for r in new}
  return [*(r for r in rows if tuple(r[k] for k in place) not in places), *new]


def stored(
  file: pathlib.Path, made: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray | None] | None:
  """Images and labels that an earlier run wrote; None unless their info says all of `made`."""
  try:
    x, y = open_npz(str(file), "train", None, None).arrays()
    info = json.loads(str(arrayfile.stored(file, "info").whole()))
  except (UserError, ValueError, RecursionError):
    return None
  same = isinstance(info, dict) and all(info.get(k) == v for k, v in made.items())
  return (x, y) if same else None
