"""The page of augmentation: when generated data help, and whose help most."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.metrics.student import mean_interval
from jaxgen.monitor import pictures
from jaxgen.monitor.table import markdown
from jaxgen.report.charts import THEME, canvas
from jaxgen.report.page_numbers import Column
from jaxgen.report.task_page import Gallery, Picture, Table, facts_of, render
from jaxgen.tasks.memorisation import CopyCheck, gallery

MAIN = 100  # percent of samples at which families are compared, where it was measured


class Score(NamedTuple):
  """A mean over seeds with its 95% interval, by Student's t; of one seed without."""

  mean: float
  low: float | None
  high: float | None

  @classmethod
  def of(cls, values: Sequence[float], most: float = np.inf) -> "Score":
    """Of one number or more, none of which can be above `most`."""
    mean = float(np.mean(values))
    if len(values) < 2:
      return cls(mean, None, None)
    low, high = mean_interval(values)
    return cls(mean, low, min(high, most))

  @property
  def text(self) -> str:
    """0.912 (0.905 to 0.919)."""
    if self.low is None:
      return f"{self.mean:.3f}"
    return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


class Results:
  """Rows by what they are of."""

  def __init__(self, results: Mapping[str, Any]):
    self.about, self.models = results["augment"], results["models"]
    self.sizes, self.shares = list(self.about["sizes"]), self.about["shares"]
    self.rows = results["rows"]

  def accuracy(self, size: str, model: str, real: bool, share: int) -> dict[int, float]:
    """Accuracies by seed."""
    want = {"size": size, "model": model, "real": real, "share": share}
    return {r["seed"]: r["accuracy"] for r in self.rows if want.items() <= r.items()}

  def base(self, size: str) -> Score:
    """Of real images alone."""
    return Score.of(list(self.accuracy(size, "", True, 0).values()), 1.0)

  def mixed(self, size: str, model: str, share: int) -> Score | None:
    """Of real images and samples; None where it was not measured."""
    own = self.accuracy(size, model, True, share)
    return Score.of(list(own.values()), 1.0) if own else None

  def alone(self, size: str, model: str) -> Score | None:
    """Of as many samples as there are real images: the accuracy score."""
    own = self.accuracy(size, model, False, 100)
    return Score.of(list(own.values()), 1.0) if own else None

  def gain(self, size: str, model: str, share: int) -> Score | None:
    """By how much samples raise accuracy: differences of equal seeds."""
    base, own = self.accuracy(size, "", True, 0), self.accuracy(size, model, True, share)
    both = base.keys() & own.keys()
    return Score.of([own[s] - base[s] for s in sorted(both)]) if both else None

  @property
  def main(self) -> int:
    """The share at which families are compared: chosen before there are numbers."""
    return MAIN if MAIN in self.shares else max(self.shares, default=0)

  def title(self, size: str) -> str:
    """20 of a class; all 1,438."""
    return f"all {self.about['sizes'][size]:,}" if size == "all" else f"{size} of a class"


def verdict(results: Results) -> str:
  """When samples help, and whose help most, in words."""
  help_by_size, share = [], results.main
  for size in results.sizes:
    gains = {m: results.gain(size, m, share) for m in results.models}
    gains = {m: g for m, g in gains.items() if g}
    if not gains:
      continue
    best = max(gains, key=lambda m: gains[m].mean)
    help_by_size.append((size, best, gains[best]))
  if not help_by_size:
    return "Nothing was measured with samples."
  clauses = []
  for size, best, gain in help_by_size:
    where = "with all real images" if size == "all" else f"with {size} real images of a class"
    if gain.low is None:
      word = f"{best} changes accuracy by {gain.mean:+.3f} (one seed: unsure)"
    elif gain.low > 0:
      word = f"{best} helps most, {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
    elif gain.high < 0:
      word = f"no samples help: the best, {best}, costs {-gain.mean:.3f}"
    else:
      word = f"none surely helps (best: {best}, {gain.mean:+.3f})"
    clauses.append(f"{where} {word}")
  return f"At {share}% of samples: " + "; ".join(clauses) + "."


def caution(results: Results) -> str:
  """Which comparisons are not fair."""
  unfair = [
    f"{name} at {results.title(size)}: {note}"
    for name, model in results.models.items()
    for size, note in model["notes"].items()
  ]
  if not unfair:
    return (
      "Fair: each generator was trained on the very images that the classifier sees, or on fewer."
    )
  return (
    "Not fair everywhere: a generator that saw more real images brings their knowledge along. "
    + "; ".join(unfair)
    + ". Train one for each number with --configs."
  )


def page(results: Mapping[str, Any], checks: Sequence[CopyCheck] = ()) -> tuple[np.ndarray, str]:
  """The curve uint8 [H, W, 3], and the page; `checks`: copies among each generator's samples."""
  own = Results(results)
  curve, about = curves(own), own.about
  parts: list[Gallery | Table] = [
    Gallery(
      "Accuracy on real test images",
      f"Against real images of a class; {own.main}% of samples beside them, or as many samples "
      "alone. Bands are 95% intervals over seeds.",
      [Picture(pictures.png(curve), "accuracy", f"{about['test']:,} test images")],
      wide=True,
    ),
    Gallery(
      "How much samples add",
      "Accuracy beside that of real images alone, by the share of samples.",
      [Picture(pictures.png(gains(own)), "gain", "differences of equal seeds")],
      wide=True,
    ),
    *(table_of(own, size) for size in own.sizes),
    *([gallery(*checks)] if checks else []),
  ]
  real = {size: f"{n:,} images" for size, n in about["sizes"].items()}
  facts = [
    ("Data", f"{about['data']} ({about['fingerprint']}), {about['classes']} classes"),
    ("Real images", ", ".join(f"{s}: {n}" for s, n in real.items())),
    (
      "Classifier",
      f"of configs/judge.py, {about['steps']} steps of {about['batch']} examples drawn with "
      "replacement, whatever there is to draw from",
    ),
    ("Seeds", f"{about['seeds']}: weights, draws and samples; the real images stay the same"),
    *facts_of({name: card(model) for name, model in own.models.items()}),
  ]
  command = results["made"].get("command", "jaxgen augment")
  title = f"Generated data for {about['data']}"
  return curve, render(title, verdict(own), parts, facts, command, caution(own))


def card(model: Mapping[str, Any]) -> dict[str, str]:
  """Where a generator is from, by number of real images."""
  return {
    size: f"{workdir}, trained on {model['examples'][size]:,} real images"
    + (f"; {model['notes'][size]}" if size in model["notes"] else "")
    for size, workdir in model["workdirs"].items()
  }


def table_of(results: Results, size: str) -> Table:
  """One number of real images: real alone, samples alone, and mixtures."""
  models = [m for m in results.models if size in results.models[m]["workdirs"]]
  base = results.base(size)
  blank = [None]
  columns = [
    Column("real alone", 1, [base.text, *blank * len(models)], group="accuracy"),
    Column(
      "samples alone", 1, [None, *(cell(results.alone(size, m)) for m in models)], group="accuracy"
    ),
  ]
  for share in results.shares:
    values = [None, *(cell(results.mixed(size, m, share)) for m in models)]
    columns.append(Column(f"real + {share}%", 1, values, group="accuracy"))
  notes = [results.models[m]["notes"].get(size) for m in models]
  columns.append(Column("note", 0, [None, *notes]))
  count = results.about["sizes"][size]
  note = f"{count:,} real images; means over seeds with 95% intervals."
  return Table(f"Real images: {results.title(size)}", note, ["real images", *models], columns)


def cell(score: Score | None) -> str | None:
  """Of a table."""
  return score.text if score else None


def text(results: Mapping[str, Any]) -> str:
  """The same in Markdown, with the verdict."""
  own, rows = Results(results), []
  for size in own.sizes:
    rows.append([own.title(size), "real alone", own.base(size).text, *[""] * (len(own.shares) + 1)])
    for model in own.models:
      scores = [own.alone(size, model), *(own.mixed(size, model, s) for s in own.shares)]
      if any(scores):
        rows.append(["", model, "", *(cell(s) or "" for s in scores)])
  head = ["real", "", "alone", "samples alone", *(f"+ {s}%" for s in own.shares)]
  return f"{verdict(own)}\n{caution(own)}\n\n{markdown(head, rows)}"


def curves(results: Results) -> np.ndarray:
  """Accuracy against the number of real images."""
  counts = [results.about["sizes"][s] / results.about["classes"] for s in results.sizes]
  series = [("real images alone", THEME["muted"], "-", [results.base(s) for s in results.sizes])]
  for i, model in enumerate(results.models):
    colour = THEME[f"c{i % 8}"]
    mixed = [results.mixed(s, model, results.main) for s in results.sizes]
    alone = [results.alone(s, model) for s in results.sizes]
    series += [(f"real + {model}", colour, "-", mixed), (f"{model} alone", colour, ":", alone)]
  with canvas(860, 400, 144) as (figure, axes):
    for name, colour, dash, scores in series:
      band(axes, counts, scores, colour, dash, name)
    axes.set_xscale("log")
    ticks = [
      f"{n:.0f}" + " (all)" * (s == "all") for n, s in zip(counts, results.sizes, strict=True)
    ]
    axes.set_xticks(counts, ticks)
    axes.minorticks_off()
    axes.set_xlabel("real images of each class")
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return pictures.pixels_of(figure)


def gains(results: Results) -> np.ndarray:
  """What samples add, against their share; a panel for each number of real images."""
  n = len(results.sizes)
  with canvas(max(260 * n, 360), 280, 144, ncols=n, sharey=True) as (figure, axes):
    for one, size in zip(np.ravel(axes), results.sizes, strict=True):
      for i, model in enumerate(results.models):
        scores = [results.gain(size, model, s) for s in results.shares]
        band(one, results.shares, scores, THEME[f"c{i % 8}"], "-", model)
      one.axhline(0, color=THEME["muted"], linewidth=1)
      one.set_title(results.title(size))
      one.set_xlabel("samples, % of real images")
    np.ravel(axes)[0].set_ylabel("accuracy gained")
    np.ravel(axes)[0].legend(frameon=False)
    return pictures.pixels_of(figure)


def band(
  axes, x: Sequence[float], scores: Sequence[Score | None], colour: str, dash: str, name: str
) -> None:
  """A curve with its interval; what was not measured is left out."""
  points = [(a, s) for a, s in zip(x, scores, strict=True) if s]
  if not points:
    return
  at, means = [a for a, _ in points], [s.mean for _, s in points]
  axes.plot(at, means, dash, color=colour, label=name, marker="o", markersize=5)
  for _, own in itertools.groupby(points, key=lambda p: p[1].low is not None):
    sure = [(a, s.low, s.high) for a, s in own if s.low is not None]
    if len(sure) > 1:
      axes.fill_between(*zip(*sure, strict=True), color=colour, alpha=0.15, linewidth=0)
