"""The sections of training: quality against time, who led, what went wrong."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from jaxgen.report import charts, diagnosis, fields
from jaxgen.report.charts import escape
from jaxgen.report.page_parts import Model, chart, cost_of, legend, section, side_by_side
from jaxgen.report.ranking import leads


def progress(results: Mapping, models: Sequence[Model]) -> str:
  """Quality and diversity against what training took, and who led when."""
  kind = results["budget"].get("kind")
  field, label = cost_of(results, kind)
  pairs = []
  for axis in (fields.QUALITY, fields.DIVERSITY):
    key = fields.deciding_metric(results, axis)
    if key is None:
      continue
    bands = [charts.Band(m.name, m.colour, _band(m.row["rounds"], key, field)) for m in models]
    pairs.append(chart(charts.progress, results, key, bands, label))
  with_rounds = [m for m in models if m.row["rounds"]]
  is_short = all(len(m.name) <= charts.LONG for m in with_rounds)
  names = "" if is_short else legend(with_rounds)  # else they stand beside the curves
  note = (
    "Models trained by turns with equal budgets, judged after each round; bands are 95% "
    "intervals. Where bands overlap, nobody leads."
  )
  return section(
    "Quality against training" if kind in ("flop", "img") else "Quality against training time",
    note,
    [side_by_side(pairs, names), _leads(results, models)],
  )


def _band(rounds: Sequence[Mapping], key: str, field: str) -> list[tuple]:
  """A metric over rounds: (cost, mean, low, high)."""
  pairs = [(r.get(field), fields.score(r, key)) for r in rounds]
  return [(x, *s) for x, s in pairs if s and fields.is_finite(x)]


def _leads(results: Mapping, models: Sequence[Model]) -> str:
  """A strip of rounds: who led in quality after each."""
  rounds = leads(results)
  if len(rounds) < 2:
    return ""
  colours = {m.name: m.colour for m in models}
  cells = []
  for winners, group in itertools.groupby(rounds, key=lambda r: frozenset(r.winners)):
    group = list(group)
    names = group[-1].winners
    marks = "".join(f'<i style="background: var(--c{colours[name]})"></i>' for name in names)
    span = " to ".join(dict.fromkeys(fields.percent(r.share) for r in (group[0], group[-1])))
    close = "<small>too close to call</small>" if len(winners) > 1 else ""
    cells.append(
      f'<div style="flex: {len(group)}"><div class="marks">{marks}</div><small>{span}</small>'
      f"<b>{escape(fields.either(names))}</b>{close}</div>"
    )
  title = "<h3>Who leads in quality, by share of the budget</h3>"
  return f'<div class="card family">{title}<div class="leads">{"".join(cells)}</div></div>'


def troubles(results: Mapping, models: Sequence[Model]) -> str:
  """What went wrong in training, with the curves that show it."""
  cards, has_rounds = [], False
  for m in models:
    findings = diagnosis.diagnose(m.row, results)
    has_rounds = has_rounds or bool(m.row["rounds"])
    plots = _curves(m, findings, results["noun"])
    words = "".join(map(_finding, findings))
    if m.row["rounds"] and not any(f.is_wrong for f in findings):
      words = (
        f'<p class="finding fine"><b>Nothing went wrong</b> that these numbers show.</p>{words}'
      )
    if plots or words:
      cards.append(f'<div class="card family"><h3>{m.title}</h3>{words}{plots}</div>')
  note = (
    "Losses of different families do not compare; their shapes tell whether training went well."
  )
  return section("What went wrong" if has_rounds else "Training", note, cards)


def _curves(m: Model, findings: Sequence[diagnosis.Finding], noun: str) -> str:
  """Charts of what was found and of losses; the rest is folded if that is much."""
  health = m.row["curves"].get("health") or {}
  metrics, shown = {}, {}
  for f in findings:
    (metrics if f.is_metric else shown).update(f.curve)
  plots = [charts.lines(f"{k} by {noun} seen", {k: v}, m.colour) for k, v in metrics.items()]
  plots += [charts.lines("Loss", m.row["curves"].get("loss") or {}, m.colour)]
  if not m.row["rounds"]:
    shown = health
  rest = []
  for key, values in health.items():
    (plots if key in shown else rest).append(charts.lines(key, {key: values}, m.colour))
  more = _plots(rest)
  more = f"<details><summary>More curves</summary>{more}</details>" if more else ""
  return _plots(plots) + more


def _plots(svgs: Iterable[str]) -> str:
  plots = "".join(f"<div>{svg}</div>" for svg in svgs if svg)
  return f'<div class="charts">{plots}</div>' if plots else ""


def _finding(finding: diagnosis.Finding) -> str:
  looks = "finding wrong" if finding.is_wrong else "finding"
  return f'<p class="{looks}"><b>{escape(finding.kind)}.</b> {escape(finding.text)}</p>'
