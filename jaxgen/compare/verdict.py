"""Which family to choose: what each metric means, and who is best at what."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple


class Metric(NamedTuple):
  """How a metric is shown. `better` is +1 where more is better, else -1."""

  label: str
  group: str
  better: int
  meaning: str


QUALITY, DIVERSITY, SPEED, OTHER = "Quality", "Diversity", "Speed", "Other"

METRICS = {
  "frechet": Metric(
    "Fréchet",
    QUALITY,
    -1,
    "distance between the Gaussians that fit real and generated features "
    "(FID, if the features are Inception's); sees quality and diversity at "
    "once. Falls with the number of samples: compare only equal counts",
  ),
  "kid": Metric(
    "KID", QUALITY, -1, "kernel distance of the same features, unbiased: may be slightly negative"
  ),
  "precision": Metric(
    "Precision", QUALITY, 1, "share of samples that lie among the real data (k = 3)"
  ),
  "density": Metric(
    "Density", QUALITY, 1, "how densely real data surround the samples (k = 5); 1 for real data"
  ),
  "cas": Metric(
    "CAS", QUALITY, 1, "accuracy on real data of a classifier that saw generated data only"
  ),
  "high_quality": Metric(
    "High quality",
    QUALITY,
    1,
    "share of samples near a mode: within 3 standard deviations, or recognised for sure",
  ),
  "recall": Metric("Recall", DIVERSITY, 1, "share of real data that lie among the samples (k = 3)"),
  "coverage": Metric(
    "Coverage", DIVERSITY, 1, "share of real data with a sample in their neighbourhood (k = 5)"
  ),
  "modes": Metric("Modes", DIVERSITY, 1, "modes of the data that at least one sample falls on"),
  "kl": Metric("KL", DIVERSITY, -1, "KL divergence of the samples' modes from uniform, in nats"),
}

# The metrics that judge an axis, in order of preference, and the relative
# difference below which models are level: noise of sampling or timing.
AXES = {
  QUALITY: (("frechet", "high_quality", "kid", "cas"), 0.02),
  DIVERSITY: (("coverage", "modes", "recall"), 0.01),
}
SPEED_MARGIN = 0.1

# What a report may lack, or hold as None, with what stands for it.
REPORT = {"dataset": "this data", "real": {}, "counts": {}, "judge": {}, "rows": []}
LISTS = dict.fromkeys(("sampling", "warnings", "commands"), [])
ROW = dict.fromkeys(("metrics", "spread", "settings", "curves"), {}) | LISTS
ENTRY = {"knobs": {}, "metrics": {}}


class Pick(NamedTuple):
  """The best of one axis: labels of rows that are level, and the evidence."""

  axis: str
  winners: tuple[str, ...]
  evidence: str


def complete(results: Mapping[str, Any]) -> dict[str, Any]:
  """A report with an empty value for each group of fields that it lacks."""

  def fill(fields, defaults):
    return {**fields, **{k: fields.get(k) or default for k, default in defaults.items()}}

  report = fill(results, REPORT)
  report["real"] = fill(report["real"], {"metrics": {}})
  report["rows"] = [fill(row, ROW) for row in report["rows"]]
  for row in report["rows"]:
    row["sampling"] = [fill(entry, ENTRY) for entry in row["sampling"]]
  return report


def is_finite(value: Any) -> bool:
  """Whether this is a number that can be compared."""
  return isinstance(value, Real) and math.isfinite(value)


def split(key: str) -> tuple[str, str]:
  """A metric's key "frechet@digits-cnn" -> its name and its features."""
  name, _, features = key.partition("@")
  return name, features


def describe(key: str) -> Metric:
  """The metric of a key; one that is unknown here is shown as it is."""
  name, _ = split(key)
  return METRICS.get(name, Metric(name, OTHER, 0, ""))


def labels(rows: Sequence[Mapping]) -> list[str]:
  """The family of each row, with the name where that is not unique."""
  families = [str(row.get("family") or row.get("name") or "?") for row in rows]
  return [
    family if families.count(family) == 1 else f"{family} ({row.get('name')})"
    for family, row in zip(families, rows, strict=True)
  ]


def judged_entry(row: Mapping) -> Mapping | None:
  """The entry of a row's `sampling` with the settings it was judged with."""
  for entry in row["sampling"]:
    knobs = entry["knobs"]
    if knobs and all(row["settings"].get(k) == v for k, v in knobs.items()):
      return entry
  return row["sampling"][0] if len(row["sampling"]) == 1 else None


def chosen(row: Mapping) -> Mapping:
  """The sampling settings behind a row's own metrics, with their speed.

  Speed and evaluations are the row's own where it has them, else those of the
  sweep's entry with the same settings: never those of other settings.
  """
  entry = judged_entry(row) or {"knobs": row["settings"], "metrics": {}}
  return {**entry, **{k: row[k] for k in ("samples_per_second", "nfe") if row.get(k) is not None}}


def speed(entry: Mapping) -> float | None:
  """Samples a second, None if not measured."""
  value = entry.get("samples_per_second")
  return value if is_finite(value) and value > 0 else None


def deciding_metric(results: Mapping, axis: str) -> str | None:
  """The metric's key that decides an axis: the first that any row has."""
  keys = {k: None for row in results["rows"] for k, v in row["metrics"].items() if is_finite(v)}
  own_first = sorted(keys, key=lambda k: split(k)[1] != results.get("features"))
  return next((k for name in AXES[axis][0] for k in own_first if split(k)[0] == name), None)


def picks(results: Mapping) -> list[Pick]:
  """The best for quality, diversity and speed, where they were measured."""
  results = complete(results)
  rows, best = results["rows"], []
  names = labels(rows)
  for axis, (_, margin) in AXES.items():
    key = deciding_metric(results, axis)
    if key is None:
      continue
    metric, real = describe(key), results["real"]["metrics"].get(key)
    values = [row["metrics"].get(key) for row in rows]
    winners, others = _rank(names, values, metric.better, margin)
    evidence = f"{metric.label} {short(winners[0][1])}"
    evidence += f"; real data {short(real)}" if is_finite(real) else ""
    evidence += f"; next {others[0][0]} {short(others[0][1])}" if others else ""
    best.append(Pick(axis, tuple(n for n, _ in winners), evidence))
  values = [speed(chosen(row)) for row in rows]
  if any(map(is_finite, values)):
    winners, others = _rank(names, values, 1, SPEED_MARGIN)
    evidence = f"{short(winners[0][1])} samples a second"
    if others:
      ratio = winners[0][1] / others[0][1]
      evidence += f"; {short(ratio)} times as fast as {others[0][0]}"
    best.append(Pick(SPEED, tuple(n for n, _ in winners), evidence))
  return best


def _rank(names, values, better: int, margin: float):
  """-> rows level with the best, and the others, each (name, value), sorted."""
  pairs = [(n, v) for n, v in zip(names, values, strict=True) if is_finite(v)]
  pairs.sort(key=lambda pair: -better * pair[1])
  best = pairs[0][1]
  level = [p for p in pairs if abs(p[1] - best) <= margin * abs(best)]
  return level, pairs[len(level) :]


def short(value: float) -> str:
  """Three significant digits, thousands apart."""
  if abs(value) >= 1000:
    return f"{float(f'{value:.3g}'):,.0f}"
  return f"{value:.3g}"


def sentence(results: Mapping) -> str:
  """The answer: which family to choose on this data, in one sentence."""
  results = complete(results)
  data, rows, best = results["dataset"], results["rows"], picks(results)
  if not best:
    return f"On {data}, no model has been measured yet."
  if len(rows) == 1:
    return f"On {data}, only {labels(rows)[0]} was measured: nothing to choose."
  by_winner: dict[tuple[str, ...], list[str]] = {}
  for pick in best:
    by_winner.setdefault(pick.winners, []).append(pick.axis.lower())
  parts = [f"{' or '.join(winners)} for {_and(axes)}" for winners, axes in by_winner.items()]
  return f"On {data}, choose {_and(parts, ', ')}."


def _and(words: Sequence[str], comma: str = " ") -> str:
  if len(words) < 2:
    return "".join(words)
  return f"{', '.join(words[:-1])}{comma}and {words[-1]}"
