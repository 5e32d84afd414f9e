"""The Pareto front of what is good, diverse and fast: what nothing beats, and its corner.

A point is a model at one setting, {"model", "sampler", "knobs", "nfe", "scores"};
scores are {metric: {"mean", "low", "high"}}, speed among them. Axes say which
metric judges what. One point beats another where it is as good on every axis,
and better on one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxgen.report import fields
from jaxgen.report.fields import DIVERSITY, QUALITY, RATE, SPEED

SPEEDS = {  # key: what it is called, and whether more of it is better
  RATE: ("samples a second", 1),
  "latency": ("seconds for one sample", -1),
  "nfe": ("network evaluations", -1),
}
# A point is near the best of an axis within these: a distance so many times as
# large, a share so large a part of it, so many times as slow.
DISTANCE, SHARE, SLOWER = 1.5, 0.9, 10.0
OF_REAL = 0.5  # the least part of real data's share with which a model comes near them
WORDS = {QUALITY: "good", DIVERSITY: "diverse", SPEED: "fast"}


class Axis(NamedTuple):
  """What judges one corner of the trilemma."""

  title: str  # QUALITY, DIVERSITY or SPEED
  key: str  # of scores
  better: int  # +1: more is better, -1: less

  @property
  def label(self) -> str:
    """The metric for readers."""
    return SPEEDS[self.key][0] if self.title == SPEED else fields.describe(self.key).label

  def value(self, point: Mapping) -> float:
    """NaN where it was not measured."""
    return value_of(point, self.key)

  def has(self, point: Mapping) -> bool:
    """Whether it was measured."""
    return math.isfinite(self.value(point))

  def best(self, points: Sequence[Mapping]) -> float:
    """The best value of all; NaN where none was measured."""
    values = [v for p in points if math.isfinite(v := self.value(p))]
    return max(values, key=lambda v: self.better * v, default=math.nan)

  def limit(self, points: Sequence[Mapping]) -> float:
    """The value that is still near the best."""
    best = self.best(points)
    if self.title == SPEED:
      return best * SLOWER**-self.better
    return SHARE * best if self.better > 0 else best + (DISTANCE - 1) * abs(best)

  def behind(self, point: Mapping, points: Sequence[Mapping]) -> float:
    """How far from the best: 0 at the best, 1 at the limit, more beyond."""
    ends = self.best(points), self.limit(points), self.value(point)
    best, limit, own = (math.log(v) for v in ends) if self.title == SPEED else ends
    return 0.0 if own == best else abs(own - best) / max(abs(limit - best), 1e-12)


def far_from_real(points: Sequence[Mapping], axis: Axis, real: float | None) -> bool:
  """Whether even the best of an axis is far from what real test data score.

  A distance more than DISTANCE times theirs, a share less than OF_REAL of theirs.
  """
  best = axis.best(points)
  if axis.title == SPEED or not fields.is_finite(real) or not math.isfinite(best):
    return False
  return best < OF_REAL * real if axis.better > 0 else best > DISTANCE * real


def near(point: Mapping, points: Sequence[Mapping], axis: Axis) -> bool:
  """Whether a point is near the best of an axis."""
  return axis.better * axis.value(point) >= axis.better * axis.limit(points)


def value_of(point: Mapping, key: str) -> float:
  """A score's mean; NaN where it was not measured."""
  mean = point["scores"].get(key, {}).get("mean")
  return mean if fields.is_finite(mean) else math.nan


def axes_of(
  points: Sequence[Mapping], features: str, chosen: Sequence[str] = (), speed: str = RATE
) -> list[Axis]:
  """The metrics that judge: those chosen, else the first that points have.

  Args:
    points: Of all models.
    features: Of the judge, whose metrics come first.
    chosen: Keys of metrics; the first of an axis counts.
    speed: One of SPEEDS.
  """
  rows = [{"metrics": {k: s["mean"] for k, s in p["scores"].items()}} for p in points]
  axes = []
  for title in (QUALITY, DIVERSITY):
    own = [k for k in chosen if fields.describe(k).group == title]
    key = (own or [fields.deciding_metric({"rows": rows, "features": features}, title)])[0]
    if key is not None:
      axes.append(Axis(title, key, fields.describe(key).better))
  return [*axes, Axis(SPEED, speed, SPEEDS[speed][1])]


def heights(point: Mapping, axes: Sequence[Axis]) -> tuple[float, ...]:
  """A point's place on each axis, more of it always better."""
  return tuple(a.better * a.value(point) for a in axes)


def beats(a: Sequence[float], b: Sequence[float]) -> bool:
  """Whether heights `a` are nowhere below `b`, and somewhere above."""
  return all(x >= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def front(places: Sequence[Sequence[float]]) -> list[bool]:
  """Which heights nothing beats; what was not measured everywhere is not on it."""
  finite = [i for i, place in enumerate(places) if all(map(math.isfinite, place))]
  order = sorted(finite, key=lambda i: tuple(places[i]), reverse=True)
  kept: list[int] = []
  for i in order:  # what beats it came before, and is on the front or beaten by that
    if not any(beats(places[k], places[i]) for k in kept):
      kept.append(i)
  return [i in set(kept) for i in range(len(places))]
