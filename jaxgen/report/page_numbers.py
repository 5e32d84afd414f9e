"""The section of numbers: quality, diversity, speed and cost, in tables."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

from jaxgen.monitor import table
from jaxgen.monitor.progress import duration
from jaxgen.report import charts, fields
from jaxgen.report.charts import escape
from jaxgen.report.page_parts import Model, section, setting

DASH = "–"
ARROWS = {1: "↑", -1: "↓", 0: ""}
COST = "Cost"
WIDEST = 8  # columns of a table that is seen whole on a screen of 1,100 pixels


def number(value: float) -> str:
  """Integers as they are, shares to three decimals, else three digits."""
  if isinstance(value, Integral):
    return f"{value:,}"
  if 0.001 <= abs(value) < 1:
    return f"{value:.3f}"
  return fields.short(value)


class Column(NamedTuple):
  """A column of a table: its head, and a value for each row (None: a dash)."""

  title: str
  better: int  # +1 more, -1 less, 0 no direction
  values: Sequence[Any]
  form: Callable[[float], str] = number
  group: str = ""
  features: str = ""
  real: float | None = None
  baseline: float | None = None
  scores: Sequence[fields.Score | None] = ()  # the values with their intervals
  spreads: Sequence[float | None] = ()  # standard deviations of the values
  notes: Sequence[str] = ()  # in small letters beside the values

  def has_values(self) -> bool:
    """Whether it was measured of anything."""
    return self.real is not None or any(v is not None for v in self.values)

  def is_best(self, i: int) -> bool:
    """Whether row i has the best value, or one that may be as good, and others have not."""
    finite = [self.better * v for v in self.values if fields.is_finite(v)]
    value = self.values[i]
    if not self.better or not fields.is_finite(value) or len(set(finite)) < 2:
      return False
    best = self.values.index(self.better * max(finite))
    if self.scores and self.scores[i] and self.scores[best]:
      return fields.is_level(self.scores[best], self.scores[i], 0)
    return value == self.values[best]

  def note(self, i: int) -> str:
    """The interval of row i's value, else its standard deviation or its note; or ""."""
    if self.scores and self.scores[i] and self.scores[i].low is not None:
      return f"{self.form(self.scores[i].low)} – {self.form(self.scores[i].high)}"
    spread = self.spreads[i] if self.spreads else None
    return f"± {self.form(spread)}" if spread else self.notes[i] if self.notes else ""


def _metric_column(results: Mapping, key: str, metrics: Sequence[Mapping], **more) -> Column:
  """One metric of several {metric: value}."""
  metric, (_, features) = fields.describe(key), fields.split(key)
  if features == results.get("features"):
    features = ""  # the page says once what they are
  values = [m.get(key) for m in metrics]
  if fields.split(key)[0] == "modes":
    more["form"] = fields.tally
  return Column(metric.label, metric.better, values, group=metric.group, features=features, **more)


def metric_columns(results: Mapping) -> list[Column]:
  """A column for every metric that was measured, in the order of METRICS."""
  real, rows = results["real"]["metrics"], results["rows"]
  order = list(fields.METRICS)

  def rank(key):
    name, features = fields.split(key)
    place = order.index(name) if name in order else len(order)
    return place, features != results.get("features"), key

  metrics = [row["metrics"] for row in rows]
  return [
    _metric_column(
      results,
      key,
      metrics,
      real=real.get(key),
      baseline=results["baseline"]["metrics"].get(key),
      scores=[fields.score(row, key) for row in rows],
      spreads=[row["spread"].get(key) for row in rows],
    )
    for key in sorted({k for m in [real, *metrics] for k in m}, key=rank)
  ]


def _speed_columns(entries: Sequence[Mapping]) -> list[Column]:
  rates = [fields.speed(e) for e in entries]
  return [
    Column("Samples / s", 1, rates, group=fields.SPEED),
    Column("s / 1,000", -1, [1000 / r if r else None for r in rates], group=fields.SPEED),
    Column("Evaluations", -1, [e.get("nfe") for e in entries], group=fields.SPEED),
  ]


def _cost_columns(rows: Sequence[Mapping]) -> list[Column]:
  rounds = [row["rounds"] for row in rows]
  flops = [{"flops": own[-1].get("flops")} if own else {} for own in rounds]
  return (
    [
      _paid_column("Training time", -1, "train_seconds", duration, rows),
      _paid_column("Examples seen", 0, "train_images", charts.short, rows),
    ]
    + [
      Column(title, better, [row.get(key) for row in rows], form, COST)
      for title, better, key, form in (
        ("Steps", 0, "step", number),
        ("Parameters", -1, "params", number),
        ("Peak memory", -1, "peak_memory", table.size),
      )
    ]
    + [
      _paid_column(
        "FLOPs", -1, "flops", flops_text, [r | f for r, f in zip(rows, flops, strict=True)]
      )
    ]
  )


def _paid_column(
  title: str, better: int, key: str, form: Callable[[float], str], rows: Sequence[Mapping]
) -> Column:
  """What a model and its codec cost together.

  Where the codec's part is unknown, what is shown is text: it is in no order.
  """
  values, notes = [], []
  for row in rows:
    value, part, note = row.get(key), row["codec"].get(key), ""
    if fields.is_finite(part):
      note = f"of which codec {form(part)}"
    elif row["codec"] and fields.is_finite(value):
      value, note = form(value), "and its codec: cost unknown"
    values.append(value)
    notes.append(note)
  return Column(title, better, values, form, COST, notes=notes)


def flops_text(value: float) -> str:
  return table.si(value, "FLOP")


def number_tables(results: Mapping, models: Sequence[Model]) -> str:
  """Quality, diversity and speed above, cost below, all settings folded."""
  columns = metric_columns(results) + _speed_columns([m.entry for m in models])
  bits = [m.row.get("bits_per_dim") for m in models]
  columns.append(Column("Bits / dim", -1, bits, group=fields.OTHER))
  groups = (fields.QUALITY, fields.DIVERSITY, fields.SPEED, fields.OTHER)
  columns.sort(key=lambda c: groups.index(c.group))
  notes = [f"{m.title}<small>{escape(setting(m.entry))}</small>" for m in models]
  seeds = results["counts"].get("seeds") or 1
  of = (
    f"Of {seeds} trainings with different seeds: means"
    if seeds > 1
    else "Of one training each: means over sets of samples"
  )
  base = fields.baseline(results)
  beaten = f", {base} what has to be beaten" if results["baseline"]["metrics"] else ""
  small = "95% intervals" if any(m.row["intervals"] for m in models) else "standard deviations"
  return section(
    "Quality, diversity, speed, cost",
    "↑ more is better, ↓ less is better. The best of each column is marked, and what may be as "
    f"good; real data, scored like a model, show what can be reached{beaten}. "
    f"{of}, with {small}.",
    (
      *_tables(columns, notes, base),
      columns_table(_cost_columns(results["rows"]), [m.title for m in models]),
      _settings(results, models),
    ),
  )


def _tables(columns: Sequence[Column], titles: Sequence[str], base: str) -> list[str]:
  """The columns in one table, or in two where one would be too wide for a screen."""
  columns = [c for c in columns if c.has_values()]
  scores = [c for c in columns if c.group in (fields.QUALITY, fields.DIVERSITY)]
  if len(columns) <= WIDEST or not scores:
    return [columns_table(columns, titles, True, base)]
  rest = [c for c in columns if c not in scores]
  return [
    columns_table(scores, titles, True, base),
    columns_table(rest, titles, any(c.real is not None for c in rest), base),
  ]


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
  return f"<details>{summary}{columns_table(columns, titles)}</details>"


def columns_table(
  columns: Sequence[Column], titles: Sequence[str], real: bool = False, base: str = ""
) -> str:
  """Columns side by side; grouped ones have their best value marked.

  Args:
    columns: Those without any value are left out.
    titles: HTML at the beginning of each row.
    real: Whether real data come first, as a row of their own.
    base: What the row of the baseline is called.
  """
  columns = [c for c in columns if c.has_values()]
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
  if any(c.baseline is not None for c in columns):
    cells = "".join(_cell(c.baseline, c.form) for c in columns)
    title = f'<span class="swatch"></span>{escape(base.removeprefix("a "))}'
    body.append(f'<tr class="real"><th>{title}</th>{cells}</tr>')
  for i, title in enumerate(titles):
    cells = "".join(
      _cell(c.values[i], c.form, c.group and c.is_best(i), c.note(i)) for c in columns
    )
    body.append(f"<tr><th>{title}</th>{cells}</tr>")
  rows = f"<thead>{head}</thead><tbody>{''.join(body)}</tbody>"
  return f'<div class="scroll"><table>{rows}</table></div>'


def _head(column: Column) -> str:
  small = f"<small>{escape(column.features)}</small>" if column.features else ""
  return f"<th>{escape(column.title)} {ARROWS[column.better]}{small}</th>"


def _cell(value, form: Callable[[float], str], best=False, note: str = "") -> str:
  if value is None:
    return f'<td class="none">{DASH}</td>'
  small = f" <small>{escape(note)}</small>" if note else ""
  if not fields.is_finite(value):
    return f"<td>{escape(value)}{small}</td>"
  mark = ' class="best"' if best else ""
  return f'<td{mark} title="{value}">{escape(form(value))}{small}</td>'
