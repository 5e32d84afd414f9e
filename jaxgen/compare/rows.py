"""Rows of results: how they are told, timed, and read again from a file."""

import functools
import os
import pathlib
import sys
import time
from typing import Any

import numpy as np

from jaxgen import forms
from jaxgen.distributed import join
from jaxgen.errors import printable
from jaxgen.sampling.sampler import Sampler

Row = dict[str, Any]


def announce(verb: str, text: str) -> None:
  """Progress of a verb, as a line on stderr; of several processes by the first."""
  if join.is_main_process():
    print(f"[{verb}] {printable(text)}", file=sys.stderr, flush=True)


def judge_folder(folder: str | None, home: pathlib.Path) -> str | None:
  """Where a judge lies: as --judge says, else None, which is in the user's cache.

  Several processes need not share that: they have it beside their results.
  """
  return folder or (str(home / "judge") if join.joined() else None)


def draw(
  model: Sampler, seed: int, n: int, y: np.ndarray | None = None, **how: Any
) -> tuple[np.ndarray, float]:
  """n samples, and the seconds that they take."""
  start = time.perf_counter()
  x = model.sample(seed, n, y, **how)
  return x, time.perf_counter() - start


def damage(path: str | os.PathLike, what: str, why: str) -> str:
  """The line for a file that a verb cannot go on from."""
  return f"{path} is no result of {what} ({why}): move it away"


def read_results(path: str | os.PathLike, form: dict[str, Any], what: str) -> dict[str, Any]:
  """A file of results, to be added to; that has no rows yet if it is not there.

  Of several processes the first reads for all.

  Args:
    path: A JSON file.
    form: As of `forms.read`, with a list of "rows".
    what: "a sweep", for messages.

  Raises:
    UserError: The file is of something else.
  """

  def read() -> dict[str, Any]:
    try:
      return forms.read(path, form, functools.partial(damage, path, what))
    except FileNotFoundError:
      return {"rows": []}

  results = join.share(read)
  (row_form,) = form["rows"]
  for row in results["rows"]:
    for field in row_form.keys() & {"scores", "spread"}:
      row[field] = {k: forms.number(v) for k, v in row[field].items()}
  return results
