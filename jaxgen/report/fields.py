"""What a report holds: metrics and the axes that they judge, rows, rounds.

Any field may be missing or None: `complete` puts an empty one there.
"""

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
  "accuracy": Metric(
    "Accuracy", QUALITY, 1, "share of samples that a classifier of real data takes for their class"
  ),
  "is": Metric(
    "IS", QUALITY, 1, "inception score: sure of each sample's class, unsure of all of them together"
  ),
  "mis": Metric(
    "mIS", DIVERSITY, 1, "modified inception score: how samples of one class differ from each other"
  ),
  "am": Metric(
    "AM", QUALITY, -1, "AM score: classes as often as in real data, each sample's for sure"
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
  "ndb": Metric(
    "NDB/K",
    DIVERSITY,
    -1,
    "share of clusters of real data that samples fill too much or too little",
  ),
  "kl": Metric("KL", DIVERSITY, -1, "KL divergence of the samples' modes from uniform, in nats"),
}

# The metrics that judge an axis, in order of preference, and the relative
# difference below which models without intervals are level: noise of sampling
# or timing. Where modes are known, samples near them say more than moments do.
AXES = {
  QUALITY: (("high_quality", "frechet", "kid", "cas"), 0.02),
  DIVERSITY: (("coverage", "modes", "recall"), 0.01),
}
SPEED_MARGIN = 0.1
RATE = "samples_per_second"
# The relative change by which a score without intervals has moved: more than
# level models differ, for two judgements have the noise of both.
MOVED = 0.05

# What a report may lack, or hold as None, with what stands for it.
REPORT = {"dataset": "this data", "real": {}, "counts": {}, "judge": {}, "rows": []}
REPORT |= {"budget": {}, "survey": [], "baseline": {}, "noun": "images"}
LISTS = dict.fromkeys(("sampling", "warnings", "commands", "rounds", "next", "clips"), [])
SCORES = dict.fromkeys(("metrics", "spread", "intervals"), {})
ROW = (
  SCORES | dict.fromkeys(("settings", "curves", "copies", "codec"), {}) | LISTS | {"stopped": ""}
)
ENTRY = SCORES | {"knobs": {}}


def complete(results: Mapping[str, Any]) -> dict[str, Any]:
  """A report with an empty value for each group of fields that it lacks."""

  def fill(fields, defaults):
    return {**fields, **{k: fields.get(k) or default for k, default in defaults.items()}}

  report = fill(results, REPORT)
  report["real"] = fill(report["real"], {"metrics": {}, "clips": []})
  report["baseline"] = fill(report["baseline"], SCORES)
  report["rows"] = [fill(row, ROW) for row in report["rows"]]
  for row in report["rows"]:
    row["sampling"] = [fill(entry, ENTRY) for entry in row["sampling"]]
    row["rounds"] = [fill(entry, SCORES) for entry in row["rounds"] if is_finite(share(entry))]
    row["rounds"].sort(key=share)
  return report


def baseline(results: Mapping) -> str:
  """What the simplest model is called, which others have to beat."""
  return "a Gaussian of spectrograms" if results["noun"] == "clips" else "a Gaussian of pixels"


def share(entry: Mapping) -> float | None:
  """The share of its budget that a round stands on, in (0, 1]."""
  return entry.get("share")


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


class Score(NamedTuple):
  """A number and its 95% interval, which is None where it is not known."""

  mean: float
  low: float | None = None
  high: float | None = None

  def __str__(self) -> str:
    """1.93 (1.80 to 2.06)."""
    mean = short(self.mean)
    return mean if self.low is None else f"{mean} ({short(self.low)} to {short(self.high)})"


def score(scores: Mapping, key: str) -> Score | None:
  """A metric of a row or of a round; None where it was not measured."""
  mean = scores["metrics"].get(key)
  return with_interval(mean, scores["intervals"].get(key)) if is_finite(mean) else None


def with_interval(mean: float, interval: Sequence[float] | None) -> Score:
  """A number and the interval [low, high] that a report may have for it."""
  low, high = interval or (None, None)
  if not (is_finite(low) and is_finite(high) and low <= high):
    return Score(mean)
  return Score(mean, low, high)


def rate_score(row: Mapping) -> Score | None:
  """Samples a second at the settings that a row was judged with."""
  rate = speed(chosen(row))
  return None if rate is None else with_interval(rate, row["intervals"].get(RATE))


def is_level(a: Score, b: Score, margin: float) -> bool:
  """Whether two numbers may be the same: do their intervals overlap?

  Where one has no interval: do they differ by no more than a relative margin
  of the first?
  """
  if a.low is None or b.low is None:
    return abs(a.mean - b.mean) <= margin * abs(a.mean)
  return a.low <= b.high and b.low <= a.high


def short(value: float) -> str:
  """Three significant digits, thousands apart: 3.00, 41.2, 61,200."""
  if abs(value) >= 1000:
    return f"{float(f'{value:.3g}'):,.0f}"
  return f"{value:#.3g}".removesuffix(".") if value else "0"


def tally(value: float) -> str:
  """A count, or a mean of counts: 20, 19.3."""
  return f"{value:,.0f}" if float(value).is_integer() else short(value)


def percent(part: float) -> str:
  """0.0625 -> 6.25%."""
  return f"{100 * part:.3g}%"


def listed(words: Sequence[str], comma: str = " ") -> str:
  """a; a and b; a, b and c."""
  if len(words) < 2:
    return "".join(words)
  return f"{', '.join(words[:-1])}{comma}and {words[-1]}"


def either(words: Sequence[str]) -> str:
  """a; a or b; a, b or c."""
  return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
