"""The report as one HTML page, from the verdict down to the commands.

It needs no network and no script: styles are inline, pictures are data URIs,
charts are SVG. All text from outside is escaped.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgen.monitor.page_style import CSS
from jaxgen.report import charts, fields, verdict
from jaxgen.report.charts import escape
from jaxgen.report.page_numbers import metric_columns, number_tables
from jaxgen.report.page_parts import Model, chart, cost_of, legend, section, setting, side_by_side
from jaxgen.report.page_samples import copies, samples
from jaxgen.report.page_sound import listen
from jaxgen.report.page_training import progress, troubles
from jaxgen.report.ranking import Ranking, rankings

INTERVALS = (
  "95%, Student's t over sets of samples, or over trainings where there are several; of Fréchet "
  "distances in their logarithm. Models are "
  "too close to call where the interval of one overlaps that of the best. Intervals over sets of "
  "one training say nothing about another training."
)
CLOSE = '<span class="close">too close to call</span>'
COLOURS = 8
LONG = 160  # letters of a verdict that is no headline any more
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
      curves, warnings, bits_per_dim, flops, codec, stopped, next}. Seconds,
      images and flops are with those of a codec {workdir, step, train_seconds,
      train_images, flops}, if its cost is known. Of trainings under a
      budget also budget {text, kind, share}, survey (lines), trust, changes,
      and rows' rounds of {share, seconds, images, flops, step, grid, metrics,
      spread, intervals} and copies {share, floor, grid}. Of models of sound also
      noun, "clips", and clips, of rows and of real, as [{label, sound, picture}].
      Any of them may be None or missing.
    images: PNG files by the keys that `results` calls "grid"; WAV and PNG files
      by those in "clips".
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
    progress(results, models),
    _trade_off(results, models),
    listen(results, models, images or {}),
    samples(results, models, images or {}),
    copies(results, models, images or {}),
    troubles(results, models),
    number_tables(results, models),
    _commands(results, models),
    _provenance(results, models),
  )
  return PAGE.format(title=title, css=CSS, body="".join(sections))


def _answer(results: Mapping, models: Sequence[Model], title: str) -> str:
  axes = rankings(results)
  cards = "".join(
    f'<div class="card"><div class="axis">{pick.axis}{CLOSE if r.close else ""}</div>'
    f'<div class="winner{" many" if len(pick.winners) > 2 else ""}">'
    f"{escape(fields.either(pick.winners))}</div>{_spans(r, models)}"
    f'<div class="meta">{escape(pick.evidence)}</div></div>'
    for pick, r in zip(verdict.picks(results), axes.values(), strict=True)
  )
  has_intervals = any(s.low is not None for r in axes.values() for s in r.scores.values())
  bars = "Bars are 95% intervals; further right is better. " if has_intervals else ""
  trust = results.get("trust")
  if not trust and (bars or results["budget"]):
    trust = verdict.trust(results)
  note = f'<p class="note">{bars}{escape(trust)}</p>' if trust else ""
  spent = results["budget"].get("share")
  so_far = ""
  if fields.is_finite(spent) and spent < 1:
    so_far = f'<span class="close">so far: {fields.percent(spent)} of the budget</span>'
  sentence = verdict.sentence(results)
  size = " long" if len(sentence) > LONG else ""
  return (
    f'<header><h1>{title}{so_far}</h1><p class="verdict{size}">{escape(sentence)}</p>'
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
  return section(
    "What would change the answer", "", [f"<ul>{''.join(items)}</ul>"] if items else []
  )


def _trade_off(results: Mapping, models: Sequence[Model]) -> str:
  pairs, drawn = [], set()
  for axis in (fields.QUALITY, fields.DIVERSITY):
    key = fields.deciding_metric(results, axis)
    if key is not None:
      series = [charts.Series(m.name, m.colour, _points(m, key)) for m in models]
      pairs.append(chart(charts.trade_off, results, key, series))
      drawn |= {s.label for s in series if s.points}
  return section(
    "Quality, diversity and speed at once",
    "A model that samples in steps is a curve, for it can be had faster and worse; "
    "the others are points. Left is faster; a model that is best at all three would be in the "
    "corner that the arrow points to, in both charts.",
    [side_by_side(pairs, legend(m for m in models if m.name in drawn))],
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


def _commands(results: Mapping, models: Sequence[Model]) -> str:
  """What to type next, the best model first; then what made this report."""
  best = rankings(results).get("quality")
  order = {name: i for i, name in enumerate(best.scores if best else ())}
  axes = sorted(models, key=lambda m: order.get(m.name, len(order)))
  axes = [m for m in axes if m.row["next"]]
  parts = [_listing(m, m.row["next"]) for m in axes[:1]]
  if axes[1:]:
    others = "".join(_listing(m, m.row["next"]) for m in axes[1:])
    parts.append(f"<details><summary>The same for the others</summary>{others}</details>")
  again = [_listing(m, m.row["commands"]) for m in models if m.row["commands"]]
  note = (
    "The best model in quality first: train it on, sample from it, judge it, take it elsewhere."
  )
  return section("Next", note if parts else "", parts) + section("Do it again", "", again)


def _listing(m: Model, commands: Sequence[str]) -> str:
  lines = "\n".join(map(escape, commands))
  return f'<h3 class="family">{m.title}</h3><pre>{lines}</pre>'


def _provenance(results: Mapping, models: Sequence[Model]) -> str:
  """How the numbers came about, and what they mean."""
  names = ("dataset", "features", "counts", "machine", "versions", "created")
  facts = [("The data", "\n".join(map(str, results["survey"]))), ("Budget", _budget(results))]
  if any(m.row["intervals"] for m in models):
    facts.append(("Intervals", INTERVALS))
  facts += [(name.capitalize(), results.get(name)) for name in names]
  facts += [(name.capitalize(), results["judge"].get(name)) for name in ("reference", "protocol")]
  for m in models:
    about = {k: m.row.get(k) for k in ("config", "workdir")}
    facts.append((m.name, about | {f"sampling {k}": v for k, v in m.row["settings"].items()}))
  columns = {column.title for column in metric_columns(results)}
  facts += [(m.label, f"{m.meaning}.") for m in fields.METRICS.values() if m.label in columns]
  return section("How the numbers were made", "", [definitions(facts)])


def definitions(facts: Sequence[tuple[str, Any]]) -> str:
  """Facts by title as a list; without those of which nothing is known."""
  terms = [(title, _listed(fact)) for title, fact in facts]
  terms = "".join(f"<dt>{escape(k)}</dt><dd>{_lines(text)}</dd>" for k, text in terms if text)
  return f"<dl>{terms}</dl>"


def _budget(results: Mapping) -> str:
  """What every model might spend, and when it was judged."""
  budget = results["budget"]
  if not budget.get("text"):
    return ""
  _, unit = cost_of(results, budget.get("kind"))
  text = f"{budget['text']} in all, in equal shares of {unit}"
  parts = [fields.percent(x) for x in budget.get("rounds") or () if fields.is_finite(x)]
  return f"{text}; judged after {fields.listed(parts)} of each share" if parts else text


def _listed(value: Any) -> str:
  """A mapping as "key value, key value"; anything else as it is."""
  if not isinstance(value, Mapping):
    return "" if value is None else str(value)
  return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)


def _lines(text: str) -> str:
  """Lines of text as HTML."""
  return "<br>".join(map(escape, text.split("\n")))
