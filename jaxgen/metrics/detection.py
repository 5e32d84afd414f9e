"""How well scores tell anomalous examples from normal ones.

A score is higher for what is stranger. `roc_auc` is the share of pairs of an
anomalous and a normal example that are ranked rightly, ties counting a half;
`average_precision` the area under precision against recall, by steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import beta, norm, rankdata

Array = np.ndarray
BINS = 4096  # of pixels' scores, when there are more values than that


class Rate(NamedTuple):
  """A number in [0, 1] and where it lies."""

  value: float
  low: float
  high: float


def roc_auc(scores: Array, anomalous: Array) -> float:
  """Area under the ROC curve: Mann and Whitney's U over the number of pairs.

  Args:
    scores: [N], finite.
    anomalous: bool [N]; some are, and some are not.
  """
  scores, anomalous = _checked(scores, anomalous)
  m, n = np.count_nonzero(anomalous), np.count_nonzero(~anomalous)
  ranks = rankdata(scores)
  return float((ranks[anomalous].sum() - m * (m + 1) / 2) / (m * n))


def average_precision(scores: Array, anomalous: Array) -> float:
  """Sum over thresholds of precision times the gain in recall.

  What ties has one threshold. An order by chance has the share of anomalies.
  """
  _, precision, recall = precision_recall(scores, anomalous)
  return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def precision_recall(scores: Array, anomalous: Array) -> tuple[Array, Array, Array]:
  """Thresholds, falling, and of `score >= threshold` precision and recall, [K] each."""
  thresholds, true, false = _counts(*_checked(scores, anomalous))
  return thresholds, true / (true + false), true / true[-1]


def roc(scores: Array, anomalous: Array) -> tuple[Array, Array]:
  """False and true positive rates from (0, 0) to (1, 1), [K + 1] each."""
  _, true, false = _counts(*_checked(scores, anomalous))
  return tuple(np.concatenate([[0.0], a / a[-1]]) for a in (false, true))


def auc_interval(scores: Array, anomalous: Array, level: float = 0.95) -> Rate:
  """`roc_auc` with DeLong's interval (DeLong et al. 1988), on the logit's scale.

  By midranks (Sun & Xu 2014). Where no pair is ranked wrongly DeLong's variance
  is none: the end is then Clopper and Pearson's, of as many trials without a
  failure as the smaller class has examples.
  """
  scores, anomalous = _checked(scores, anomalous)
  strange, usual = scores[anomalous], scores[~anomalous]
  m, n = len(strange), len(usual)
  value = roc_auc(scores, anomalous)
  if value in (0.0, 1.0):
    end = float(beta.ppf((1 - level) / 2, min(m, n), 1))
    return Rate(value, end, 1.0) if value else Rate(value, 0.0, 1 - end)
  ranks = rankdata(np.concatenate([strange, usual]))
  # Of each example the share of the other class that it is on the right side of.
  of_strange = (ranks[:m] - rankdata(strange)) / n
  of_usual = 1 - (ranks[m:] - rankdata(usual)) / m
  spread = lambda v: np.var(v, ddof=1) / len(v) if len(v) > 1 else 0.25
  error = np.sqrt(spread(of_strange) + spread(of_usual))
  return _around(value, error / (value * (1 - value)), level)


def precision_interval(scores: Array, anomalous: Array, level: float = 0.95) -> Rate:
  """`average_precision` with its logit interval (Boyd et al. 2013, Eq. 5).

  As of a rate among as many trials as there are anomalies. Percentiles of a
  bootstrap hold the truth less often than they say.
  """
  scores, anomalous = _checked(scores, anomalous)
  value, n = average_precision(scores, anomalous), int(anomalous.sum())
  if value >= 1 - 1e-12:
    return Rate(1.0, float(beta.ppf((1 - level) / 2, n, 1)), 1.0)
  return _around(value, (n * value * (1 - value)) ** -0.5, level)


def pixel_auc(
  maps: Array, masks: Array, level: float = 0.95, draws: int = 300, seed: int = 0
) -> Rate:
  """`roc_auc` of all pixels together, with a bootstrap over images.

  Pixels of one image are not independent: images are what is drawn again.

  Args:
    maps: Scores [N, H, W]; more than BINS different ones are ranked first, and
      those of one of as many equal parts tie.
    masks: bool [N, H, W], where the anomalies are.
    level: Of the interval.
    draws: Of the bootstrap.
    seed: Of the draws.
  """
  flat, mask = np.reshape(maps, -1), np.reshape(masks, -1)
  _checked(flat, mask)
  values, place = np.unique(flat, return_inverse=True)
  if len(values) > BINS:
    ranks = rankdata(flat)
    place = np.minimum((ranks - 1) * BINS / len(flat), BINS - 1).astype(np.int64)
  bins, count = int(place.max()) + 1, len(maps)
  image = np.repeat(np.arange(count), len(flat) // count)
  index = (image * 2 + mask) * bins + place
  counts = np.bincount(index, minlength=count * 2 * bins).reshape(count, 2, bins)

  def area(usual: Array, strange: Array) -> float:
    below = np.cumsum(usual) - usual / 2
    pairs = float(usual.sum()) * float(strange.sum())
    return float(np.sum(strange * below) / pairs) if pairs else np.nan

  def again(rng: np.random.Generator) -> float:
    drawn = np.bincount(rng.integers(count, size=count), minlength=count)
    return area(*np.tensordot(drawn.astype(np.float64), counts, 1))

  return _bootstrap(area(*counts.sum(0)), again, level, draws, seed)


def _checked(scores: Array, anomalous: Array) -> tuple[Array, Array]:
  """Both as arrays; ValueError where nothing can be said."""
  scores, anomalous = np.asarray(scores, np.float64), np.asarray(anomalous, bool)
  if scores.ndim != 1 or scores.shape != anomalous.shape:
    raise ValueError(f"scores {scores.shape} and labels {anomalous.shape}: want [N] both.")
  if not np.isfinite(scores).all():
    raise ValueError("some scores are not finite.")
  if anomalous.all() or not anomalous.any():
    raise ValueError("all examples are of one kind: want both normal and anomalous ones.")
  return scores, anomalous


def _counts(scores: Array, anomalous: Array) -> tuple[Array, Array, Array]:
  """Thresholds, falling; how many of each kind are at or above: [K] each."""
  order = np.argsort(-scores, kind="stable")
  scores, anomalous = scores[order], anomalous[order]
  last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
  true = np.cumsum(anomalous)[last]
  return scores[last], true, last + 1 - true


def _around(value: float, error: float, level: float) -> Rate:
  """An interval on the logit's scale, of this standard error there."""
  half, logit = norm.ppf((1 + level) / 2) * error, np.log(value / (1 - value))
  low, high = (float(1 / (1 + np.exp(-(logit + side * half)))) for side in (-1, 1))
  return Rate(value, low, high)


def _bootstrap(
  value: float, again: Callable[[np.random.Generator], float], level: float, draws: int, seed: int
) -> Rate:
  """Percentiles of what the draws have for a value."""
  rng = np.random.default_rng(seed)
  ends = np.nanquantile([again(rng) for _ in range(draws)], [(1 - level) / 2, (1 + level) / 2])
  return Rate(value, *(float(v) for v in ends))
