"""All edits that `jaxgen edit --measure` compares, each done once and written down at once."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen import files
from jaxgen.errors import UserError
from jaxgen.evaluation.judge import ImageJudge
from jaxgen.evaluation.learned import is_right
from jaxgen.files import plain
from jaxgen.forms import NUMBER, Each
from jaxgen.metrics.image_quality import psnr
from jaxgen.monitor.results import check_file
from jaxgen.sampling.output import write
from jaxgen.sampling.sampler import Sampler
from jaxgen.tasks import ledger
from jaxgen.tasks.commands import announce
from jaxgen.tasks.edit_page import hole_psnr
from jaxgen.tasks.editor import Editor, operator_of

MOST_STEPS = 1000
BLOCKS = 4  # pixels of a side of the blocks that SDEdit begins with
SHOWN = 6  # images that are shown
ROW = {"how": str, "spec": str, "evaluations": float, "psnr": NUMBER}
METHOD = ROW | {"steps": float, "psnr_error": NUMBER, "seconds": float, "frechet?": NUMBER}
STRENGTH = ROW | {"strength": float, "frechet?": NUMBER, "wanted?": NUMBER}
FORM = {"made": object, "settings": Each(object), "methods": [METHOD], "sdedit": [STRENGTH]}
PLACES = {"methods": ("how", "steps"), "sdedit": ("how", "strength")}  # what a row is of
Row = dict[str, Any]


class Bench(NamedTuple):
  """Test images, what is left of them, and who judges.

  Attributes:
    sampler: The model.
    x: uint8 [N, H, W, C].
    y: Labels [N], or None.
    keep: Masks [N, H, W, 1], where a mask is the operator.
    text: The operator, as a user says it; "mask" for a mask.
    judge: None: of these images there is none.
    seed, batch: Of the edits.
  """

  sampler: Sampler
  x: np.ndarray
  y: np.ndarray | None
  keep: np.ndarray | None
  text: str
  judge: ImageJudge | None
  seed: int
  batch: int

  @property
  def labels(self) -> np.ndarray | None:
    """The images' own, where the model takes labels."""
    return self.y if self.sampler.classes else None

  def frechet(self, x: np.ndarray) -> tuple[str, float] | None:
    """The distance's name, and what it is of some images."""
    if self.judge is None:
      return None
    scores = self.judge.scores(x, None, cas=False)
    name = next(k for k in scores if k.startswith("frechet"))
    return name, float(np.mean(scores[name]))

  def nearness(self, x: np.ndarray) -> np.ndarray:
    """PSNR [N] in the hole, or of the whole image."""
    return psnr(x, self.x) if self.keep is None else hole_psnr(x, self.x, self.keep)


def distance(bench: Bench, x: np.ndarray) -> dict[str, float]:
  """{"frechet": ..}, where there is a judge."""
  score = bench.frechet(x)
  return {"frechet": score[1]} if score else {}


class Journal:
  """The report while it grows: OUT/edit.json, and of each row the images that are shown.

  Args:
    home: The report's folder.
    settings: What all rows have in common, by name.
    about: What else the report says beside its rows.

  Raises:
    UserError: The folder holds rows of other settings; says in one line which.
  """

  def __init__(self, home: pathlib.Path, settings: Mapping[str, Any], about: Mapping[str, Any]):
    self.home, self.settings, self.about = home, plain(settings), about
    path = home / "edit.json"
    old = ledger.read(path, FORM, "measurement of edits to go on from") or {}
    self.rows = {part: list(old.get(part, ())) for part in PLACES}
    before = old.get("settings", self.settings)
    for name in sorted(before.keys() | self.settings.keys()):
      was, now = before.get(name), self.settings.get(name)
      if was != now:
        raise UserError(
          f"--out={home} was measured with {name} {shown_as(was)}, and here it is "
          f"{shown_as(now)}: give another folder, or move {path} away"
        )

  def find(self, part: str, job: Row) -> tuple[Row, np.ndarray] | None:
    """A job's row and the images that are shown of it, if both are there."""
    row = ledger.find(self.rows[part], self.identified(job), PLACES[part])
    images = ledger.stored(self.file(part, job), {"spec": row["spec"]}) if row else None
    return (dict(row), images[0]) if images else None

  def put(self, part: str, row: Row, x: np.ndarray) -> tuple[Row, np.ndarray]:
    """Writes a row, after the images that are shown of its results x."""
    row, x = plain(self.identified(row)), x[some(len(x))]
    file, info = self.file(part, row), self.about["made"] | {"how": row["how"], "spec": row["spec"]}
    check_file(file)
    write(str(file), x, None, plain(info))
    self.rows[part] = ledger.put(self.rows[part], [row], PLACES[part])
    self.save()
    announce("edit", line(row))
    return row, x

  def identified(self, job: Row) -> Row:
    """A job with its spec: digits of all that its results depend on."""
    return job | {"spec": files.digest(plain([self.settings, job["knobs"]]))}

  def file(self, part: str, job: Row) -> pathlib.Path:
    """Where the images that are shown of a job lie."""
    return self.home / "samples" / ("-".join(f"{job[k]}" for k in PLACES[part]) + ".npz")

  def save(self) -> dict[str, Any]:
    """Writes the report as it is by now."""
    report = plain({**self.about, "settings": self.settings, **self.rows})
    files.write_json(self.home / "edit.json", report)
    return report


def shown_as(value: Any) -> str:
  """A setting in a message."""
  return "none" if value is None or value == {} else str(value)


def some(n: int) -> np.ndarray:
  """Numbers of the images that are shown, of n."""
  return np.arange(min(SHOWN, n)) * n // min(SHOWN, n)


def steps_within(editor: Editor, budget: float, knobs: Mapping[str, float]) -> int:
  """The most steps that cost no more than so many evaluations, or the fewest there are."""
  low, high = 1, MOST_STEPS + 1
  while high - low > 1:
    middle = (low + high) // 2
    affordable = editor.cost(dict(knobs) | {"steps": middle}) <= budget
    low, high = (middle, high) if affordable else (low, middle)
  return max(low, 2)


def measured(
  bench: Bench,
  editor: Editor,
  budget: Sequence[float],
  knobs: Mapping[str, float],
  journal: Journal,
) -> list[tuple[Row, np.ndarray]]:
  """A row of numbers for each budget, and its images that are shown."""
  inputs, rows, compiled = editor.known(bench.x, bench.keep), [], False
  run = functools.partial(
    editor, keep=bench.keep, labels=bench.labels, seed=bench.seed, batch=bench.batch
  )
  for steps in dict.fromkeys(steps_within(editor, most, knobs) for most in budget):
    settings, times = dict(knobs) | {"steps": steps}, []
    job = {"how": editor.how, "steps": steps, "knobs": editor.settings(settings)}
    if row := journal.find("methods", job):
      rows.append(row)
      continue
    if not compiled:
      compile_program(bench, editor, inputs, knobs)
      compiled = True
    x = run(inputs, times=times, **settings)
    values = bench.nearness(x)
    row = job | {"evaluations": editor.cost(settings), "seconds": sum(times) / len(x)}
    row |= {"psnr": float(np.mean(values)), "psnr_error": standard_error(values)}
    rows.append(journal.put("methods", row | distance(bench, x), x))
  return rows


def compile_program(
  bench: Bench, editor: Editor, inputs: np.ndarray, knobs: Mapping[str, float]
) -> None:
  """Edits one batch in two steps, so that compiling is in no row's seconds."""
  part = slice(min(bench.batch, len(inputs)))
  keep = None if bench.keep is None else bench.keep[part]
  labels = None if bench.labels is None else bench.labels[part]
  editor(inputs[part], keep=keep, labels=labels, batch=bench.batch, **dict(knobs) | {"steps": 2})


def standard_error(values: np.ndarray) -> float:
  """Of the mean of values."""
  return float(np.std(values, ddof=1) / len(values) ** 0.5)


def strength_curve(
  bench: Bench, strengths: Sequence[float], knobs: Mapping[str, float], journal: Journal
) -> tuple[list[Row], list[np.ndarray]]:
  """A row of numbers for each strength of SDEdit, and what is shown: its beginning, its results.

  Of labelled images each becomes one of the next class; else they begin as blocks.
  """
  editor = Editor(bench.sampler, "sdedit")
  own = {k: v for k, v in knobs.items() if k in bench.sampler.model.knobs}
  labels = None if bench.labels is None else (bench.labels + 1) % bench.sampler.classes
  begin = blocks_of(bench) if labels is None else bench.x
  rows, strip = [], [begin[some(len(begin))]]
  for strength in strengths:
    settings = own | {"strength": strength}
    job = {"how": "sdedit", "strength": strength, "knobs": editor.settings(settings)}
    result = journal.find("sdedit", job)
    if not result:
      x = editor(begin, labels=labels, seed=bench.seed, batch=bench.batch, **settings)
      values = psnr(x, begin)
      finite = np.where(np.isfinite(values), values, 99.0)
      row = job | {"evaluations": editor.cost(settings), "psnr": float(np.mean(finite))}
      row |= distance(bench, x)
      if labels is not None and bench.judge and bench.judge.classifies:
        row["wanted"] = float(np.mean(is_right(bench.judge.extractor, x, labels)))
      result = journal.put("sdedit", row, x)
    rows.append(result[0])
    strip.append(result[1])
  return rows, strip


def blocks_of(bench: Bench) -> np.ndarray:
  """The images made of coarse blocks, uint8 [N, H, W, C]."""
  shape = bench.x.shape[1:]
  factor = next(f for f in range(BLOCKS, 0, -1) if not any(n % f for n in shape[:2]))
  blocks = Editor(bench.sampler, "pigdm", operator_of(f"downsample:{factor}", shape))
  return blocks.known(bench.x).repeat(factor, 1).repeat(factor, 2)


def line(row: Mapping[str, Any]) -> str:
  """A row, for people who wait."""
  at = f"strength {row['strength']:g}" if "strength" in row else f"{row['steps']} steps"
  more = "".join(f", {k} {float(row[k]):.4g}" for k in ("frechet", "wanted", "seconds") if k in row)
  cost = f"{row['evaluations']:.0f} evaluations"
  return f"{row['how']}, {at}, {cost}: PSNR {float(row['psnr']):.2f} dB{more}"
