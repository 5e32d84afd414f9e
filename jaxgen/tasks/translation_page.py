"""The page of `jaxgen translate`: pictures first, then numbers."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen import files
from jaxgen.errors import UserError
from jaxgen.evaluation.translation_data import Inputs
from jaxgen.evaluation.translation_scores import Numbers, brackets, columns, metrics_of, picture
from jaxgen.monitor import pictures
from jaxgen.report.fields import Score
from jaxgen.report.page_numbers import Column
from jaxgen.report.task_page import Gallery, Picture, Table, facts_of, render
from jaxgen.tasks.memorisation import CopyCheck, gallery

UP = ("psnr", "ssim", "accuracy", "cycle_psnr")  # how names of scores begin where more is better


def page(
  inputs: Inputs,
  results: Mapping[str, np.ndarray],
  card: Mapping[str, Any],
  models: Mapping[str, Mapping[str, Any]],
  command: str,
  checks: Sequence[CopyCheck] = (),
) -> str:
  """The page as HTML.

  Args:
    inputs: What was translated.
    results: Of each model, uint8 [N, H, W, C].
    card: The numbers, see `translation_scores.card_of`.
    models: How each model's results were made.
    command: Which makes the page again.
    checks: Copies of training images among results, where they were looked for.
  """
  png = pictures.png(picture(inputs, results), {"made": command})
  note = "Left: what goes in" + ("" if inputs.truth is None else "; right: what should come out")
  parts = [Gallery("Pictures", f"{note}.", [Picture(png, "Translations")], wide=True)]
  by_column, metrics = columns(card), metrics_of(card)
  if metrics:
    note = f"source: what goes in, taken for the result. Small: {brackets(card)}."
    table = [column_of(m, list(by_column.values()), card) for m in metrics]
    parts.append(Table("Numbers", note, list(by_column), table))
  parts += [gallery(*checks)] if checks else []
  # (The command stands below.)
  own = {name: {k: v for k, v in m.items() if k != "command"} for name, m in models.items()}
  facts = [("images", f"{len(inputs.names):,}"), *facts_of(own), *card["protocol"].items()]
  return render("Translation", verdict(card), parts, facts, command)


def column_of(metric: str, rows: Sequence[Numbers], card: Mapping[str, Any]) -> Column:
  """One metric of all models, with intervals, and whether its weights are odd."""
  values = [number(own.scores.get(metric)) for own in rows]
  ends = [own.intervals.get(metric) for own in rows]
  scores = [
    None if v is None or e is None else Score(v, *map(float, e))
    for v, e in zip(values, ends, strict=True)
  ]
  net = card["judges"].get(metric, {})
  odd = "" if net.get("published", True) else "not the published weights"
  better = 1 if metric.startswith(UP) else -1
  return Column(metric, better, values, short, features=odd, scores=scores)


def number(value: Any) -> float | None:
  """A score of a card, where what is infinite is text."""
  return None if value is None else float(value)


def short(value: float) -> str:
  """Four digits."""
  return f"{value:.4g}"


def verdict(card: Mapping[str, Any]) -> str:
  """What came out, in a sentence."""
  rows = {name: own.scores for name, own in columns(card).items() if name not in ("source", "real")}
  for metric in metrics_of(card):
    values = {name: number(s.get(metric)) for name, s in rows.items()}
    values = {k: v for k, v in values.items() if v is not None}
    if values:
      best = (max if metric.startswith(UP) else min)(values, key=values.get)
      unit = " dB" if metric.endswith("psnr") else ""
      alone = "" if len(values) == 1 else ", the best of these"
      return f"{best}: {metric} {values[best]:.3g}{unit}{alone}."
  return f"{card['images']:,} images translated; without a truth nothing is measured."


def write_page(path: pathlib.Path, html: str, card: Mapping[str, Any]) -> None:
  """x.html, and the card as x.json beside it."""
  files.write_json(path.with_suffix(".json"), card)
  files.write_text(path, html)


def check_page(path: str) -> pathlib.Path:
  """UserError unless a name is of a page."""
  target = files.path(path)
  if target.suffix.lower() not in (".html", ".htm"):
    raise UserError(f"--page={path}: want x.html")
  return target
