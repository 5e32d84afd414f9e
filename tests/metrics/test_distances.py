"""Distances against closed forms, scipy's sqrtm and brute force."""

import numpy as np
import pytest
import scipy.linalg

from jaxgen.metrics import distances
from jaxgen.metrics.distances import (
  Moments,
  frechet,
  frechet_infinity,
  frechet_rows,
  general_cross_trace,
  intercept,
  moments,
)


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
  np.testing.assert_allclose(frechet(a.mu, a.sigma, b.mu, b.sigma), want, rtol=1e-9)


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
  full = Moments(block=32)
  full.add(x)
  for got, want in zip(stream.result(), full.result(), strict=True):
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


def covariance(d, condition, rng):
  """A dense covariance with eigenvalues 1 .. 1 / condition; d a power of 2."""
  sign = np.where(rng.random(d) < 0.5, -1, 1)
  q = scipy.linalg.hadamard(d) * sign / np.sqrt(d)
  w = rng.permutation(np.geomspace(1, 1 / condition, d))
  return (q * w) @ q.T


# Badly conditioned: as the features of few images are, and worse.
@pytest.mark.parametrize(("d", "condition", "rtol"), [
  (64, 10, 1e-12), (64, 1e12, 1e-8), (2048, 1e12, 1e-7),
  pytest.param(2048, 10, 1e-11, marks=pytest.mark.slow),
])  # fmt: skip
def test_frechet_is_the_closed_form_where_covariances_do_not_commute(d, condition, rtol):
  # For sigma2 = T sigma1 T, T symmetric and positive, x -> T x is the optimal
  # map: the distance is |mu1 - mu2|^2 + tr((T - 1) sigma1 (T - 1)). Here
  # T = 1 + c u u^T, |u| = 1.
  rng = np.random.default_rng(d)
  sigma1, c = covariance(d, condition, rng), 30
  u = rng.standard_normal(d)
  u /= np.linalg.norm(u)
  across, along = sigma1 @ u, u @ sigma1 @ u
  sigma2 = sigma1 + c * (np.outer(u, across) + np.outer(across, u))
  sigma2 += c**2 * along * np.outer(u, u)
  mu1, mu2 = rng.standard_normal((2, d)) / np.sqrt(d)
  want = np.sum((mu1 - mu2) ** 2) + c**2 * along
  got = frechet(mu1, sigma1, mu2, sigma2)
  np.testing.assert_allclose(got, want, rtol=rtol)


@pytest.mark.parametrize("condition", [10, 1e8])
def test_the_fallback_agrees_and_is_checked(condition, monkeypatch):
  rng = np.random.default_rng(0)
  sigma1, sigma2 = (covariance(32, condition, rng) for _ in range(2))
  zero = np.zeros(32)
  want = frechet(zero, sigma1, zero, sigma2)

  def fails(a):
    raise np.linalg.LinAlgError("did not converge")

  monkeypatch.setattr(distances.np.linalg, "eigh", fails)
  got = frechet(zero, sigma1, zero, sigma2)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  with pytest.raises(ValueError, match="imaginary"):
    general_cross_trace(-sigma1, sigma2)


def test_frechet_refuses_what_is_not_finite():
  a, b = moments(features(20, 4, 0)), moments(features(20, 4, 1))
  b.sigma[1, 2] = np.nan
  with pytest.raises(ValueError, match="finite"):
    frechet(a.mu, a.sigma, b.mu, b.sigma)


@pytest.mark.parametrize(("n", "m", "rtol"), [(20, 30, 1e-6), (90, 70, 1e-9)])
def test_frechet_of_rows_is_that_of_their_moments(n, m, rtol):
  x, y = features(n, 64, 3, np.float64), features(m, 64, 4, np.float64)
  want = frechet(*moments(x)[:2], *moments(y)[:2])
  np.testing.assert_allclose(frechet_rows(x, y), want, rtol=rtol)
  assert abs(frechet_rows(x, x)) < 1e-11


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 100])
def test_interrupted_moments_go_on_bit_for_bit(cut):
  x = features(130, 5, 9)
  stream, full = Moments(block=32), Moments(block=32)
  full.add(x)
  stream.add(x[:cut]) if cut else None
  stream = Moments.of({k: v.copy() for k, v in stream.state().items()})
  stream.add(x[cut:])
  for got, want in zip(stream.result(), full.result(), strict=True):
    np.testing.assert_array_equal(got, want)


def test_moments_do_not_depend_on_order():
  x = features(3000, 40, 10) + 3
  a = moments(x)
  b = moments(x[np.random.default_rng(0).permutation(len(x))])
  np.testing.assert_allclose(a.mu, b.mu, rtol=1e-12)
  np.testing.assert_allclose(a.sigma, b.sigma, rtol=1e-9, atol=1e-14)


def test_intercept_is_the_textbooks():
  x = np.array([0.1, 0.2, 0.3, 0.5])
  assert intercept(x, 2 + 3 * x)[:2] == pytest.approx((2, 0), abs=1e-12)
  y = 2 + 3 * x + np.array([0.1, -0.2, 0.1, 0.05])
  fit, variance = np.polyfit(x, y, 1, cov=True)
  assert intercept(x, y) == pytest.approx((fit[1], variance[1, 1] ** 0.5))


def test_frechet_infinity_takes_the_bias_away():
  # Samples of the very distribution: its distance is 0, that of 3000 is not.
  d, biased, limits = 20, [], []
  real = distances.Gaussian(np.zeros(d), np.eye(d), 10**9)
  for seed in range(6):
    x = np.random.default_rng(seed).standard_normal((3000, d))
    biased.append(frechet(*moments(x)[:2], real.mu, real.sigma))
    limits.append(frechet_infinity(x, real, least=300))
    assert abs(limits[-1].value) < 6 * limits[-1].error < min(biased) * 2
  assert abs(np.mean([a.value for a in limits])) < np.mean(biased) / 4
  assert frechet_infinity(x, real, least=300) == limits[-1]  # seeded
  with pytest.raises(ValueError, match="No line"):
    frechet_infinity(x[:5], real)
