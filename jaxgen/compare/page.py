"""The page itself, from the verdict down to the commands.

It needs no network and no script: styles are inline, pictures are data URIs,
charts are SVG. All text from outside is escaped.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import NamedTuple

from jaxgen.compare import charts, verdict
from jaxgen.compare.charts import escape
from jaxgen.compare.charts import short as rounded
from jaxgen.monitor.page_style import CSS
from jaxgen.monitor.progress import duration

DASH = "–"
ARROWS = {1: "↑", -1: "↓", 0: ""}
COLOURS = 8
COST = "Cost"


class Family(NamedTuple):
  """One row of the results, as it is called and coloured on the page."""

  colour: int
  name: str
  row: Mapping
  entry: Mapping  # the sampling setting that its metrics belong to

  @property
  def title(self) -> str:
    """Its name behind a dot of its colour, as HTML."""
    dot = f'<span class="swatch bar-c{self.colour}"></span>'
    return dot + escape(self.name)


class Column(NamedTuple):
  """A column: what real data score, then every family."""

  group: str
  title: str
  features: str
  better: int  # +1 more, -1 less, 0 no direction
  real: float | None
  values: Sequence[float | None]
  form: Callable[[float], str]
  spreads: Sequence[float | None] = ()  # standard deviations of the values


def families(results: Mapping) -> list[Family]:
  """The rows of the results, each with its colour and label."""
  rows = results.get("rows") or []
  names = verdict.labels(rows)
  return [
    Family(i % COLOURS, name, row, verdict.chosen(row))
    for i, (name, row) in enumerate(zip(names, rows, strict=True))
  ]


def number(value: float) -> str:
  """Integers as they are, shares to three decimals, else three digits."""
  if isinstance(value, Integral):
    return f"{value:,}"
  if 0.001 <= abs(value) < 1:
    return f"{value:.3f}"
  return verdict.short(value)


def per_thousand(entry: Mapping) -> float | None:
  """Seconds for 1,000 samples."""
  rate = verdict.speed(entry)
  return 1000 / rate if rate else None


def setting(entry: Mapping) -> str:
  """What a sampling setting is called."""
  knobs = (f"{k} {v}" for k, v in (entry.get("knobs") or {}).items())
  return str(entry.get("label") or ", ".join(knobs))


def measured(results: Mapping) -> list[Column]:
  """A column for every metric that was measured, in the order of METRICS."""
  real = (results.get("real") or {}).get("metrics") or {}
  every = [f.row.get("metrics") or {} for f in families(results)]
  known = list(verdict.METRICS)

  def order(key):
    name, features = verdict.split(key)
    rank = known.index(name) if name in known else len(known)
    return rank, features != results.get("features"), key

  columns = []
  for key in sorted({k for metrics in [real, *every] for k in metrics}, key=order):
    metric, (_, features) = verdict.describe(key), verdict.split(key)
    if features == results.get("features"):
      features = ""  # the page says once what they are
    values = [metrics.get(key) for metrics in every]
    columns.append(
      Column(
        metric.group,
        metric.label,
        features,
        metric.better,
        real.get(key),
        values,
        number,
        [(f.row.get("spread") or {}).get(key) for f in families(results)],
      )
    )
  return columns


def spent(results: Mapping) -> list[Column]:
  """Columns of speed and cost; those that nobody measured are left out."""
  mebibytes = lambda value: f"{value / 2**20:,.0f} MiB"
  wanted = [
    (verdict.SPEED, "Samples / s", 1, lambda f: verdict.speed(f.entry), number),
    (verdict.SPEED, "s / 1,000", -1, lambda f: per_thousand(f.entry), number),
    (verdict.SPEED, "Evaluations", -1, lambda f: f.entry.get("nfe"), number),
  ]
  for title, better, key, form in (
    ("Training time", -1, "train_seconds", duration),
    ("Examples seen", 0, "train_images", rounded),
    ("Steps", 0, "step", number),
    ("Parameters", -1, "params", number),
    ("Peak memory", -1, "peak_memory", mebibytes),
  ):
    get = lambda f, key=key: f.row.get(key)
    wanted.append((COST, title, better, get, form))
  columns = [
    Column(g, title, "", better, None, list(map(get, families(results))), form)
    for g, title, better, get, form in wanted
  ]
  return [c for c in columns if any(v is not None for v in c.values)]


def numbers(results: Mapping) -> str:
  """Quality, diversity and speed above, cost below, all settings folded."""
  columns = measured(results) + spent(results)
  if not columns:
    return ""
  groups = (verdict.QUALITY, verdict.DIVERSITY, verdict.SPEED, verdict.OTHER)
  main = [c for group in groups for c in columns if c.group == group]
  cost = [c for c in columns if c.group == COST]
  seeds = (results.get("counts") or {}).get("seeds") or 1
  over = (
    f"{seeds} trainings with different seeds: means and standard deviations"
    if seeds > 1
    else "one training each, ± the standard deviation over sets of samples"
  )
  return (
    '<section><h2>Quality, diversity, speed</h2><p class="note">↑ more is '
    "better, ↓ less is better. The best model of each column is marked; real "
    f"data, scored like a model, show what can be reached. Of {over}.</p>"
    f"{_table(results, main, True)}{_table(results, cost, False)}"
    f"{_settings(results)}</section>"
  )


def _table(results: Mapping, columns: list[Column], real: bool) -> str:
  if not columns:
    return ""
  groups = dict.fromkeys(c.group for c in columns)
  top = "".join(
    f'<th colspan="{sum(c.group == group for c in columns)}">{group}</th>' for group in groups
  )
  head = "".join(_head(c.title, c.better, c.features) for c in columns)
  body = []
  if real:
    cells = "".join(_cell(c.real, c.form) for c in columns)
    title = '<span class="swatch"></span>Real data'
    body.append(f'<tr class="real"><th>{title}</th>{cells}</tr>')
  for i, f in enumerate(families(results)):
    cells = (
      _cell(c.values[i], c.form, _is_best(c, i), c.spreads[i] if c.spreads else None)
      for c in columns
    )
    note = f"<small>{escape(setting(f.entry))}</small>" if real else ""
    body.append(f"<tr><th>{f.title}{note}</th>{''.join(cells)}</tr>")
  return (
    f'<div class="scroll"><table><thead><tr class="group"><th></th>{top}</tr>'
    f"<tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    "</div>"
  )


def _head(title: str, better: int, features: str = "") -> str:
  small = f"<small>{escape(features)}</small>" if features else ""
  return f"<th>{escape(title)} {ARROWS[better]}{small}</th>"


def _is_best(column: Column, i: int) -> bool:
  """The best of its column, where there is a direction and a competitor."""
  known = [v for v in column.values if verdict.finite(v)]
  value = column.values[i]
  if not column.better or len(known) < 2 or not verdict.finite(value):
    return False
  return value * column.better == max(v * column.better for v in known)


def _cell(value, form: Callable[[float], str] = number, best=False, spread=None) -> str:
  if value is None:
    return f'<td class="none">{DASH}</td>'
  if not verdict.finite(value):
    return f"<td>{escape(value)}</td>"
  mark = ' class="best"' if best else ""
  give = f" <small>± {escape(form(spread))}</small>" if spread else ""
  return f'<td{mark} title="{value}">{escape(form(value))}{give}</td>'


def _settings(results: Mapping) -> str:
  """Every sampling setting that was measured, folded away."""
  entries = [(f, entry) for f in families(results) for entry in f.row.get("sampling") or []]
  if len(entries) <= len(families(results)):
    return ""
  keys = dict.fromkeys(k for _, e in entries for k in e.get("metrics") or {})
  head = _head("Setting", 0) + _head("Evaluations", -1)
  head += _head("Samples / s", 1) + _head("s / 1,000", -1)
  for key in keys:
    metric, (_, features) = verdict.describe(key), verdict.split(key)
    features = "" if features == results.get("features") else features
    head += _head(metric.label, metric.better, features)
  body = "".join(
    f"<tr><th>{f.title}</th><td>{escape(setting(e) or DASH)}</td>"
    f"{_cell(e.get('nfe'))}{_cell(verdict.speed(e))}{_cell(per_thousand(e))}"
    + "".join(_cell((e.get("metrics") or {}).get(key)) for key in keys)
    + "</tr>"
    for f, e in entries
  )
  return (
    f"<details><summary>All {len(entries)} sampling settings</summary>"
    f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>'
    f"<tbody>{body}</tbody></table></div></details>"
  )


def render(results: Mapping, images: Mapping[str, bytes] | None = None) -> str:
  """What was measured -> one self-contained HTML page.

  Args:
    results: as in report.json: dataset, features, created, machine, versions,
      counts, real {grid, metrics}, and rows of {name, family, config, workdir,
      commands, params, train_seconds, train_images, step, peak_memory, grid,
      metrics, spread, settings, samples_per_second, nfe, sampling, curves,
      warnings}.
      Any of them may be None or missing.
    images: PNG files by the keys that `results` calls "grid".
  """
  data = escape(str(results.get("dataset") or "this data"))
  body = "".join(
    (
      _answer(results, data),
      _samples(results, images or {}),
      numbers(results),
      _trade_off(results),
      _training(results),
      _commands(results),
      _made(results),
    )
  )
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>Which model for {data}?</title><style>{CSS}</style></head>"
    f"<body><main>{body}</main></body></html>\n"
  )


def _answer(results: Mapping, data: str) -> str:
  cards = "".join(
    f'<div class="card"><div class="axis">{pick.axis}</div>'
    f'<div class="winner">{escape(" or ".join(pick.winners))}</div>'
    f'<div class="meta">{escape(pick.evidence)}</div></div>'
    for pick in verdict.picks(results)
  )
  return (
    f"<header><h1>Which model for {data}?</h1>"
    f'<p class="verdict">{escape(verdict.sentence(results))}</p>'
    f'<div class="picks">{cards}</div></header>'
  )


def _samples(results: Mapping, images: Mapping[str, bytes]) -> str:
  if not results.get("rows"):
    return ""
  real = results.get("real") or {}
  figures = [_figure(images.get(real.get("grid")), "Real data", "")]
  for f in families(results):
    rate = verdict.speed(f.entry)
    speed = f"{verdict.short(rate)} a second" if rate else ""
    note = ", ".join(filter(None, (setting(f.entry), speed)))
    figures.append(_figure(images.get(f.row.get("grid")), f.name, note))
  return (
    '<section><h2>Samples</h2><p class="note">Drawn at random, not selected.'
    f'</p><div class="samples">{"".join(figures)}</div></section>'
  )


def _figure(png: bytes | None, name: str, note: str) -> str:
  name, note = escape(name), escape(note)
  picture = '<div class="missing">no picture</div>'
  if png:
    code = base64.b64encode(png).decode()
    picture = f'<img alt="{name}" src="data:image/png;base64,{code}">'
  caption = f"<b>{name}</b>" + (f"<br>{note}" if note else "")
  return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _trade_off(results: Mapping) -> str:
  key = verdict.judged_by(results, verdict.QUALITY)
  if key is None:
    return ""
  metric = verdict.describe(key)
  series = [charts.Series(f.name, f.colour, _points(f, key)) for f in families(results)]
  floor = ((results.get("real") or {}).get("metrics") or {}).get(key)
  floor = floor if verdict.finite(floor) else None
  wide, narrow = (
    charts.trade_off(series, floor, metric.label, metric.better > 0, w, h)
    for w, h in ((1040, 440), (340, 340))
  )
  if not wide:
    return ""
  return (
    '<section><h2>What quality costs</h2><p class="note">A model that samples '
    "in steps is a curve, for it can be had faster and worse; the others are "
    f'points.</p><div class="card"><div class="wide">{wide}</div>'
    f'<div class="narrow">{narrow}</div></div></section>'
  )


def _points(f: Family, key: str) -> list[tuple[float, float, str]]:
  """(seconds per 1,000 samples, quality, label), from cheap to dear."""
  points, judged = [], verdict.judged(f.row)
  for entry in f.row.get("sampling") or [f.entry]:
    quality = (entry.get("metrics") or {}).get(key)
    if quality is None and entry in (judged, f.entry):
      quality = (f.row.get("metrics") or {}).get(key)
    rate = verdict.speed(entry)
    if verdict.finite(quality) and rate:
      points.append((1000 / rate, quality, setting(entry)))
  return sorted(points, key=lambda point: point[0])


def _training(results: Mapping) -> str:
  parts = []
  for f in families(results):
    curves = f.row.get("curves") or {}
    drawn = [charts.lines("Loss", curves.get("loss") or {}, f.colour)]
    drawn += [
      charts.lines(key, {key: values or []}, f.colour)
      for key, values in (curves.get("health") or {}).items()
    ]
    drawn = [f"<div>{svg}</div>" for svg in drawn if svg]
    warnings = "".join(
      f'<p class="warning">{escape(text)}</p>' for text in f.row.get("warnings") or []
    )
    if drawn or warnings:
      parts.append(
        f'<div class="card family"><h3>{f.title}</h3>{warnings}'
        f'<div class="charts">{"".join(drawn)}</div></div>'
      )
  if not parts:
    return ""
  return (
    '<section><h2>Training</h2><p class="note">Losses of different families '
    "do not compare; their shapes tell whether training went well.</p>"
    f"{''.join(parts)}</section>"
  )


def _commands(results: Mapping) -> str:
  parts = [
    f'<h3 class="family">{f.title}</h3><pre>{chr(10).join(map(escape, f.row["commands"]))}</pre>'
    for f in families(results)
    if f.row.get("commands")
  ]
  if not parts:
    return ""
  return f"<section><h2>Do it again</h2>{''.join(parts)}</section>"


def _made(results: Mapping) -> str:
  """How the numbers were made, and what they mean."""
  facts = [
    (name.capitalize(), _listed(results.get(name)))
    for name in (*("dataset", "features", "counts", "machine", "versions"), "created")
  ]
  judge = results.get("judge") or {}
  facts += [(name.capitalize(), str(judge.get(name) or "")) for name in ("reference", "protocol")]
  for f in families(results):
    about = {k: f.row.get(k) for k in ("config", "workdir")}
    settings = (f.row.get("settings") or {}).items()
    about |= {f"sampling {k}": v for k, v in settings}
    facts.append((f.name, _listed(about)))
  shown = {column.title for column in measured(results)}
  facts += [
    (metric.label, f"{metric.meaning}.")
    for metric in verdict.METRICS.values()
    if metric.label in shown
  ]
  terms = "".join(
    f"<dt>{escape(title)}</dt><dd>{escape(text)}</dd>" for title, text in facts if text
  )
  return f"<section><h2>How the numbers were made</h2><dl>{terms}</dl></section>"


def _listed(value) -> str:
  """A mapping as "key value, key value"; anything else as it is."""
  if not isinstance(value, Mapping):
    return "" if value is None else str(value)
  return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
