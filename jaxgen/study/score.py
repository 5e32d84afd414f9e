"""How often the fake was taken for the photograph, and how sure that is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from jaxgen.metrics.wilson import rate_interval

ENOUGH = 5  # visitors; of fewer, a bootstrap is far too sure


class Score(NamedTuple):
  """The result of a study so far.

  Attributes:
    trials: How many.
    fooled: In how many of them the fake was chosen.
    interval: 95% of the rate, as if trials were independent (Wilson).
    visitors: How many.
    clustered: 95% of the rate over visitors (bootstrap); None for too few.
    left: Share of trials in which the left image was chosen.
    ms: Median time to answer, milliseconds.
  """

  trials: int
  fooled: int
  interval: tuple[float, float]
  visitors: int
  clustered: tuple[float, float] | None
  left: float
  ms: float

  @property
  def rate(self) -> float:
    """The fool rate: 0.5 is what visitors who see no difference reach."""
    return self.fooled / self.trials


def bootstrap(
  k: Sequence[int], n: Sequence[int], level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
  """Interval of sum(k) / sum(n), visitors drawn with replacement.

  Percentiles (Efron 1979) of the ratio over whole visitors, whose own trials
  are not independent: one sees better than another.
  """
  k, n = np.asarray(k), np.asarray(n)
  rng = np.random.default_rng(seed)
  rates = []
  for part in np.array_split(np.arange(draws), max(1, draws * len(k) // 10**7)):
    i = rng.integers(len(k), size=(len(part), len(k)))
    rates.append(k[i].sum(1) / n[i].sum(1))
  low, high = np.quantile(np.concatenate(rates), [(1 - level) / 2, (1 + level) / 2])
  return float(low), float(high)


def score(rows: Sequence[Mapping[str, Any]]) -> Score | None:
  """The result of recorded choices; None without any."""
  if not rows:
    return None
  fooled = defaultdict(list)
  for row in rows:
    fooled[row["visitor"]].append(row["fooled"])
  k, n = [sum(of) for of in fooled.values()], [len(of) for of in fooled.values()]
  return Score(
    trials=sum(n),
    fooled=sum(k),
    interval=rate_interval(sum(k), sum(n)),
    visitors=len(n),
    clustered=bootstrap(k, n) if len(n) >= ENOUGH else None,
    left=sum(row["choice"] == "left" for row in rows) / len(rows),
    ms=median(row["ms"] for row in rows),
  )


def percent(x: float) -> str:
  """0.1234 -> "12.3%"."""
  return f"{100 * x:.1f}%"


def percents(interval: tuple[float, float]) -> str:
  """(0.1, 0.2) -> "10.0% to 20.0%"."""
  return " to ".join(map(percent, interval))


def summary(s: Score | None) -> str:
  """A score in lines for the terminal."""
  if s is None:
    return "no choices yet"
  lines = [
    f"fool rate {percent(s.rate)}: the fake was chosen in {s.fooled:,} of "
    f"{s.trials:,} trials (50%: nobody sees a difference)",
    f"95% interval {percents(s.interval)} (Wilson, trials independent)",
  ]
  if s.clustered:
    lines.append(f"95% interval {percents(s.clustered)} (bootstrap over {s.visitors} visitors)")
  elif s.visitors > 1:
    lines.append(
      f"trials of one visitor are not independent: with {ENOUGH} "
      "visitors or more there is an interval over visitors, too"
    )
  lines.append(
    f"left was chosen in {percent(s.left)}; median answer after "
    f"{s.ms / 1000:.1f} s; {s.visitors} visitor{'s' if s.visitors > 1 else ''}"
  )
  return "\n".join(lines)
