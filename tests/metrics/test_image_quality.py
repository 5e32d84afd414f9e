"""PSNR, SSIM and consistency: scikit-image's numbers, and the papers'."""

import numpy as np
import pytest
from skimage import metrics as reference

from jaxgen.metrics.image_quality import consistency, psnr, ssim


def pair(channels=3, shape=(24, 31), n=4, seed=0):
  """Smooth images and noisy copies, uint8, each of another noise."""
  rng = np.random.default_rng(seed)
  x = np.cumsum(rng.normal(0, 9, (n, *shape, channels)), 1) + 128
  y = x + rng.normal(0, 1, x.shape) * 8 * np.arange(1, n + 1).reshape(-1, 1, 1, 1)
  return [np.clip(a, 0, 255).astype(np.uint8) for a in (x, y)]


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_scikit_images(channels):
  x, y = pair(channels)
  theirs = [
    reference.peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(x, y, strict=True)
  ]
  ours = psnr(x, y)
  assert ours.dtype == np.float64
  np.testing.assert_allclose(ours, theirs, rtol=1e-12)
  np.testing.assert_allclose(psnr(x / 255, y / 255, data_range=1), theirs, rtol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
  "window, settings",
  [
    ("uniform7", {}),
    ("gauss11", dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)),
  ],
)
def test_ssim_is_scikit_images(channels, window, settings):
  x, y = pair(channels)
  theirs = [
    reference.structural_similarity(a, b, data_range=255, channel_axis=-1, **settings)
    for a, b in zip(x, y, strict=True)
  ]
  np.testing.assert_allclose(ssim(x, y, window), theirs, rtol=0, atol=1e-9)
  assert np.ptp(theirs) > 0.05
  np.testing.assert_allclose(ssim(x / 255, y / 255, window, data_range=1), theirs, atol=1e-9)


def test_an_image_does_not_depend_on_its_batch():
  x, y = pair()
  for f in (psnr, ssim):
    alone = np.concatenate([f(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    np.testing.assert_array_equal(f(x, y), alone)


def test_equal_and_constant_images():
  x, y = pair()
  assert np.isinf(psnr(x, x)).all()
  for window in ("gauss11", "uniform7"):
    np.testing.assert_allclose(ssim(x, x, window), 1, atol=1e-12)
    a, b = np.full_like(x, 100), np.full_like(x, 150)
    # No variance: what is left of Eq. 13 are the means.
    c = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c) / (100**2 + 150**2 + c)
    np.testing.assert_allclose(ssim(a, b, window), expected, atol=1e-9)
    np.testing.assert_allclose(ssim(a, a, window), 1, atol=1e-12)
  np.testing.assert_allclose(psnr(a, b), 20 * np.log10(255 / 50))


def test_consistency_is_the_papers():
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (3, 16, 16, 3), np.uint8)
  shrink = lambda x: x.reshape(-1, 4, 4, 4, 4, 3).mean((2, 4))
  low = shrink(x)
  np.testing.assert_allclose(consistency(x, low, shrink), 0, atol=1e-9)
  off = low + np.array([1, 2, 0]).reshape(-1, 1, 1, 1)
  np.testing.assert_allclose(
    consistency(x, off, shrink), 1e5 * np.array([1, 4, 0]) / 255**2, atol=1e-9
  )
  np.testing.assert_allclose(
    consistency(x / 255, off / 255, shrink, data_range=1), consistency(x, off, shrink), atol=1e-9
  )
  # Rounding is uniform in [-1/2, 1/2]: its variance is 1/12.
  x = rng.integers(0, 256, (200, 16, 16, 3), np.uint8)
  low = np.round(shrink(x)).astype(np.uint8)
  assert consistency(x, low, shrink).mean() == pytest.approx(0.128, rel=0.05)


@pytest.mark.parametrize(
  "x, y, message",
  [
    (np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), r"N, H, W, C"),
    (np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 1)), "two shapes"),
    (np.zeros((2, 8, 8, 3)), np.zeros((1, 8, 8, 3)), "two shapes"),
    (np.zeros((0, 8, 8, 3)), np.zeros((0, 8, 8, 3)), r"N, H, W, C"),
    (np.zeros((2, 8, 8, 3), bool), np.zeros((2, 8, 8, 3)), "bool"),
  ],
)
def test_what_is_no_pair_of_batches(x, y, message):
  for f in (psnr, ssim, lambda x, y: consistency(x, y, lambda x: x)):
    with pytest.raises(ValueError, match=message):
      f(x, y)


def test_images_smaller_than_the_window():
  x, y = pair(1, (8, 8))
  with pytest.raises(ValueError, match="8x8 are smaller than the window of 11"):
    ssim(x, y)
  assert ssim(x, y, "uniform7").shape == (4,)
  with pytest.raises(ValueError, match="gauss11 or uniform7"):
    ssim(x, y, "gauss7")
