"""AM, modified Inception scores and rates against definitions."""

import numpy as np
import pytest
import scipy.stats
from scipy.special import softmax

from jaxgen.metrics.am_score import am_score
from jaxgen.metrics.inception_score import inception_score, modified_score
from jaxgen.metrics.wilson import rate_interval


def logits(n, classes, seed=0):
  return (3 * np.random.default_rng(seed).standard_normal((n, classes))).astype(np.float32)


def test_am_is_divergence_and_entropy():
  x, real = logits(40, 6), logits(70, 6, 1) + np.arange(6, dtype=np.float32)
  p, q = softmax(x.astype(np.float64), 1), softmax(real.astype(np.float64), 1)
  want = scipy.stats.entropy(q.mean(0), p.mean(0)) + scipy.stats.entropy(p, axis=1).mean()
  assert am_score(x, real) == pytest.approx(want, rel=1e-9)


def test_am_of_sure_and_of_unsure_samples():
  sure = 1e3 * np.eye(4)
  assert am_score(sure, sure) == pytest.approx(0, abs=1e-9)
  assert am_score(np.zeros((9, 4)), sure) == pytest.approx(np.log(4))
  # Two of four classes: the sum has ln(1/4 / tiny), where nothing is found.
  assert am_score(sure[:2], sure) > 100
  with pytest.raises(ValueError, match="Logits"):
    am_score(np.zeros((0, 4)), sure)


def test_modified_scores_are_of_all_pairs():
  x = logits(30, 5)
  p = softmax(x.astype(np.float64), 1)
  want = np.exp(np.mean([[scipy.stats.entropy(a, b) for b in p] for a in p]))
  assert modified_score(x) == pytest.approx(want, rel=1e-9)
  assert modified_score(x) > inception_score(x, splits=1)[0]
  assert modified_score(np.tile(x[:1], (9, 1))) == pytest.approx(1)
  assert modified_score(1e4 * np.eye(3)) == np.inf


@pytest.mark.parametrize("k, n", [(0, 5), (3, 10), (991, 1000), (7, 7)])
def test_rates_lie_where_scipy_says(k, n):
  want = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
  assert rate_interval(k, n) == pytest.approx((want.low, want.high), abs=1e-12)


def test_rates_of_nothing_are_refused():
  with pytest.raises(ValueError, match="no rate"):
    rate_interval(0, 0)
