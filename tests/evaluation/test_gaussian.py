"""The Gaussian of pixels that a generator has to beat."""

import numpy as np

from jaxgen.evaluation import gaussian
from jaxgen.evaluation.gaussian import gaussian_images


def test_mean_and_covariance_are_the_images(monkeypatch):
  rng = np.random.default_rng(0)
  factors = rng.normal(size=(3, 18))
  x = 128 + 12 * rng.normal(size=(200, 3)) @ factors
  x = np.clip(x, 30, 226).astype(np.uint8).reshape(200, 3, 3, 2)
  y = gaussian_images(x, 40_000)
  assert y.shape == (40_000, 3, 3, 2) and y.dtype == np.uint8
  a, b = (v.reshape(len(v), -1).astype(float) for v in (x, y))
  np.testing.assert_allclose(b.mean(0), a.mean(0), atol=0.5)
  scale = np.cov(a.T).max()
  np.testing.assert_allclose(np.cov(b.T) / scale, np.cov(a.T) / scale, atol=0.03)
  few = gaussian_images(x, 10)
  monkeypatch.setattr(gaussian, "COLUMNS", 5)  # the cut changes nothing
  np.testing.assert_array_equal(gaussian_images(x, 10), few)
