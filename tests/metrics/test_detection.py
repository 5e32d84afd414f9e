"""AUROC and AUPR against scikit-learn, intervals against their coverage."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics

from jaxgen.metrics import detection


def example(seed, n=60, ties=False, apart=1.0):
  rng = np.random.default_rng(seed)
  anomalous = rng.random(n) < 0.3
  scores = rng.normal(size=n) + apart * anomalous
  return (np.round(scores) if ties else scores), anomalous


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_areas_are_those_of_sklearn(seed, ties):
  scores, anomalous = example(seed, ties=ties)
  ours = detection.roc_auc(scores, anomalous), detection.average_precision(scores, anomalous)
  theirs = (
    metrics.roc_auc_score(anomalous, scores),
    metrics.average_precision_score(anomalous, scores),
  )
  np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_curves_are_those_of_sklearn():
  scores, anomalous = example(9, ties=True)
  false, true, _ = metrics.roc_curve(anomalous, scores, drop_intermediate=False)
  np.testing.assert_allclose(detection.roc(scores, anomalous), (false, true))
  precision, recall, thresholds = metrics.precision_recall_curve(anomalous, scores)
  ours = detection.precision_recall(scores, anomalous)
  for a, b in zip(ours, (thresholds, precision[:-1], recall[:-1]), strict=True):
    np.testing.assert_allclose(a, b[::-1])


def test_delong_by_hand():
  # Of two by two with one pair wrong: components (1, 1/2) and (1/2, 1).
  rate = detection.auc_interval(
    np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False])
  )
  error = np.sqrt(0.125 / 2 + 0.125 / 2)
  low = 1 / (1 + np.exp(-(np.log(3) - 1.959963985 * error / (0.75 * 0.25))))
  assert rate.value == 0.75 and abs(rate.low - low) < 1e-9


@pytest.mark.parametrize("kind", ["auc", "precision", "pixels"])
def test_intervals_hold_the_truth_as_often_as_they_say(kind):
  apart, held, trials = 1.2, 0, 100 if kind == "pixels" else 200
  if kind == "precision":  # (its truth is that of a large sample)
    truth = detection.average_precision(*example(1000, 400_000, apart=apart))
  else:
    truth = norm.cdf(apart / np.sqrt(2))
  for seed in range(trials):
    scores, anomalous = example(seed, 150, apart=apart)
    if kind == "auc":
      rate = detection.auc_interval(scores, anomalous)
    elif kind == "precision":
      rate = detection.precision_interval(scores, anomalous)
    else:  # five pixels an image
      rate = detection.pixel_auc(
        scores.reshape(30, 5, 1), anomalous.reshape(30, 5, 1), draws=60, seed=seed
      )
    held += rate.low <= truth <= rate.high
  assert 0.90 <= held / trials <= 0.99


def test_a_perfect_order_is_not_certain():
  rate = detection.auc_interval(np.arange(10.0), np.arange(10) >= 6)
  assert rate.value == rate.high == 1 and rate.low == pytest.approx(0.025 ** (1 / 4))
  assert detection.precision_interval(np.arange(10.0), np.arange(10) >= 6) == rate
  rate = detection.auc_interval(-np.arange(10.0), np.arange(10) >= 6)
  assert rate.value == rate.low == 0 and rate.high == pytest.approx(1 - 0.025 ** (1 / 4))


def test_pixels_are_pooled_and_ranked():
  rng = np.random.default_rng(0)
  masks = rng.random((6, 40, 40)) < 0.2
  maps = rng.normal(size=masks.shape) + masks
  rate = detection.pixel_auc(maps, masks, draws=20)
  exact = detection.roc_auc(maps.ravel(), masks.ravel())
  assert rate.low < rate.value < rate.high and abs(rate.value - exact) < 1e-5
  few = np.round(maps)  # so few values are not ranked: it is exact
  exact = detection.roc_auc(few.ravel(), masks.ravel())
  assert detection.pixel_auc(few, masks, draws=2).value == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize(
  "scores, anomalous, says",
  [
    ([1.0, 2.0], [True, True], "both normal and anomalous"),
    ([1.0, np.nan], [True, False], "not finite"),
    ([1.0], [True, False], r"\(1,\) and labels \(2,\)"),
  ],
)
def test_nothing_to_tell(scores, anomalous, says):
  with pytest.raises(ValueError, match=says):
    detection.roc_auc(np.array(scores), np.array(anomalous))
