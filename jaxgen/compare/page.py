"""The report as one HTML page, from the verdict down to the commands.

It needs no network and no script: styles are inline, pictures are data URIs,
charts are SVG. All text from outside is escaped.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

from jaxgen.compare import charts, verdict
from jaxgen.compare.charts import escape
from jaxgen.monitor import table
from jaxgen.monitor.page_style import CSS
from jaxgen.monitor.progress import duration

DASH = "–"
ARROWS = {1: "↑", -1: "↓", 0: ""}
COLOURS = 8
COST = "Cost"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">\
<meta name="viewport" content="width=device-width, initial-scale=1">\
<title>{title}</title><style>{css}</style></head><body><main>{body}</main></body></html>
"""


def render(results: Mapping, images: Mapping[str, bytes] | None = None) -> str:
  """Results of a comparison -> one self-contained HTML page.

  Args:
    results: as in report.json: dataset, features, created, machine, versions,
      counts, real {grid, metrics}, and rows of {name, family, config, workdir,
      commands, params, train_seconds, train_images, step, peak_memory, grid,
      metrics, spread, settings, samples_per_second, nfe, sampling, curves,
      warnings}.
      Any of them may be None or missing.
    images: PNG files by the keys that `results` calls "grid".
  """
  results = verdict.complete(results)
  names = verdict.labels(results["rows"])
  models = [
    Model(i % COLOURS, name, row, verdict.chosen(row))
    for i, (name, row) in enumerate(zip(names, results["rows"], strict=True))
  ]
  title = f"Which model for {escape(results['dataset'])}?"
  sections = (
    _answer(results, title),
    _samples(results, models, images or {}),
    _numbers(results, models),
    _trade_off(results, models),
    _training(models),
    _commands(models),
    _provenance(results, models),
  )
  return PAGE.format(title=title, css=CSS, body="".join(sections))


class Model(NamedTuple):
  """One row of the results, with its name and colour on the page."""

  colour: int
  name: str
  row: Mapping
  entry: Mapping  # the sampling settings that its metrics belong to

  @property
  def title(self) -> str:
    """Its name behind a dot of its colour, as HTML."""
    dot = f'<span class="swatch" style="background: var(--c{self.colour})"></span>'
    return dot + escape(self.name)


def _section(title: str, note: str, parts: Iterable[str]) -> str:
  """A section of the page; none where all parts are empty."""
  body = "".join(parts)
  note = f'<p class="note">{note}</p>' if note else ""
  return f"<section><h2>{title}</h2>{note}{body}</section>" if body else ""


def _answer(results: Mapping, title: str) -> str:
  cards = "".join(
    f'<div class="card"><div class="axis">{pick.axis}</div>'
    f'<div class="winner">{escape(" or ".join(pick.winners))}</div>'
    f'<div class="meta">{escape(pick.evidence)}</div></div>'
    for pick in verdict.picks(results)
  )
  return (
    f'<header><h1>{title}</h1><p class="verdict">{escape(verdict.sentence(results))}</p>'
    f'<div class="picks">{cards}</div></header>'
  )


def _samples(results: Mapping, models: Sequence[Model], images: Mapping[str, bytes]) -> str:
  if not models:
    return ""
  figures = [_figure(images.get(results["real"].get("grid")), "Real data", "")]
  for m in models:
    rate = verdict.speed(m.entry)
    speed = f"{verdict.short(rate)} a second" if rate else ""
    note = ", ".join(filter(None, (setting(m.entry), speed)))
    figures.append(_figure(images.get(m.row.get("grid")), m.name, note))
  grid = f'<div class="samples">{"".join(figures)}</div>'
  return _section("Samples", "Drawn at random, not selected.", [grid])


def _figure(png: bytes | None, name: str, note: str) -> str:
  name, note = escape(name), escape(note)
  picture = '<div class="missing">no picture</div>'
  if png:
    code = base64.b64encode(png).decode()
    picture = f'<img alt="{name}" src="data:image/png;base64,{code}">'
  caption = f"<b>{name}</b>" + (f"<br>{note}" if note else "")
  return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def number(value: float) -> str:
  """Integers as they are, shares to three decimals, else three digits."""
  if isinstance(value, Integral):
    return f"{value:,}"
  if 0.001 <= abs(value) < 1:
    return f"{value:.3f}"
  return verdict.short(value)


def setting(entry: Mapping) -> str:
  """The name of sampling settings."""
  return str(entry.get("label") or ", ".join(f"{k} {v}" for k, v in entry["knobs"].items()))


class Column(NamedTuple):
  """A column of a table: its head, and a value for each row (None: a dash)."""

  title: str
  better: int  # +1 more, -1 less, 0 no direction
  values: Sequence[Any]
  form: Callable[[float], str] = number
  group: str = ""
  features: str = ""
  real: float | None = None
  spreads: Sequence[float | None] = ()  # standard deviations of the values

  def is_best(self, i: int) -> bool:
    """Whether row i has the best value, and there are others to compete with."""
    finite = [self.better * v for v in self.values if verdict.is_finite(v)]
    value = self.values[i]
    competes = self.better and len(finite) > 1 and verdict.is_finite(value)
    return bool(competes and self.better * value == max(finite))


def _metric_column(results: Mapping, key: str, scores: Sequence[Mapping], **more) -> Column:
  """One metric of several {metric: value}."""
  metric, (_, features) = verdict.describe(key), verdict.split(key)
  if features == results.get("features"):
    features = ""  # the page says once what they are
  values = [s.get(key) for s in scores]
  return Column(metric.label, metric.better, values, group=metric.group, features=features, **more)


def _metric_columns(results: Mapping) -> list[Column]:
  """A column for every metric that was measured, in the order of METRICS."""
  real, rows = results["real"]["metrics"], results["rows"]
  order = list(verdict.METRICS)

  def rank(key):
    name, features = verdict.split(key)
    place = order.index(name) if name in order else len(order)
    return place, features != results.get("features"), key

  scores = [row["metrics"] for row in rows]
  return [
    _metric_column(
      results, key, scores, real=real.get(key), spreads=[row["spread"].get(key) for row in rows]
    )
    for key in sorted({k for s in [real, *scores] for k in s}, key=rank)
  ]


def _speed_columns(entries: Sequence[Mapping]) -> list[Column]:
  rates = [verdict.speed(e) for e in entries]
  return [
    Column("Samples / s", 1, rates, group=verdict.SPEED),
    Column("s / 1,000", -1, [1000 / r if r else None for r in rates], group=verdict.SPEED),
    Column("Evaluations", -1, [e.get("nfe") for e in entries], group=verdict.SPEED),
  ]


def _cost_columns(rows: Sequence[Mapping]) -> list[Column]:
  return [
    Column(title, better, [row.get(key) for row in rows], form, COST)
    for title, better, key, form in (
      ("Training time", -1, "train_seconds", duration),
      ("Examples seen", 0, "train_images", charts.short),
      ("Steps", 0, "step", number),
      ("Parameters", -1, "params", number),
      ("Peak memory", -1, "peak_memory", table.size),
    )
  ]


def _numbers(results: Mapping, models: Sequence[Model]) -> str:
  """Quality, diversity and speed above, cost below, all settings folded."""
  columns = _metric_columns(results) + _speed_columns([m.entry for m in models])
  groups = (verdict.QUALITY, verdict.DIVERSITY, verdict.SPEED, verdict.OTHER)
  columns.sort(key=lambda c: groups.index(c.group))
  notes = [f"{m.title}<small>{escape(setting(m.entry))}</small>" for m in models]
  seeds = results["counts"].get("seeds") or 1
  spread = (
    f"{seeds} trainings with different seeds: means and standard deviations"
    if seeds > 1
    else "one training each, ± the standard deviation over sets of samples"
  )
  return _section(
    "Quality, diversity, speed",
    "↑ more is better, ↓ less is better. The best model of each column is marked; real "
    f"data, scored like a model, show what can be reached. Of {spread}.",
    (
      _table(columns, notes, real=True),
      _table(_cost_columns(results["rows"]), [m.title for m in models]),
      _settings(results, models),
    ),
  )


def _settings(results: Mapping, models: Sequence[Model]) -> str:
  """Every sampling setting that was measured, folded away."""
  pairs = [(m.title, entry) for m in models for entry in m.row["sampling"]]
  if len(pairs) <= len(models):
    return ""
  titles, entries = zip(*pairs, strict=True)
  scores = [e["metrics"] for e in entries]
  columns = [
    Column("Setting", 0, [setting(e) or None for e in entries]),
    *_speed_columns(entries),
    *(_metric_column(results, key, scores) for key in dict.fromkeys(k for s in scores for k in s)),
  ]
  columns = [c._replace(group="") for c in columns]
  summary = f"<summary>All {len(entries)} sampling settings</summary>"
  return f"<details>{summary}{_table(columns, titles)}</details>"


def _table(columns: Sequence[Column], titles: Sequence[str], real: bool = False) -> str:
  """Columns side by side; grouped ones have their best value marked.

  Args:
    columns: Those without any value are left out.
    titles: HTML at the beginning of each row.
    real: Whether real data come first, as a row of their own.
  """
  columns = [c for c in columns if c.real is not None or any(v is not None for v in c.values)]
  if not columns:
    return ""
  groups = [c.group for c in columns]
  head = f"<tr><th></th>{''.join(map(_head, columns))}</tr>"
  if any(groups):
    top = (f'<th colspan="{groups.count(g)}">{g}</th>' for g in dict.fromkeys(groups))
    head = f'<tr class="group"><th></th>{"".join(top)}</tr>{head}'
  body = []
  if real:
    cells = "".join(_cell(c.real, c.form) for c in columns)
    title = '<span class="swatch"></span>Real data'
    body.append(f'<tr class="real"><th>{title}</th>{cells}</tr>')
  for i, title in enumerate(titles):
    cells = "".join(
      _cell(c.values[i], c.form, c.group and c.is_best(i), c.spreads[i] if c.spreads else None)
      for c in columns
    )
    body.append(f"<tr><th>{title}</th>{cells}</tr>")
  rows = f"<thead>{head}</thead><tbody>{''.join(body)}</tbody>"
  return f'<div class="scroll"><table>{rows}</table></div>'


def _head(column: Column) -> str:
  small = f"<small>{escape(column.features)}</small>" if column.features else ""
  return f"<th>{escape(column.title)} {ARROWS[column.better]}{small}</th>"


def _cell(value, form: Callable[[float], str], best=False, spread: float | None = None) -> str:
  if value is None:
    return f'<td class="none">{DASH}</td>'
  if not verdict.is_finite(value):
    return f"<td>{escape(value)}</td>"
  mark = ' class="best"' if best else ""
  small = f" <small>± {escape(form(spread))}</small>" if spread else ""
  return f'<td{mark} title="{value}">{escape(form(value))}{small}</td>'


def _trade_off(results: Mapping, models: Sequence[Model]) -> str:
  key = verdict.deciding_metric(results, verdict.QUALITY)
  if key is None:
    return ""
  metric = verdict.describe(key)
  series = [charts.Series(m.name, m.colour, _points(m, key)) for m in models]
  floor = results["real"]["metrics"].get(key)
  floor = floor if verdict.is_finite(floor) else None
  wide, narrow = (
    charts.trade_off(series, floor, metric.label, metric.better > 0, w, h)
    for w, h in ((1040, 440), (340, 340))
  )
  legend = "".join(
    f"<span>{m.title}</span>" for m, s in zip(models, series, strict=True) if s.points
  )
  card = (
    f'<div class="card"><div class="legend">{legend}</div><div class="wide">{wide}</div>'
    f'<div class="narrow">{narrow}</div></div>'
  )
  return _section(
    "What quality costs",
    "A model that samples in steps is a curve, for it can be had faster and worse; "
    "the others are points.",
    [card] if wide else [],
  )


def _points(m: Model, key: str) -> list[tuple[float, float, str]]:
  """(seconds per 1,000 samples, quality, label), from cheap to dear."""
  points, own = [], (verdict.judged_entry(m.row), m.entry)
  for entry in m.row["sampling"] or [m.entry]:
    quality = entry["metrics"].get(key)
    if quality is None and entry in own:
      quality = m.row["metrics"].get(key)
    rate = verdict.speed(entry)
    if verdict.is_finite(quality) and rate:
      points.append((1000 / rate, quality, setting(entry)))
  return sorted(points, key=lambda point: point[0])


def _training(models: Sequence[Model]) -> str:
  cards = []
  for m in models:
    curves = m.row["curves"]
    plots = [charts.lines("Loss", curves.get("loss") or {}, m.colour)]
    for key, values in (curves.get("health") or {}).items():
      plots.append(charts.lines(key, {key: values}, m.colour))
    plots = "".join(f"<div>{svg}</div>" for svg in plots if svg)
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in m.row["warnings"])
    if plots or warnings:
      body = f'<h3>{m.title}</h3>{warnings}<div class="charts">{plots}</div>'
      cards.append(f'<div class="card family">{body}</div>')
  note = (
    "Losses of different families do not compare; their shapes tell whether training went well."
  )
  return _section("Training", note, cards)


def _commands(models: Sequence[Model]) -> str:
  parts = []
  for m in models:
    if m.row["commands"]:
      lines = "\n".join(map(escape, m.row["commands"]))
      parts.append(f'<h3 class="family">{m.title}</h3><pre>{lines}</pre>')
  return _section("Do it again", "", parts)


def _provenance(results: Mapping, models: Sequence[Model]) -> str:
  """How the numbers came about, and what they mean."""
  names = ("dataset", "features", "counts", "machine", "versions", "created")
  facts = [(name.capitalize(), results.get(name)) for name in names]
  facts += [(name.capitalize(), results["judge"].get(name)) for name in ("reference", "protocol")]
  for m in models:
    about = {k: m.row.get(k) for k in ("config", "workdir")}
    facts.append((m.name, about | {f"sampling {k}": v for k, v in m.row["settings"].items()}))
  columns = {column.title for column in _metric_columns(results)}
  facts += [(m.label, f"{m.meaning}.") for m in verdict.METRICS.values() if m.label in columns]
  terms = [(title, _listed(fact)) for title, fact in facts]
  terms = "".join(f"<dt>{escape(k)}</dt><dd>{escape(text)}</dd>" for k, text in terms if text)
  return _section("How the numbers were made", "", [f"<dl>{terms}</dl>"])


def _listed(value: Any) -> str:
  """A mapping as "key value, key value"; anything else as it is."""
  if not isinstance(value, Mapping):
    return "" if value is None else str(value)
  return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
