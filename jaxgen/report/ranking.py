"""Models by what was measured: who is best at what, and who may be as good."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxgen.report.fields import (
  AXES,
  DIVERSITY,
  QUALITY,
  RATE,
  SPEED,
  SPEED_MARGIN,
  Score,
  complete,
  deciding_metric,
  describe,
  is_level,
  labels,
  rate_score,
  score,
  share,
)

SHORT = "A short training"
EARLY = 0.25  # of the budget: what a short training is
KEYS = {"quality": QUALITY, "diversity": DIVERSITY, "speed": SPEED, "short_training": SHORT}


class Ranking(NamedTuple):
  """Models by one number, best first."""

  axis: str
  metric: str  # key
  scores: dict[str, Score]  # by label, best first
  winners: tuple[str, ...]  # the best and those that may be as good
  share: float | None = None  # of the budget, where it is not the newest round

  @property
  def close(self) -> bool:
    """Whether it is too close to call."""
    return len(self.winners) > 1


def rank(
  axis: str,
  metric: str,
  scores: Mapping[str, Score | None],
  better: int,
  margin: float,
  share: float | None = None,
) -> Ranking | None:
  """Orders models, and says who may be best; None where nothing was measured.

  Args:
    axis: Its title.
    metric: Key of what the numbers are.
    scores: By label.
    better: +1 where more is better, else -1.
    margin: Relative, for numbers without intervals: see `fields.is_level`.
    share: Of the budget that they stand on, for the result.
  """
  pairs = [(name, s) for name, s in scores.items() if s is not None]
  if not pairs:
    return None
  pairs.sort(key=lambda pair: -better * pair[1].mean)
  best = pairs[0][1]
  winners = tuple(name for name, s in pairs if is_level(best, s, margin))
  return Ranking(axis, metric, dict(pairs), winners, share)


def rankings(results: Mapping) -> dict[str, Ranking]:
  """Models in the order of each axis that was measured, by key of the axis."""
  results = complete(results)
  rows = results["rows"]
  names = labels(rows)
  order = {}
  for key, axis in list(KEYS.items())[:2]:
    if metric := deciding_metric(results, axis):
      scores = [score(row, metric) for row in rows]
      order[key] = rank(
        axis, metric, dict(zip(names, scores, strict=True)), describe(metric).better, AXES[axis][1]
      )
  rates = {name: rate_score(row) for name, row in zip(names, rows, strict=True)}
  order["speed"] = rank(SPEED, RATE, rates, 1, SPEED_MARGIN)
  early = [r for r in leads(results) if r.share < last_share(results)]
  if early:
    order["short_training"] = min(early, key=lambda r: abs(r.share - EARLY))._replace(axis=SHORT)
  return {key: ranking for key, ranking in order.items() if ranking}


def last_share(results: Mapping) -> float:
  """The share of the budget that the newest round stands on; 0 without any."""
  return max((share(r) for row in results["rows"] for r in row["rounds"]), default=0)


def leads(results: Mapping) -> list[Ranking]:
  """Who is best in quality, round by round, of the models that have the round."""
  results = complete(results)
  metric = deciding_metric(results, QUALITY)
  if metric is None:
    return []
  rows = dict(zip(labels(results["rows"]), results["rows"], strict=True))
  order = []
  for part in sorted({share(r) for row in rows.values() for r in row["rounds"]}):
    scores = {
      name: score(r, metric)
      for name, row in rows.items()
      for r in row["rounds"]
      if share(r) == part
    }
    margin = AXES[QUALITY][1]
    order.append(rank(QUALITY, metric, scores, describe(metric).better, margin, part))
  return [r for r in order if r]
