"""Distances against closed forms, scipy's sqrtm and brute force."""

import numpy as np
import pytest
import scipy.linalg

from jaxgen.metrics.distances import Moments, frechet, kid, mmd2, moments


def features(n, d, seed, dtype=np.float32):
  rng = np.random.default_rng(seed)
  mix = rng.standard_normal((d, d)) / np.sqrt(d)
  return (rng.standard_normal((n, d)) @ mix + rng.random(d)).astype(dtype)


def test_frechet_of_commuting_gaussians_is_the_closed_form():
  # For diagonal covariances: |mu1 - mu2|^2 + sum (s1 - s2)^2.
  rng = np.random.default_rng(0)
  mu1, mu2 = rng.standard_normal((2, 7))
  s1, s2 = rng.random((2, 7)) + 0.1
  q, _ = np.linalg.qr(rng.standard_normal((7, 7)))
  got = frechet(mu1, q * s1**2 @ q.T, mu2, q * s2**2 @ q.T)
  want = np.sum((mu1 - mu2) ** 2) + np.sum((s1 - s2) ** 2)
  np.testing.assert_allclose(got, want, rtol=1e-12)


def test_frechet_is_scipys_sqrtm_where_full_rank():
  a, b = moments(features(400, 24, 1)), moments(features(300, 24, 2))
  root = scipy.linalg.sqrtm(a.sigma @ b.sigma).real
  want = np.sum((a.mu - b.mu) ** 2) + np.trace(a.sigma + b.sigma - 2 * root)
  np.testing.assert_allclose(
    frechet(a.mu, a.sigma, b.mu, b.sigma), want, rtol=1e-9
  )


def test_frechet_of_singular_covariances_is_the_nuclear_norm():
  # With fewer rows than dimensions the cross term is |A B^T|_*, A and B the
  # centred features over sqrt(n - 1): exact, and free of any square root.
  x, y = features(20, 64, 3, np.float64), features(30, 64, 4, np.float64)
  a = (x - x.mean(0)) / np.sqrt(len(x) - 1)
  b = (y - y.mean(0)) / np.sqrt(len(y) - 1)
  cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
  want = np.sum((x.mean(0) - y.mean(0)) ** 2)
  want += np.sum(a**2) + np.sum(b**2) - 2 * cross
  got = frechet(*moments(x)[:2], *moments(y)[:2])
  np.testing.assert_allclose(got, want, rtol=1e-6)
  assert abs(frechet(*moments(x)[:2], *moments(x)[:2])) < 1e-4


def test_frechet_is_symmetric_and_never_float32():
  # A common offset of 1e3 costs float32 its last digits of the covariance.
  x, y = (features(500, 8, s, np.float64) + 1e3 for s in (5, 6))
  a, b = moments(x), moments(y)
  there = frechet(a.mu, a.sigma, b.mu, b.sigma)
  back = frechet(b.mu, b.sigma, a.mu, a.sigma)
  np.testing.assert_allclose(there, back, rtol=1e-10)
  near = frechet(a.mu - 1e3, a.sigma, b.mu - 1e3, b.sigma)
  np.testing.assert_allclose(there, near, rtol=1e-9)


def test_frechet_refuses_other_features():
  a, b = moments(features(20, 4, 0)), moments(features(20, 5, 0))
  with pytest.raises(ValueError, match="width"):
    frechet(a.mu, a.sigma, b.mu, b.sigma)


@pytest.mark.parametrize("batch", [1, 7, 32, 100, 257])
def test_streamed_moments_do_not_know_the_batch_size(batch):
  x = features(257, 5, 7) + 100
  stream = Moments(block=32)
  for start in range(0, len(x), batch):
    stream.add(x[start : start + batch])
    stream.n > 1 and stream.result()  # looking must not disturb
  whole = Moments(block=32)
  whole.add(x)
  for got, want in zip(stream.result(), whole.result(), strict=True):
    np.testing.assert_array_equal(got, want)
  wide = x.astype(np.float64)
  np.testing.assert_allclose(stream.result().mu, wide.mean(0), rtol=1e-13)
  np.testing.assert_allclose(
    stream.result().sigma, np.cov(wide, rowvar=False), rtol=1e-10, atol=1e-14
  )


def test_moments_keep_a_copy_of_a_reused_buffer():
  x, stream = features(6, 3, 8), Moments()
  buffer = x[:3].copy()
  stream.add(buffer)
  buffer[:] = x[3:]
  stream.add(buffer)
  np.testing.assert_allclose(stream.result().mu, x.mean(0), rtol=1e-6)


def test_moments_need_two_rows():
  with pytest.raises(ValueError, match="at least 2"):
    moments(features(1, 3, 0))


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
