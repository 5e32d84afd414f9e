"""The report's tables: quality, diversity, speed; cost; every setting."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import NamedTuple

from jaxgen.compare import verdict
from jaxgen.compare.axes import escape
from jaxgen.compare.axes import short as rounded
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
  for key in sorted(
    {k for metrics in [real, *every] for k in metrics}, key=order
  ):
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
    f'<th colspan="{sum(c.group == group for c in columns)}">{group}</th>'
    for group in groups
  )
  head = "".join(_head(c.title, c.better, c.features) for c in columns)
  body = []
  if real:
    cells = "".join(_cell(c.real, c.form) for c in columns)
    title = '<span class="swatch"></span>Real data'
    body.append(f'<tr class="real"><th>{title}</th>{cells}</tr>')
  for i, f in enumerate(families(results)):
    cells = (
      _cell(
        c.values[i], c.form, _is_best(c, i), c.spreads[i] if c.spreads else None
      )
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


def _cell(
  value, form: Callable[[float], str] = number, best=False, spread=None
) -> str:
  if value is None:
    return f'<td class="none">{DASH}</td>'
  if not verdict.finite(value):
    return f"<td>{escape(value)}</td>"
  mark = ' class="best"' if best else ""
  give = f" <small>± {escape(form(spread))}</small>" if spread else ""
  return f'<td{mark} title="{value}">{escape(form(value))}{give}</td>'


def _settings(results: Mapping) -> str:
  """Every sampling setting that was measured, folded away."""
  entries = [
    (f, entry)
    for f in families(results)
    for entry in f.row.get("sampling") or []
  ]
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
