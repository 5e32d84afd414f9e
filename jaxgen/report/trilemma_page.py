"""The trilemma as one HTML page: verdict, picture, points, cost of training."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxgen.monitor.page_style import CSS
from jaxgen.monitor.progress import duration
from jaxgen.report import charts, fields, pareto, trilemma_picture, trilemma_verdict
from jaxgen.report.charts import escape
from jaxgen.report.fields import DIVERSITY, QUALITY, RATE, SPEED, Score
from jaxgen.report.page import PAGE, definitions
from jaxgen.report.page_numbers import Column, columns_table, flops_text, number
from jaxgen.report.page_parts import section, side_by_side
from jaxgen.report.pareto import Axis, value_of

READING = (
  "Better is up and to the right. A curve is a model with one sampler, its colour the family; the "
  "number in a mark counts network evaluations, or is the truncation of a model that takes no "
  "steps. Full marks are on the front: nothing is as good, as diverse and as fast, and better at "
  "one of these. Hollow marks are beaten. The thin line joins what nothing beats in that chart "
  "alone, the tinted corner is what comes near the best of both axes, dashed lines are real test "
  "data. Where diversity is to the right, large marks are fast."
)


def judged(facts: Mapping[str, Any], chosen: Sequence[str], speed: str) -> dict[str, Any]:
  """Points with who is on the front, the axes that decide it, and the verdict.

  Args:
    facts: As of `compare.trilemma.about`, with models and points.
    chosen: Keys of metrics that judge, else the judge's own.
    speed: One of `pareto.SPEEDS`.
  """
  points = facts["points"]
  axes = pareto.axes_of(points, facts["features"], chosen, speed)
  kept = pareto.front([pareto.heights(p, axes) for p in points])
  return dict(facts) | {
    "axes": [list(a) for a in axes],
    "points": [p | {"front": k} for p, k in zip(points, kept, strict=True)],
    "verdict": trilemma_verdict.verdict(points, axes, facts["dataset"], facts["real"]["metrics"]),
  }


def render(results: Mapping) -> str:
  """Results of `judged` -> one self-contained HTML page."""
  title = f"Good, diverse and fast: {escape(results['dataset'])}"
  sections = (
    _answer(results, title),
    _charts(results),
    _points(results),
    _costs(results),
    _provenance(results),
  )
  return PAGE.format(title=title, css=CSS, body="".join(sections))


def _answer(results: Mapping, title: str) -> str:
  """The corner in a sentence, the best of each axis, and the rest of the verdict."""
  headline, *others = results["verdict"]
  *others, terms = others or [""]
  cards = "".join(_card(Axis(*a), results) for a in results["axes"])
  items = "".join(f"<li>{_bold_head(text)}</li>" for text in others)
  return (
    f'<header><h1>{title}</h1><p class="verdict long">{escape(headline)}</p>'
    f'<div class="picks">{cards}</div><p class="note">{escape(terms)}</p></header>'
    + section("Who is on the front", "", [f"<ul>{items}</ul>"] if items else [])
  )


def _bold_head(text: str) -> str:
  """ "Who: what" with its head in bold."""
  head, colon, rest = text.partition(":")
  return f"<b>{escape(head)}:</b>{escape(rest)}" if colon else escape(text)


def _card(axis: Axis, results: Mapping) -> str:
  """The best of an axis, and how many models come near it."""
  points = results["points"]
  best = max(points, key=lambda p: axis.better * axis.value(p) if axis.has(p) else -float("inf"))
  close = dict.fromkeys(p["model"] for p in points if pareto.near(p, points, axis))
  others = [m for m in close if m != best["model"]]
  real = results["real"]["metrics"].get(axis.key)
  facts = [f"{axis.label} {fields.short(axis.value(best))}"]
  facts += [f"real data {fields.short(real)}"] if fields.is_finite(real) else []
  facts += [f"near it: {fields.listed(others)}"] if others else ["nobody else comes near it"]
  return (
    f'<div class="card"><div class="axis">{axis.title}</div>'
    f'<div class="winner">{escape(best["model"])}</div>'
    f'<div class="meta">{escape(trilemma_verdict.setting(best))}</div>'
    f'<div class="meta">{escape("; ".join(facts))}</div></div>'
  )


def _charts(results: Mapping) -> str:
  """Both panels as SVG, wide and narrow, below the families."""
  legend = "".join(
    f"<span>{swatch(results, family)}{escape(family)}</span>"
    for family in trilemma_picture.colours(results)
  )
  pairs = [
    tuple(trilemma_picture.panel_svg(results, which, *size) for size in ((520, 520), (340, 420)))
    for which in ("speed", "diversity")
  ]
  body = side_by_side(pairs, f'<div class="legend">{legend}</div>')
  return section("Quality, diversity and speed at once", READING, [body])


def swatch(results: Mapping, family: str) -> str:
  """A dot in the colour that a family has on the page, dark or light."""
  colour = trilemma_picture.colours(results)[family]
  name = next(name for name, value in charts.THEME.items() if value == colour)
  return f'<span class="swatch" style="background: var(--{name})"></span>'


def _points(results: Mapping) -> str:
  """What is on the front, and all points folded."""
  points = results["points"]
  best = [p for p in points if p["front"]]
  everything = f"<summary>All {len(points)} points</summary>{_table(results, points)}"
  trainings = max((p["trainings"] for p in points), default=1)
  note = "In small letters: " + (
    "the range over trainings with different seeds; of one alone, over timings"
    if trainings > 1
    else "the range over repeated timings; one training of each model was seen"
  )
  return section(
    "The front in numbers",
    f"{note}. Each row is of {results['num']:,} samples.",
    [_table(results, best), f"<details>{everything}</details>"],
  )


def _table(results: Mapping, points: Sequence[Mapping]) -> str:
  """Points with all that was measured, real data first."""
  of = {m["name"]: m["family"] for m in results["models"]}
  titles = [
    swatch(results, of[p["model"]])
    + f"{escape(p['model'])}<small>{escape(trilemma_verdict.setting(p))}</small>"
    for p in points
  ]
  columns = [Column("Front", 0, ["●" if p["front"] else None for p in points])]
  columns += _metric_columns(results, points)
  columns += [
    _column("Evaluations", -1, points, "nfe", SPEED),
    _column("Samples / s", 1, points, RATE, SPEED),
    _column("One sample", -1, points, "latency", SPEED, charts.seconds),
  ]
  return columns_table(columns, titles, bool(results["real"]["metrics"]))


def _metric_columns(results: Mapping, points: Sequence[Mapping]) -> list[Column]:
  """Quality, then diversity: the deciding metric of each first."""
  deciding = [a[1] for a in results["axes"]]
  keys = {
    k for p in points for k in p["scores"] if fields.describe(k).group in (QUALITY, DIVERSITY)
  }
  order = list(fields.METRICS)
  groups = (QUALITY, DIVERSITY)

  def rank(key):
    metric, name = fields.describe(key), fields.split(key)[0]
    return groups.index(metric.group), key not in deciding, order.index(name), key

  return [
    _column(
      fields.describe(k).label,
      fields.describe(k).better,
      points,
      k,
      fields.describe(k).group,
      real=results["real"]["metrics"].get(k),
    )
    for k in sorted(keys, key=rank)
  ]


def _column(
  title: str,
  better: int,
  points: Sequence[Mapping],
  key: str,
  group: str,
  form: Callable[[float], str] = number,
  **more: Any,
) -> Column:
  """One score of points, with its range where it has one."""
  values = [v if (v := value_of(p, key)) == v else None for p in points]
  scores = [_score(p, key) for p in points]
  return Column(title, better, values, form, group, scores=scores, **more)


def _score(point: Mapping, key: str) -> Score | None:
  """A score with its range; None where it was not measured."""
  score = point["scores"].get(key) or {}
  if not fields.is_finite(score.get("mean")):
    return None
  ends = (score["low"], score["high"])
  return Score(score["mean"], *(ends if ends[0] < ends[1] else (None, None)))


def _costs(results: Mapping) -> str:
  """What training took, with codecs and teachers."""
  models = results["models"]

  def paid(key, form):
    notes = []
    for m in models:
      parts = [
        f"of which {u['role']} {form(u[key])}" if u.get(key) else f"and its {u['role']}: unknown"
        for u in m["upstream"]
      ]
      notes.append("; ".join(parts))
    return [m[key]["mean"] if m[key] else None for m in models], notes

  columns = []
  for title, key, form in (
    ("FLOPs", "flops", flops_text),
    ("Training time", "train_seconds", duration),
    ("Examples seen", "train_images", charts.short),
  ):
    values, notes = paid(key, form)
    columns.append(Column(title, -1, values, form, "Training", notes=notes))
  columns.append(Column("Parameters", -1, [m["params"] for m in models], charts.short, "Model"))
  columns.append(Column("Trainings", 0, [len(m["workdirs"]) for m in models], group="Model"))
  titles = [
    f"{swatch(results, m['family'])}{escape(m['name'])}<small>{escape(m['family'])}</small>"
    for m in models
  ]
  return section(
    "What training cost",
    "Means over trainings. Codecs and teachers count: without them there would be no such model.",
    [columns_table(columns, titles)],
  )


def _provenance(results: Mapping) -> str:
  """How the numbers came about, and the command."""
  judge = results["judge"]
  facts = [(k.capitalize(), judge.get(k)) for k in ("features", "reference", "protocol")]
  facts += [(k.capitalize(), results.get(k)) for k in ("machine", "versions")]
  facts += [(m["name"], "\n".join(m["workdirs"])) for m in results["models"]]
  keys = {fields.split(k)[0] for p in results["points"] for k in p["scores"]}
  facts += [(m.label, f"{m.meaning}.") for k, m in fields.METRICS.items() if k in keys]
  return section("How the numbers were made", "", [definitions(facts)]) + section(
    "Do it again", "", [f"<pre>{escape(results['command'])}</pre>"]
  )
