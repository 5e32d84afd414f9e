"""Which family to choose: what each metric means, and who is best at what."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import NamedTuple


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


class Pick(NamedTuple):
  """The best of one axis: labels of rows that are level, and the evidence."""

  axis: str
  winners: tuple[str, ...]
  evidence: str


# By what each axis is judged, in order of preference, and what is called
# level: below that, the difference is noise of sampling or timing.
AXES = {
  QUALITY: (("frechet", "high_quality", "kid", "cas"), 0.02),
  DIVERSITY: (("coverage", "modes", "recall"), 0.01),
}


def finite(value) -> bool:
  """Is this a number that can be compared?"""
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
  """What rows are called: their family, with the name if that is not unique."""
  families = [str(row.get("family") or row.get("name") or "?") for row in rows]
  return [
    family if families.count(family) == 1 else f"{family} ({row.get('name')})"
    for family, row in zip(families, rows, strict=True)
  ]


def judged(row: Mapping) -> Mapping | None:
  """The entry of a row's `sampling` with the settings it was judged with."""
  settings, sampling = row.get("settings") or {}, row.get("sampling") or []
  for entry in sampling:
    knobs = entry.get("knobs") or {}
    if knobs and all(settings.get(k) == v for k, v in knobs.items()):
      return entry
  return sampling[0] if len(sampling) == 1 else None


def chosen(row: Mapping) -> Mapping:
  """How the samples were drawn that a row's own metrics judge.

  Speed and evaluations are the row's own where it has them, else those of the
  sweep's entry with the same settings: never those of other settings.
  """
  entry = judged(row) or {"knobs": row.get("settings") or {}}
  own = ("samples_per_second", "nfe")
  return {**entry, **{k: row[k] for k in own if row.get(k) is not None}}


def speed(entry: Mapping) -> float | None:
  """Samples a second, None if not measured."""
  value = entry.get("samples_per_second")
  return value if finite(value) and value > 0 else None


def judged_by(results: Mapping, axis: str) -> str | None:
  """The metric's key that decides an axis: the first that any row has."""
  names, features = AXES[axis][0], results.get("features")
  keys = [
    key
    for row in results.get("rows") or []
    for key, value in (row.get("metrics") or {}).items()
    if finite(value)
  ]
  keys = sorted(dict.fromkeys(keys), key=lambda k: split(k)[1] != features)
  return next((k for n in names for k in keys if split(k)[0] == n), None)


def picks(results: Mapping) -> list[Pick]:
  """The best for quality, diversity and speed, where they were measured."""
  rows = results.get("rows") or []
  names, found = labels(rows), []
  for axis, (_, margin) in AXES.items():
    key = judged_by(results, axis)
    if key is None:
      continue
    values = [(row.get("metrics") or {}).get(key) for row in rows]
    real = ((results.get("real") or {}).get("metrics") or {}).get(key)
    metric = describe(key)
    winners, rest = _best(names, values, metric.better, margin)
    evidence = f"{metric.label} {short(winners[0][1])}"
    evidence += f"; real data {short(real)}" if finite(real) else ""
    evidence += f"; next {rest[0][0]} {short(rest[0][1])}" if rest else ""
    found.append(Pick(axis, tuple(n for n, _ in winners), evidence))
  values = [speed(chosen(row)) for row in rows]
  if any(map(finite, values)):
    winners, rest = _best(names, values, 1, 0.1)
    evidence = f"{short(winners[0][1])} samples a second"
    if rest:
      times = winners[0][1] / rest[0][1]
      evidence += f"; {short(times)} times as fast as {rest[0][0]}"
    found.append(Pick(SPEED, tuple(n for n, _ in winners), evidence))
  return found


def _best(names, values, better: int, margin: float):
  """-> rows level with the best, and the others, each (name, value), sorted."""
  pairs = [(n, v) for n, v in zip(names, values, strict=True) if finite(v)]
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
  data, rows = results.get("dataset") or "this data", results.get("rows") or []
  found = picks(results)
  if not found:
    return f"On {data}, no model has been measured yet."
  if len(rows) == 1:
    return f"On {data}, only {labels(rows)[0]} was measured: nothing to choose."
  by_winner: dict[tuple[str, ...], list[str]] = {}
  for pick in found:
    by_winner.setdefault(pick.winners, []).append(pick.axis.lower())
  parts = [f"{_either(winners)} for {_and(axes)}" for winners, axes in by_winner.items()]
  return f"On {data}, choose {_and(parts, ', ')}."


def _and(words: Sequence[str], comma: str = " ") -> str:
  if len(words) < 2:
    return "".join(words)
  return f"{', '.join(words[:-1])}{comma}and {words[-1]}"


def _either(words: Sequence[str]) -> str:
  return " or ".join(words)
