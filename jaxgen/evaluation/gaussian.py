"""The least that a generator of images has to beat: a Gaussian of pixels."""

import numpy as np

COLUMNS = 4096  # values of pixels that are made at once


def gaussian_images(x: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
  """Draws from the Gaussian with the mean and the covariance of images' pixels.

  Of N images it is their mean and a sum of their deviations, each weighed by a
  draw from N(0, 1 / (N - 1)): no covariance is written down.

  Args:
    x: uint8 [N, ...], N at least 2.
    n: How many.
    seed: Of the draws.

  Returns:
    uint8 [n, ...], rounded, and clipped to 0..255.
  """
  flat = x.reshape(len(x), -1)
  weights = np.random.default_rng(seed).standard_normal((n, len(x)), np.float32)
  weights /= np.sqrt(len(x) - 1)
  parts = []
  for first in range(0, flat.shape[1], COLUMNS):
    part = flat[:, first : first + COLUMNS].astype(np.float32)
    mean = part.mean(0)
    values = mean + weights @ (part - mean)
    parts.append(np.clip(np.rint(values), 0, 255).astype(np.uint8))
  return np.concatenate(parts, 1).reshape(n, *x.shape[1:])
