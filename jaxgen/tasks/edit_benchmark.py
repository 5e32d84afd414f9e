"""How well edits do, on test images whose originals are known.

  jaxgen edit --workdir W --measure --num 64 --out report
  jaxgen edit --workdir W --measure --operator blur:2 --hows pigdm,moments --out report
  jaxgen edit --workdir W --measure --budget 50,150,500 --strengths 0.2,0.4,0.6 --out report

Methods against each other at equal numbers of evaluations of the net: PSNR where nothing
was known, and the Fréchet distance of results, by the judge of the model's data. And
SDEdit at several strengths: of labelled images, how many become the class that is asked
for; else of images made of coarse blocks, how real they become. OUT/edit.json grows by a
row for each method and budget, and OUT/samples by a few of its images: a killed run goes
on from there by the same command, and more --hows, --budget and --strengths may follow.
Writes OUT/edit.html at the end.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from jaxgen import files
from jaxgen.bench.device import machine
from jaxgen.data.sources import open_split
from jaxgen.diffusion import degrade
from jaxgen.errors import UserError
from jaxgen.evaluation.judge import FEWEST, ImageJudge, open_judge
from jaxgen.monitor import results
from jaxgen.sampling.presets import PATHS
from jaxgen.sampling.sampler import load
from jaxgen.sampling.stages import data_of
from jaxgen.tasks import edit_benchmark_page
from jaxgen.tasks.commands import announce, command_of
from jaxgen.tasks.edit_methods import METHODS
from jaxgen.tasks.edit_page import shown
from jaxgen.tasks.edit_trials import Bench, Journal, distance, measured, some, strength_curve
from jaxgen.tasks.editor import LOAD, Editor, operator_of

BUDGET = (50, 150, 500)
STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)


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


def measure(values: flags.FlagValues, knobs: Mapping[str, float]) -> None:
  """The verb with --measure."""
  for name in ("image", "how", "to", "page", "source", "labels", "steps", "strength", "copies"):
    if values[name].value is not None:
      raise UserError(f"--{name} is not for --measure")
  home = files.path(values.out)
  if home.suffix:
    raise UserError(f"--out={values.out}: of --measure it is a folder")
  results.check_report(home, "edit.json", ("edit.html",), ("made", "methods"))
  if values.respacing and values.respacing not in PATHS:
    raise UserError(
      f"--respacing={values.respacing} sets the steps, as --budget does with --measure: leave it, "
      f"or say {', '.join(PATHS)}"
    )
  budget = numbers("budget", values.budget, BUDGET, 1, 1e6)
  strengths = numbers("strengths", values.strengths, STRENGTHS, 0, 1)
  bench = open_bench(values)
  editors = editors_of(bench, values.hows, knobs)
  own = {how: knobs_of(editor, knobs) for how, editor in editors.items()}
  known = shown(next(iter(editors.values())).known(bench.x), bench.x.shape[1:], bench.keep)
  journal = Journal(home, settings_of(bench, knobs), about(bench, known, values))
  announce("edit", f"{len(bench.x)} test images, {bench.text}: {', '.join(editors)}")
  trials = {how: measured(bench, e, budget, own[how], journal) for how, e in editors.items()}
  curve, strip = strength_curve(bench, strengths, knobs, journal)
  rows = [row for trial in trials.values() for row, _ in trial]
  report = journal.save() | {"methods": rows, "sdedit": curve}
  last = {how: trial[-1][1] for how, trial in trials.items()}
  which = some(len(bench.x))
  page = edit_benchmark_page.page(report, bench.x[which], known[which], last, strip)
  files.write_text(home / "edit.html", page)
  print(home / "edit.html")


def knobs_of(editor: Editor, knobs: Mapping[str, float]) -> dict[str, float]:
  """Those of all knobs that an editor has; UserError for one out of range."""
  names = editor.method.knobs.keys() | editor.sampler.model.knobs.keys()
  own = {k: v for k, v in knobs.items() if k in names}
  editor.settings(own)
  return own


def settings_of(bench: Bench, knobs: Mapping[str, float]) -> dict[str, Any]:
  """All that rows of one report have in common, by the names of flags where there are some."""
  card = bench.sampler.card
  same = {k: v for k, v in card.items() if k != "workdir"}
  return same | {
    "workdir": str(files.path(card["workdir"]).absolute()),
    "operator": bench.text,
    "num": len(bench.x),
    "seed": bench.seed,
    "batch": bench.batch,
    "judge": bench.judge.features if bench.judge else None,
    "knobs": dict(knobs),
  }


def about(bench: Bench, known: np.ndarray, values: flags.FlagValues) -> dict[str, Any]:
  """What the report says beside its rows: of what they are."""
  return {
    "made": bench.sampler.card | {"command": command_of("edit", values), "seed": bench.seed},
    "task": {
      "operator": bench.text,
      "images": len(bench.x),
      "data": str(bench.sampler.card.get("dataset", "")),
      "labels": "none" if bench.labels is None else "the model is given those of the originals",
    },
    "real": reference(bench, known),
    "judge": bench.judge.card if bench.judge else None,
    "machine": machine(),
  }


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
  sampler = load(values.workdir, **{k: values[k].value for k in LOAD})
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
