"""The report as one HTML page, from the verdict down to the commands.

It needs no network and no script: styles are inline, pictures are data URIs,
charts are SVG. All text from outside is escaped.
"""

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

from jaxgen.compare import charts, diagnosis, fields, verdict
from jaxgen.compare.charts import escape
from jaxgen.compare.ranking import Ranking, leads, rankings
from jaxgen.monitor import table
from jaxgen.monitor.page_style import CSS
from jaxgen.monitor.progress import duration

DASH = "–"
CLOSE = '<span class="close">too close to call</span>'
ARROWS = {1: "↑", -1: "↓", 0: ""}
COLOURS = 8
COST = "Cost"
# Field of a round and words for what a budget is of.
COSTS = {
  "time": ("seconds", charts.TIME),
  "img": ("images", "images seen"),
  "flop": ("flops", "FLOPs of training"),
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">\
<meta name="viewport" content="width=device-width, initial-scale=1">\
<title>{title}</title><style>{css}</style></head><body><main>{body}</main></body></html>
"""


def render(results: Mapping, images: Mapping[str, bytes] | None = None) -> str:
  """Results of `compare` or of `choose` -> one self-contained HTML page.

  Args:
    results: as in report.json: dataset, features, created, machine, versions,
      counts, real {grid, metrics}, and rows of {name, family, config, workdir,
      commands, params, train_seconds, train_images, step, peak_memory, grid,
      metrics, spread, intervals, settings, samples_per_second, nfe, sampling,
      curves, warnings, bits_per_dim, stopped, next}. Of trainings under a
      budget also budget {text, kind, share}, survey (lines), trust, changes,
      and rows' rounds of {share, seconds, images, flops, step, grid, metrics,
      spread, intervals} and copies {share, floor, grid}.
      Any of them may be None or missing.
    images: PNG files by the keys that `results` calls "grid".
  """
  results = fields.complete(results)
  names = fields.labels(results["rows"])
  models = [
    Model(i % COLOURS, name, row, fields.chosen(row))
    for i, (name, row) in enumerate(zip(names, results["rows"], strict=True))
  ]
  title = f"Which model for {escape(results['dataset'])}?"
  sections = (
    _answer(results, models, title),
    _outlook(results),
    _progress(results, models),
    _trade_off(results, models),
    _samples(results, models, images or {}),
    _copies(models, images or {}),
    _diagnosis(results, models),
    _numbers(results, models),
    _commands(results, models),
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


def _answer(results: Mapping, models: Sequence[Model], title: str) -> str:
  ranked = rankings(results)
  cards = "".join(
    f'<div class="card"><div class="axis">{pick.axis}{CLOSE if r.close else ""}</div>'
    f'<div class="winner">{escape(fields.either(pick.winners))}</div>{_spans(r, models)}'
    f'<div class="meta">{escape(pick.evidence)}</div></div>'
    for pick, r in zip(verdict.picks(results), ranked.values(), strict=True)
  )
  has_intervals = any(s.low is not None for r in ranked.values() for s in r.scores.values())
  bars = "Bars are 95% intervals; further right is better. " if has_intervals else ""
  trust = results.get("trust") or (verdict.trust(results) if results["budget"] else "")
  note = f'<p class="note">{bars}{escape(trust)}</p>' if bars or trust else ""
  return (
    f'<header><h1>{title}</h1><p class="verdict">{escape(verdict.sentence(results))}</p>'
    f'<div class="picks">{cards}</div>{note}</header>'
  )


def _spans(r: Ranking, models: Sequence[Model]) -> str:
  """Every model's number and interval on one scale, the better end to the right."""
  if len(r.scores) < 2:
    return ""
  better = 1 if r.metric == fields.RATE else fields.describe(r.metric).better
  ends = [v for s in r.scores.values() for v in s if v is not None]
  scale = math.log if min(ends) > 0 and max(ends) > charts.LOG_ABOVE * min(ends) else float
  low, high = scale(min(ends)), scale(max(ends))

  def place(value):
    """In percent of the track, with room for the mark at both ends."""
    part = (scale(value) - low) / (high - low) if high > low else 0.5
    return 3 + 94 * (part if better > 0 else 1 - part)

  colours = {m.name: m.colour for m in models}
  rows = []
  for name, s in r.scores.items():
    bar = ends = ""
    if s.low is not None:
      left, right = sorted((place(s.low), place(s.high)))
      bar = f'<i style="left: {left:.1f}%; width: {right - left:.1f}%"></i>'
      ends = f"<small>{fields.short(s.low)} to {fields.short(s.high)}</small>"
    rows.append(
      f'<div class="span" style="--own: var(--c{colours[name]})"><span>{escape(name)}</span>'
      f"<span>{fields.short(s.mean)} {ends}</span>"
      f'<span class="track">{bar}<u style="left: {place(s.mean):.1f}%"></u></span></div>'
    )
  return f'<div class="spans">{"".join(rows)}</div>'


def _outlook(results: Mapping) -> str:
  """What would change the answer."""
  texts = results.get("changes")
  texts = verdict.changes(results) if texts is None else texts
  items = []
  for text in map(str, texts):
    head, colon, rest = text.partition(": ")
    rest = rest[:1].upper() + rest[1:]
    items.append(
      f"<li><b>{escape(head)}.</b> {escape(rest)}</li>" if colon else f"<li>{escape(text)}</li>"
    )
  return _section(
    "What would change the answer", "", [f"<ul>{''.join(items)}</ul>"] if items else []
  )


def _progress(results: Mapping, models: Sequence[Model]) -> str:
  """Quality and diversity against what training took, and who led when."""
  kind = results["budget"].get("kind")
  field, label = COSTS.get(kind, COSTS["time"])
  charted = []
  for axis in (fields.QUALITY, fields.DIVERSITY):
    key = fields.deciding_metric(results, axis)
    if key is None:
      continue
    bands = [charts.Band(m.name, m.colour, _band(m.row["rounds"], key, field)) for m in models]
    charted.append(_chart(charts.progress, results, key, bands, label))
  note = (
    "Models trained by turns with equal budgets, judged after each round; bands are 95% "
    "intervals. Where bands overlap, nobody leads."
  )
  return _section(
    "Quality against training" if kind in ("flop", "img") else "Quality against training time",
    note,
    [_side_by_side(charted), _leads(results, models)],
  )


def _band(rounds: Sequence[Mapping], key: str, field: str) -> list[tuple]:
  """A metric over rounds: (cost, mean, low, high)."""
  pairs = [(r.get(field), fields.score(r, key)) for r in rounds]
  return [(x, *s) for x, s in pairs if s and fields.is_finite(x)]


def _leads(results: Mapping, models: Sequence[Model]) -> str:
  """A strip of rounds: who led in quality after each."""
  led = leads(results)
  if len(led) < 2:
    return ""
  colours = {m.name: m.colour for m in models}
  cells = []
  for r in led:
    marks = "".join(f'<i style="background: var(--c{colours[name]})"></i>' for name in r.winners)
    close = "<small>too close to call</small>" if r.close else ""
    cells.append(
      f'<div><div class="marks">{marks}</div><small>{fields.percent(r.share)}</small>'
      f"<b>{escape(fields.either(r.winners))}</b>{close}</div>"
    )
  title = "<h3>Who leads in quality, by share of the budget</h3>"
  return f'<div class="card family">{title}<div class="leads">{"".join(cells)}</div></div>'


def _chart(draw: Callable[..., str], results: Mapping, key: str, series, *more) -> tuple[str, str]:
  """A chart of a metric, for wide and for narrow screens."""
  metric, floor = fields.describe(key), results["real"]["metrics"].get(key)
  floor = floor if fields.is_finite(floor) else None
  wide, narrow = (
    draw(series, floor, metric.label, metric.better > 0, *more, w, h)
    for w, h in ((520, 380), (340, 320))
  )
  return wide, narrow


def _side_by_side(charted: Iterable[tuple[str, str]], legend: str = "") -> str:
  """Charts in cards, each in the size that fits the screen."""
  cards = [
    f'<div class="card"><div class="wide">{wide}</div><div class="narrow">{narrow}</div></div>'
    for wide, narrow in charted
    if wide
  ]
  return f'{legend}<div class="pair">{"".join(cards)}</div>' if cards else ""


def _legend(models: Iterable[Model]) -> str:
  return f'<div class="legend">{"".join(f"<span>{m.title}</span>" for m in models)}</div>'


def _samples(results: Mapping, models: Sequence[Model], images: Mapping[str, bytes]) -> str:
  if not models:
    return ""
  figures = [_figure(images.get(results["real"].get("grid")), "Real data", "")]
  for m in models:
    rate = fields.speed(m.entry)
    speed = f"{fields.short(rate)} a second" if rate else ""
    note = ", ".join(filter(None, (setting(m.entry), speed)))
    figures.append(_figure(images.get(m.row.get("grid")), m.name, note))
  grid = f'<div class="samples">{"".join(figures)}</div>'
  strips = "".join(_strip(m, images) for m in models)
  note = "Drawn at random, not selected."
  if strips:
    note += " All models had the same labels and the same share of the budget."
    strips = f'<h3 class="family">Earlier rounds, at equal shares of the budget</h3>{strips}'
  return _section("Samples", note, [grid, strips])


def _strip(m: Model, images: Mapping[str, bytes]) -> str:
  """A model's samples of earlier rounds, small."""
  figures = []
  for r in m.row["rounds"]:
    key = r.get("grid")
    if key in images and key != m.row.get("grid"):
      took = duration(r["seconds"]) if fields.is_finite(r.get("seconds")) else ""
      figures.append(_figure(images[key], fields.percent(r["share"]), took))
  if not figures:
    return ""
  return f'<div class="strip"><p>{m.title}</p>{"".join(figures)}</div>'


def _copies(models: Sequence[Model], images: Mapping[str, bytes]) -> str:
  """Samples beside their nearest training images."""
  figures = []
  for m in models:
    part, floor = (m.row["copies"].get(k) for k in ("share", "floor"))
    if not fields.is_finite(part):
      continue
    note = f"{fields.percent(part)} as near as copies"
    note += f"; real test images: {fields.percent(floor)}" if fields.is_finite(floor) else ""
    figures.append(_figure(images.get(m.row["copies"].get("grid")), m.name, note))
  note = (
    "Samples that come nearest to a training image, each beside that image. A model that "
    "copies does so more often than real test images happen to resemble training images."
  )
  grid = f'<div class="samples">{"".join(figures)}</div>' if figures else ""
  return _section("Copies", note, [grid])


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
  return fields.short(value)


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
    finite = [self.better * v for v in self.values if fields.is_finite(v)]
    value = self.values[i]
    competes = self.better and len(finite) > 1 and fields.is_finite(value)
    return bool(competes and self.better * value == max(finite))


def _metric_column(results: Mapping, key: str, scores: Sequence[Mapping], **more) -> Column:
  """One metric of several {metric: value}."""
  metric, (_, features) = fields.describe(key), fields.split(key)
  if features == results.get("features"):
    features = ""  # the page says once what they are
  values = [s.get(key) for s in scores]
  return Column(metric.label, metric.better, values, group=metric.group, features=features, **more)


def _metric_columns(results: Mapping) -> list[Column]:
  """A column for every metric that was measured, in the order of METRICS."""
  real, rows = results["real"]["metrics"], results["rows"]
  order = list(fields.METRICS)

  def rank(key):
    name, features = fields.split(key)
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
  rates = [fields.speed(e) for e in entries]
  return [
    Column("Samples / s", 1, rates, group=fields.SPEED),
    Column("s / 1,000", -1, [1000 / r if r else None for r in rates], group=fields.SPEED),
    Column("Evaluations", -1, [e.get("nfe") for e in entries], group=fields.SPEED),
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
  groups = (fields.QUALITY, fields.DIVERSITY, fields.SPEED, fields.OTHER)
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
  if not fields.is_finite(value):
    return f"<td>{escape(value)}</td>"
  mark = ' class="best"' if best else ""
  small = f" <small>± {escape(form(spread))}</small>" if spread else ""
  return f'<td{mark} title="{value}">{escape(form(value))}{small}</td>'


def _trade_off(results: Mapping, models: Sequence[Model]) -> str:
  charted, drawn = [], set()
  for axis in (fields.QUALITY, fields.DIVERSITY):
    key = fields.deciding_metric(results, axis)
    if key is not None:
      series = [charts.Series(m.name, m.colour, _points(m, key)) for m in models]
      charted.append(_chart(charts.trade_off, results, key, series))
      drawn |= {s.label for s in series if s.points}
  return _section(
    "Quality, diversity and speed in one picture",
    "A model that samples in steps is a curve, for it can be had faster and worse; "
    "the others are points. Left is faster; a model that is best at all three would be in the "
    "corner that the arrow points to, in both charts.",
    [_side_by_side(charted, _legend(m for m in models if m.name in drawn))],
  )


def _points(m: Model, key: str) -> list[tuple[float, float, str]]:
  """(seconds per 1,000 samples, quality, label), from cheap to dear."""
  points, own = [], (fields.judged_entry(m.row), m.entry)
  for entry in m.row["sampling"] or [m.entry]:
    quality = entry["metrics"].get(key)
    if quality is None and entry in own:
      quality = m.row["metrics"].get(key)
    rate = fields.speed(entry)
    if fields.is_finite(quality) and rate:
      points.append((1000 / rate, quality, setting(entry)))
  return sorted(points, key=lambda point: point[0])


def _diagnosis(results: Mapping, models: Sequence[Model]) -> str:
  """What went wrong in training, with the curves that show it."""
  cards, judged = [], False
  for m in models:
    findings, curves = diagnosis.diagnose(m.row, results), m.row["curves"]
    judged = judged or bool(m.row["rounds"])
    plots = [
      charts.lines(f"{key} by images seen", {key: points}, m.colour)
      for key, points in {k: v for f in findings if f.is_metric for k, v in f.curve.items()}.items()
    ]
    plots.append(charts.lines("Loss", curves.get("loss") or {}, m.colour))
    for key, values in (curves.get("health") or {}).items():
      plots.append(charts.lines(key, {key: values}, m.colour))
    plots = "".join(f"<div>{svg}</div>" for svg in plots if svg)
    words = "".join(map(_finding, findings))
    if m.row["rounds"] and not any(f.is_wrong for f in findings):
      words = (
        '<p class="finding fine"><b>Nothing went wrong</b> that these numbers show.</p>' + words
      )
    if plots or words:
      body = f'<h3>{m.title}</h3>{words}<div class="charts">{plots}</div>'
      cards.append(f'<div class="card family">{body}</div>')
  note = (
    "Losses of different families do not compare; their shapes tell whether training went well."
  )
  return _section("What went wrong" if judged else "Training", note, cards)


def _finding(finding: diagnosis.Finding) -> str:
  looks = "finding wrong" if finding.is_wrong else "finding"
  return f'<p class="{looks}"><b>{escape(finding.kind)}.</b> {escape(finding.text)}</p>'


def _commands(results: Mapping, models: Sequence[Model]) -> str:
  """What to type next, the best model first; then what made this report."""
  best = rankings(results).get("quality")
  order = {name: i for i, name in enumerate(best.scores if best else ())}
  ranked = sorted(models, key=lambda m: order.get(m.name, len(order)))
  ranked = [m for m in ranked if m.row["next"]]
  parts = [_listing(m, m.row["next"]) for m in ranked[:1]]
  if ranked[1:]:
    others = "".join(_listing(m, m.row["next"]) for m in ranked[1:])
    parts.append(f"<details><summary>The same for the others</summary>{others}</details>")
  again = [_listing(m, m.row["commands"]) for m in models if m.row["commands"]]
  note = (
    "The best model in quality first: train it on, sample from it, judge it, take it elsewhere."
  )
  return _section("Next", note if parts else "", parts) + _section("Do it again", "", again)


def _listing(m: Model, commands: Sequence[str]) -> str:
  lines = "\n".join(map(escape, commands))
  return f'<h3 class="family">{m.title}</h3><pre>{lines}</pre>'


def _provenance(results: Mapping, models: Sequence[Model]) -> str:
  """How the numbers came about, and what they mean."""
  names = ("dataset", "features", "counts", "machine", "versions", "created")
  budget = results["budget"]
  facts = [("The data", "\n".join(map(str, results["survey"])))]
  facts += [("Budget", {k: budget.get(k) for k in ("text", "kind", "amount")} if budget else None)]
  facts += [(name.capitalize(), results.get(name)) for name in names]
  facts += [(name.capitalize(), results["judge"].get(name)) for name in ("reference", "protocol")]
  for m in models:
    about = {k: m.row.get(k) for k in ("config", "workdir")}
    facts.append((m.name, about | {f"sampling {k}": v for k, v in m.row["settings"].items()}))
  columns = {column.title for column in _metric_columns(results)}
  facts += [(m.label, f"{m.meaning}.") for m in fields.METRICS.values() if m.label in columns]
  terms = [(title, _listed(fact)) for title, fact in facts]
  terms = "".join(f"<dt>{escape(k)}</dt><dd>{_lines(text)}</dd>" for k, text in terms if text)
  return _section("How the numbers were made", "", [f"<dl>{terms}</dl>"])


def _listed(value: Any) -> str:
  """A mapping as "key value, key value"; anything else as it is."""
  if not isinstance(value, Mapping):
    return "" if value is None else str(value)
  return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)


def _lines(text: str) -> str:
  """Lines of text as HTML."""
  return "<br>".join(map(escape, text.split("\n")))
