"""The page itself, from the verdict down to the commands.

It needs no network and no script: styles are inline, pictures are data URIs,
charts are SVG. All text from outside is escaped.
"""

import base64
from collections.abc import Mapping

from jaxgen.compare import charts, verdict
from jaxgen.compare.axes import escape
from jaxgen.compare.tables import Family, families, measured, numbers, setting
from jaxgen.monitor.page_style import CSS


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
  series = [
    charts.Series(f.name, f.colour, _points(f, key)) for f in families(results)
  ]
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
      f'<p class="warning">{escape(text)}</p>'
      for text in f.row.get("warnings") or []
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
    f'<h3 class="family">{f.title}</h3>'
    f"<pre>{chr(10).join(map(escape, f.row['commands']))}</pre>"
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
    for name in (
      *("dataset", "features", "counts", "machine", "versions"),
      "created",
    )
  ]
  judge = results.get("judge") or {}
  facts += [
    (name.capitalize(), str(judge.get(name) or ""))
    for name in ("reference", "protocol")
  ]
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
    f"<dt>{escape(title)}</dt><dd>{escape(text)}</dd>"
    for title, text in facts
    if text
  )
  return (
    f"<section><h2>How the numbers were made</h2><dl>{terms}</dl></section>"
  )


def _listed(value) -> str:
  """A mapping as "key value, key value"; anything else as it is."""
  if not isinstance(value, Mapping):
    return "" if value is None else str(value)
  return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
