"""The Inception score against its definition and its bounds."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxgen.metrics.inception_score import inception_score


def by_definition(p):
  """exp of the mean KL divergence, one image after the other."""
  marginal = p.mean(0)
  return np.exp(np.mean([scipy.stats.entropy(row, marginal) for row in p]))


def logits(n, classes, seed=0):
  return 3 * np.random.default_rng(seed).standard_normal((n, classes))


def test_even_splits_in_order_and_shuffled():
  x = logits(53, 7).astype(np.float32)
  p = scipy.special.softmax(x.astype(np.float64), 1)
  parts = [by_definition(p[i * 53 // 4 : (i + 1) * 53 // 4]) for i in range(4)]
  want = np.mean(parts), np.std(parts)
  np.testing.assert_allclose(inception_score(x, splits=4), want, rtol=1e-12)
  order = np.random.RandomState(2020).permutation(53)
  p = p[order]
  parts = [by_definition(p[i * 53 // 4 : (i + 1) * 53 // 4]) for i in range(4)]
  got = inception_score(x, splits=4, shuffle=2020)
  np.testing.assert_allclose(got, (np.mean(parts), np.std(parts)), rtol=1e-12)


def test_splits_of_a_size_count_alike():
  x = logits(25, 5, 1)
  p = scipy.special.softmax(x, 1)
  parts = [by_definition(p[a:b]) for a, b in ((0, 10), (10, 20), (20, 25))]
  got, _ = inception_score(x, size=10)
  np.testing.assert_allclose(got, np.mean(parts), rtol=1e-12)
  np.testing.assert_allclose(inception_score(x, size=5000)[0], by_definition(p), rtol=1e-12)


def test_bounds_are_met():
  sure = 800 * np.eye(6)[np.arange(60) % 6]  # and 0 log 0 = 0
  assert inception_score(sure, splits=1)[0] == pytest.approx(6, rel=1e-12)
  assert inception_score(0 * sure, splits=1)[0] == pytest.approx(1)
  assert inception_score(sure[:1].repeat(9, 0), size=9)[0] == pytest.approx(1)


def test_shifted_logits_are_the_same_classes():
  x = logits(40, 6, 2)
  np.testing.assert_allclose(inception_score(x + 700, splits=2), inception_score(x, splits=2))


def test_arguments_must_make_sense():
  with pytest.raises(ValueError, match="one of"):
    inception_score(logits(4, 3))
  with pytest.raises(ValueError, match="splits"):
    inception_score(logits(4, 3), splits=5)
