"""The results of a benchmark of anomalies: a table over cases, and a page."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.metrics.student import mean_interval
from jaxgen.monitor import pictures
from jaxgen.monitor.table import markdown
from jaxgen.report.charts import THEME, canvas
from jaxgen.report.page_numbers import Column
from jaxgen.report.task_page import Gallery, Picture, Table, render
from jaxgen.tasks.anomaly_page import NOT_FOR

NAMES = {"digits": "digits that were held out of training", "photos": "spoilt photographs"}
WAYS = {"nearest": "nearest training image", "edges": "edges"}


class Line(NamedTuple):
  """One way of one family over all cases.

  Attributes:
    name: Of both.
    family: Of its models.
    way: How it tells.
    values: {case: (value, low, high)}.
    mean: Over the cases.
    low: End of the mean's 95% interval, by Student's t over cases.
    high: The other.
    seconds: Of training and of scoring, means over cases.
  """

  name: str
  family: str
  way: str
  values: dict[str, tuple[float, float, float]]
  mean: float
  low: float
  high: float
  seconds: tuple[float, float]


def lines_of(results: Mapping[str, Any], cases: Sequence[str], metric: str) -> list[Line]:
  """All ways that have been measured by a metric, the best first."""
  lines = []
  rows = [r for r in results["rows"] if r["case"] in cases and metric in r["scores"]]
  for family, way in dict.fromkeys((r["family"], r["way"]) for r in rows):
    own = {r["case"]: r for r in rows if (r["family"], r["way"]) == (family, way)}
    values = {c: (r["scores"][metric], *r["intervals"][metric]) for c, r in own.items()}
    means = [v[0] for v in values.values()]
    if len(means) > 1:
      low, high = mean_interval(means)
    else:  # its own, over images
      ((_, low, high),) = values.values()
    low, high = max(low, 0.0), min(high, 1.0)  # few cases do not know
    mean_of = lambda k, own=own: float(np.mean([r[k] for r in own.values()]))
    seconds = mean_of("train_seconds"), mean_of("seconds")
    name = WAYS.get(way, f"{family} by {way}") if family == "baseline" else f"{family} by {way}"
    lines.append(Line(name, family, way, values, float(np.mean(means)), low, high, seconds))
  return sorted(lines, key=lambda line: -line.mean)


def markdown_of(results: Mapping[str, Any], cases: Sequence[str]) -> str:
  """A table for each metric."""
  parts = []
  for metric in ("AUROC", "AUPR", "pixel AUROC"):
    lines = lines_of(results, cases, metric)
    if not lines:
      continue
    cell = lambda line, case: f"{line.values[case][0]:.3f}" if case in line.values else ""
    rows = [
      [line.name, f"{line.mean:.3f} ({line.low:.3f} to {line.high:.3f})"]
      + [cell(line, case) for case in cases]
      for line in lines
    ]
    parts.append(markdown([metric, "mean (95%)", *cases], rows))
  return "\n\n".join(parts) + "\n"


def verdict_of(results: Mapping[str, Any], cases: Sequence[str]) -> str:
  """Who finds anomalies best, and whether a model was needed for that."""
  lines = lines_of(results, cases, "AUROC")
  models = [line for line in lines if line.family != "baseline"]
  if not models:
    return "No model was measured."
  best = models[0]
  span = f"{best.mean:.3f} ({best.low:.3f} to {best.high:.3f})"
  text = f"{best.name}: AUROC {span} over {len(best.values)} cases"
  rivals = [m.name for m in models[1:] if m.family != best.family and not surely(best, m)]
  if rivals:
    text += f"; not surely better than {', '.join(rivals[:3])}"
  bases = [line for line in lines if line.family == "baseline"]
  if bases:
    base = bases[0]
    if surely(best, base):
      text += f"; without any model, {base.name} has {base.mean:.3f}"
    elif base.mean > best.mean:
      text += f"; but without any model, {base.name} does as well or better, {base.mean:.3f}"
    else:
      text += f"; without any model, {base.name} may do as well, {base.mean:.3f}"
  return text + "."


def surely(a: Line, b: Line) -> bool:
  """Whether a's mean is above b's by the 95% interval of differences over cases."""
  gaps = [a.values[c][0] - b.values[c][0] for c in a.values if c in b.values]
  return len(gaps) > 1 and mean_interval(gaps)[0] > 0


def page(results: Mapping[str, Any], cases: Sequence[str], home: pathlib.Path) -> str:
  """The page: pictures of one case, a chart of all, tables."""
  lines = lines_of(results, cases, "AUROC")
  parts: list[Gallery | Table] = [
    Gallery(
      "What they find",
      "In its median case, from above: the image, what the model makes of it, where they differ. "
      "On the left the six strangest anomalous images, on the right those of the others.",
      portraits(lines, home),
      wide=True,
    ),
    Gallery(
      "Over all cases",
      "A dot is a case, the bar the mean with its 95% interval over cases.",
      [Picture(pictures.png(chart(lines)), "AUROC", "0.5 is chance")],
      wide=True,
    ),
  ]
  for metric in ("AUROC", "AUPR", "pixel AUROC"):
    own = lines_of(results, cases, metric)
    if own:
      parts.append(table_of(own, cases, metric))
  steps = dict(sorted({k: v for r in results["rows"] for k, v in r["steps"].items()}.items()))
  facts = [
    ("Data", NAMES[results["benchmark"]]),
    ("Steps of training", ", ".join(f"{k} {v:,}" for k, v in steps.items()) or "none"),
    ("Intervals", "of a mean: Student's t over cases; of one case: over its images"),
    ("Seconds", "of training and of scoring all test images of a case, on the machine that ran it"),
    ("Baselines", "nearest training image: its mean square distance; edges: squared Laplacian"),
  ]
  title = f"Anomalies: {NAMES[results['benchmark']]}"
  command = results["made"].get("command", "jaxgen anomaly --benchmark=...")
  return render(title, verdict_of(results, cases), parts, facts, command, NOT_FOR)


def portraits(lines: Sequence[Line], home: pathlib.Path) -> list[Picture]:
  """What each way found, of its median case, as far as pictures are there."""
  shown = []
  for line in lines:
    case = sorted(line.values, key=lambda c: line.values[c][0])[len(line.values) // 2]
    file = home / "pictures" / f"{case}-{line.family}-{line.way}.png"
    if file.is_file():
      name = f"{line.name}: {case}, AUROC {line.values[case][0]:.3f}"
      shown.append(Picture(file.read_bytes(), name))
  return shown


def table_of(lines: Sequence[Line], cases: Sequence[str], metric: str) -> Table:
  """One metric of all ways."""
  value = lambda line, case: line.values[case][0] if case in line.values else None
  columns = [
    Column("mean", 1, [line.mean for line in lines], group=metric),
    Column("95%", 0, [f"{line.low:.3f} – {line.high:.3f}" for line in lines], group=metric),
    *(Column(case, 1, [value(line, case) for line in lines], group="cases") for case in cases),
  ]
  if metric == "AUROC":
    columns += [
      Column(name, -1, [line.seconds[i] or None for line in lines], group="seconds")
      for i, name in enumerate(("training", "scoring"))
    ]
  return Table(metric, "", [line.name for line in lines], columns)


def chart(lines: Sequence[Line]) -> np.ndarray:
  """A row for each way, a dot for each case: uint8 [H, W, 3]."""
  order = list(dict.fromkeys(line.family for line in lines))
  with canvas(640, 60 + 34 * len(lines), 144) as (figure, axes):
    for row, line in enumerate(reversed(lines)):
      colour = THEME[f"c{order.index(line.family) % 8}"]
      dots = [v[0] for v in line.values.values()]
      axes.plot(dots, np.full(len(dots), row), "o", color=colour, alpha=0.45, markersize=5)
      axes.plot([line.low, line.high], [row, row], color=colour, linewidth=3)
      axes.plot([line.mean], [row], "|", color=colour, markersize=16, markeredgewidth=3)
    axes.set_yticks(range(len(lines)), [line.name for line in reversed(lines)])
    axes.axvline(0.5, color=THEME["muted"], linewidth=1, linestyle=(0, (4, 4)))
    axes.set_xlim(right=1.01)
    axes.set_xlabel("AUROC")
    return pictures.pixels_of(figure)
