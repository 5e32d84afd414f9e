"""KID against its double sum, and how its subsets are drawn."""

import numpy as np
import pytest

from jaxgen.metrics.kid import kid, mmd2


def features(n, d, seed, dtype=np.float32):
  rng = np.random.default_rng(seed)
  mix = rng.standard_normal((d, d)) / np.sqrt(d)
  return (rng.standard_normal((n, d)) @ mix + rng.random(d)).astype(dtype)


def test_mmd2_is_the_double_sum():
  x, y = features(9, 4, 9, np.float64), features(7, 4, 10, np.float64)
  k = lambda a, b: (np.dot(a, b) / 4 + 1) ** 3
  xx = [k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
  yy = [k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
  xy = [k(a, b) for a in x for b in y]
  want = np.mean(xx) + np.mean(yy) - 2 * np.mean(xy)
  np.testing.assert_allclose(mmd2(x, y), want, rtol=1e-12)


def test_mmd2_is_unbiased_for_equal_distributions():
  rng = np.random.default_rng(11)
  values = [mmd2(*rng.standard_normal((2, 20, 3))) for _ in range(2000)]
  error = np.std(values) / np.sqrt(len(values))
  assert abs(np.mean(values)) < 4 * error
  # The biased estimate, which keeps the diagonals, would be far outside.
  assert error < 0.02


def test_kid_draws_its_subsets_as_documented():
  x, y = features(40, 6, 12), features(50, 6, 13)
  rng = np.random.RandomState(3)
  values = []
  for _ in range(4):
    i = rng.choice(40, 15, replace=False)
    j = rng.choice(50, 15, replace=False)
    values.append(mmd2(x[i], y[j]))
  mean, std = kid(x, y, subsets=4, size=15, seed=3)
  np.testing.assert_allclose(mean, np.mean(values), rtol=1e-12)
  np.testing.assert_allclose(std, np.std(values), rtol=1e-9)


def test_kid_needs_whole_subsets():
  with pytest.raises(ValueError, match="smaller subset"):
    kid(features(10, 3, 0), features(30, 3, 0), size=11)
