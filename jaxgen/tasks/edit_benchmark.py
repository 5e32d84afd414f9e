"""How well edits do, on test images whose originals are known.

  jaxgen edit --workdir W --measure --num 64 --out report
  jaxgen edit --workdir W --measure --operator blur:2 --hows pigdm,moments --out report
  jaxgen edit --workdir W --measure --budget 50,150,500 --strengths 0.2,0.4,0.6 --out report

Methods against each other at equal numbers of evaluations of the net: PSNR where nothing
was known, and the Fréchet distance of results, by the judge of the model's data. And
SDEdit at several strengths: of labelled images, how many become the class that is asked
for; else of images made of coarse blocks, how real they become. Writes OUT/edit.html and
OUT/edit.json.
"""

import functools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from jaxgen import files
from jaxgen.bench.device import machine
from jaxgen.data.sources import open_split
from jaxgen.diffusion import degrade
from jaxgen.errors import UserError
from jaxgen.evaluation.judge import FEWEST, ImageJudge, open_judge
from jaxgen.evaluation.learned import is_right
from jaxgen.files import plain
from jaxgen.metrics.image_quality import psnr
from jaxgen.monitor import results
from jaxgen.sampling.sampler import Sampler, load
from jaxgen.sampling.stages import data_of
from jaxgen.tasks import edit_benchmark_page
from jaxgen.tasks.commands import announce, command_of
from jaxgen.tasks.edit_methods import METHODS
from jaxgen.tasks.edit_page import hole_psnr, shown
from jaxgen.tasks.editor import Editor, operator_of

BUDGET = (50, 150, 500)
STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
MOST_STEPS = 1000
BLOCKS = 4  # pixels of a side of the blocks that SDEdit begins with


def define(values: flags.FlagValues) -> None:
  """The flags of --measure."""
  flags.DEFINE_bool("measure", False, "edit test images, and say how well", flag_values=values)
  lists = functools.partial(flags.DEFINE_list, flag_values=values)
  lists("hows", [], "methods of --measure; default: all that can")
  lists("budget", [], "evaluations of the net for an image [50,150,500]")
  lists("strengths", [], "of SDEdit [0.1 to 0.8]")
  flags.DEFINE_string(
    "judge", None, "folder of the judge; default: in the cache", flag_values=values
  )


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


def measure(values: flags.FlagValues, knobs: Mapping[str, float]) -> None:
  """The verb with --measure."""
  for name in ("image", "how", "to", "page", "source", "labels", "steps"):
    if values[name].value is not None:
      raise UserError(f"--{name} is not for --measure")
  home = pathlib.Path(values.out)
  if home.suffix:
    raise UserError(f"--out={values.out}: of --measure it is a folder")
  results.check_report(home, "edit.json", ("edit.html",), ("made", "methods"))
  budget = numbers("budget", values.budget, BUDGET, 1, 1e6)
  strengths = numbers("strengths", values.strengths, STRENGTHS, 0, 1)
  bench = open_bench(values)
  editors = editors_of(bench, values.hows, knobs)
  announce("edit", f"{len(bench.x)} test images, {bench.text}: {', '.join(editors)}")
  rows, pictures_of = [], {}
  for how, editor in editors.items():
    names = METHODS[how].knobs.keys() | bench.sampler.model.knobs.keys()
    own = {k: v for k, v in knobs.items() if k in names}
    for row, x in measured(bench, editor, budget, own):
      rows.append(row)
      pictures_of[how] = x
      announce("edit", line(row))
  curve, strip = strength_curve(bench, strengths, knobs)
  for row in curve:
    announce("edit", line(row))
  known = shown(next(iter(editors.values())).known(bench.x), bench.x.shape[1:], bench.keep)
  report = plain(
    {
      "made": bench.sampler.card | {"command": command_of("edit", values), "seed": bench.seed},
      "task": {
        "operator": bench.text,
        "images": len(bench.x),
        "data": data_name(bench),
        "labels": "none" if bench.labels is None else "the model is given those of the originals",
      },
      "real": reference(bench, known),
      "methods": rows,
      "sdedit": curve,
      "judge": bench.judge.card if bench.judge else None,
      "machine": machine(),
    }
  )
  files.write_json(home / "edit.json", report)
  page = edit_benchmark_page.page(report, bench.x, known, pictures_of, strip)
  files.write_text(home / "edit.html", page)
  print(home / "edit.html")


def numbers(
  name: str, words: Sequence[str], default: Sequence[float], least: float, most: float
) -> list[float]:
  """A list of numbers, sorted; UserError for one that is none, or out of range."""
  try:
    levels = sorted(map(float, words or default))
  except ValueError:
    raise UserError(f"--{name}={','.join(words)}: want numbers with commas between") from None
  if not least <= levels[0] <= levels[-1] <= most:
    raise UserError(f"--{name}={','.join(words)}: want {least:g} to {most:g}")
  return levels


def open_bench(values: flags.FlagValues) -> Bench:
  """Test images at even distances in the split of the model's data."""
  choices = ("ema", "step", "sampler", "respacing")
  sampler = load(values.workdir, **{k: values[k].value for k in choices})
  data = data_of(values.workdir)
  test = open_split(data, "test")
  if tuple(test.shape) != tuple(sampler.shape) or test.dtype != np.uint8:
    raise UserError(f"{values.workdir} was trained on {test.name}: to edit takes images")
  n = values.num or min(64, len(test))
  if not 2 <= n <= len(test):
    raise UserError(f"--num={n}: want 2 to {len(test)}, as many test images {test.name} has")
  part = test.read(np.arange(n) * len(test) // n)
  text, keep = values.operator or "mask", None
  if values.operator and values.operator != "mask":
    if values.mask:
      raise UserError(f"--mask and --operator={values.operator}: one at a time")
  else:
    text, keep = mask_of(values.mask or "centre:0.5", n, sampler.shape, values.seed)
  judge = open_judge(data, values.judge) if n >= FEWEST else None
  judge = judge if isinstance(judge, ImageJudge) else None
  y = part.get("y")
  return Bench(sampler, part["x"], y, keep, text, judge, values.seed, values.batch)


def mask_of(text: str, n: int, shape: Sequence[int], seed: int) -> tuple[str, np.ndarray]:
  """ "centre:0.5" or "boxes:0.25,0.5" -> its name, and masks to keep [n, H, W, 1]."""
  number = r"(0?\.\d+|1)"
  if match := re.fullmatch(f"centre:{number}", text):
    keep = degrade.centre(*shape[:2], float(match[1]))
    keep = np.broadcast_to(keep, (n, *keep.shape[1:]))
  elif match := re.fullmatch(f"boxes:{number},{number}", text):
    keys = jax.random.split(jax.random.key(seed), n)
    keep = np.asarray(degrade.boxes(keys, *shape[:2], float(match[1]), float(match[2])))
  else:
    raise UserError(f"--mask={text}: of --measure want centre:0.5 or boxes:0.25,0.5")
  if (keep == 1).all((1, 2, 3)).any():
    raise UserError(f"--mask={text} leaves nothing to fill in images of {shape[0]}x{shape[1]}")
  return f"mask {text}", keep


def editors_of(bench: Bench, hows: Sequence[str], knobs: Mapping[str, float]) -> dict[str, Editor]:
  """One for each method; UserError for a method that cannot, or a knob of none."""
  name = "mask" if bench.keep is not None else bench.text.partition(":")[0]
  able = [how for how, m in METHODS.items() if name in m.operators and not m.free]
  for how in hows:
    if how not in able:
      raise UserError(f"--hows={how}: with {name} want some of {', '.join(able)}")
  operator = operator_of("mask" if bench.keep is not None else bench.text, bench.sampler.shape)
  editors = {how: Editor(bench.sampler, how, operator) for how in hows or able}
  known = {k for how in [*editors, "sdedit"] for k in METHODS[how].knobs}
  for knob in knobs:
    if knob not in known and knob not in bench.sampler.model.knobs:
      raise UserError(f"none of {', '.join(editors)} has a knob {knob!r}")
  return editors


def steps_within(editor: Editor, budget: float, knobs: Mapping[str, float]) -> int:
  """The most steps that cost no more than so many evaluations, or the fewest there are."""
  low, high = 1, MOST_STEPS + 1
  while high - low > 1:
    middle = (low + high) // 2
    affordable = editor.cost(dict(knobs) | {"steps": middle}) <= budget
    low, high = (middle, high) if affordable else (low, middle)
  return max(low, 2)


def measured(
  bench: Bench, editor: Editor, budget: Sequence[float], knobs: Mapping[str, float]
) -> list[tuple[dict[str, Any], np.ndarray]]:
  """A row of numbers for each budget, and its images."""
  inputs = editor.known(bench.x, bench.keep)
  run = functools.partial(
    editor, keep=bench.keep, labels=bench.labels, seed=bench.seed, batch=bench.batch
  )
  first = min(bench.batch, len(inputs))
  part = bench._replace(keep=None if bench.keep is None else bench.keep[:first])
  labels = None if bench.labels is None else bench.labels[:first]
  settings = dict(knobs) | {"steps": 2}
  editor(inputs[:first], keep=part.keep, labels=labels, batch=bench.batch, **settings)  # compiles
  rows, done = [], set()
  for most in budget:
    steps = steps_within(editor, most, knobs)
    if steps in done:
      continue
    done.add(steps)
    settings, times = dict(knobs) | {"steps": steps}, []
    x = run(inputs, times=times, **settings)
    values = bench.nearness(x)
    row = {"how": editor.how, "steps": steps, "evaluations": editor.cost(settings)}
    row |= {"psnr": float(np.mean(values)), "psnr_error": standard_error(values)}
    row |= {"seconds": sum(times) / len(x), "knobs": editor.settings(settings)}
    rows.append((row | distance(bench, x), x))
  return rows


def standard_error(values: np.ndarray) -> float:
  """Of the mean of values."""
  return float(np.std(values, ddof=1) / len(values) ** 0.5)


def distance(bench: Bench, x: np.ndarray) -> dict[str, float]:
  """{"frechet": ..}, where there is a judge."""
  score = bench.frechet(x)
  return {"frechet": score[1]} if score else {}


def reference(bench: Bench, known: np.ndarray) -> dict[str, Any]:
  """The originals themselves; and what is left of them, with holes as the mean of the rest.

  `known`: what is left, as images.
  """
  score, x, name = bench.frechet(bench.x), known, "what is known, as it is"
  if bench.keep is not None:
    total = bench.keep.sum((1, 2), keepdims=True)
    mean = (bench.keep * bench.x).sum((1, 2), keepdims=True) / np.maximum(total, 1)
    x = np.where(bench.keep == 1, bench.x, np.round(mean)).astype(np.uint8)
    name = "the mean colour of the rest"
  blank = {"name": name, "psnr": float(np.mean(bench.nearness(x)))} | distance(bench, x)
  own = {"frechet": score[1], "features": score[0]} if score else {}
  return {"originals": own, "blank": blank}


def data_name(bench: Bench) -> str:
  """Of the images."""
  return str(bench.sampler.card.get("dataset", ""))


def strength_curve(
  bench: Bench, strengths: Sequence[float], knobs: Mapping[str, float]
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
  """A row of numbers for each strength of SDEdit, and what it begins with and makes.

  Of labelled images each becomes one of the next class; else they begin as blocks.
  """
  editor = Editor(bench.sampler, "sdedit")
  own = {k: v for k, v in knobs.items() if k in bench.sampler.model.knobs}
  labels, classes = bench.labels, bench.sampler.classes
  if labels is None:
    factor = next(f for f in range(BLOCKS, 0, -1) if not any(n % f for n in bench.x.shape[1:3]))
    blocks = Editor(bench.sampler, "pigdm", operator_of(f"downsample:{factor}", bench.x.shape[1:]))
    begin = blocks.known(bench.x).repeat(factor, 1).repeat(factor, 2)
  else:
    begin, labels = bench.x, (labels + 1) % classes
  rows, strip = [], [begin]
  for strength in strengths:
    settings = own | {"strength": strength}
    x = editor(begin, labels=labels, seed=bench.seed, batch=bench.batch, **settings)
    values = psnr(x, begin)
    finite = np.where(np.isfinite(values), values, 99.0)
    row = {"how": "sdedit", "strength": strength, "evaluations": editor.cost(settings)}
    row |= {"psnr": float(np.mean(finite))} | distance(bench, x)
    if labels is not None and bench.judge and bench.judge.classifies:
      row["wanted"] = float(np.mean(is_right(bench.judge.extractor, x, labels)))
    rows.append(row)
    strip.append(x)
  return rows, strip


def line(row: Mapping[str, Any]) -> str:
  """A row, for people who wait."""
  at = f"strength {row['strength']:g}" if "strength" in row else f"{row['steps']} steps"
  more = "".join(f", {k} {row[k]:.4g}" for k in ("frechet", "wanted", "seconds") if k in row)
  cost = f"{row['evaluations']:.0f} evaluations"
  return f"{row['how']}, {at}, {cost}: PSNR {row['psnr']:.2f} dB{more}"
