"""How near restored images come to their originals, image by image.

Batches uint8 [N, H, W, C], or floats of the same range, -> float64 [N].
"""

import functools
from collections.abc import Callable

import numpy as np
from scipy import ndimage

RANGE = 255.0  # of bytes


def psnr(x: np.ndarray, y: np.ndarray, data_range: float = RANGE) -> np.ndarray:
  """Peak signal-to-noise ratio in dB, [N]; infinite for equal images.

  10 log10(data_range^2 / MSE), the MSE over all pixels and channels of one
  image. Papers give the mean of these over images.

  Raises:
    ValueError: x and y are not batches of images of one shape.
  """
  mse = _mse(*_checked(x, y))
  with np.errstate(divide="ignore"):
    return 10 * np.log10(data_range**2 / mse)


def ssim(
  x: np.ndarray, y: np.ndarray, window: str = "gauss11", data_range: float = RANGE
) -> np.ndarray:
  """Structural similarity (Wang et al. 2004, Eq. 13), [N], 1 for equal images.

  The mean over windows that lie within the image, of each channel by itself.

  Args:
    x, y: [N, H, W, C].
    window: "gauss11", the paper's: 11x11, Gaussian of std 1.5; or "uniform7",
      scikit-image's default: 7x7, all alike, variances over 48 of 49.
    data_range: largest less smallest possible value, L of the paper.

  Raises:
    ValueError: no such window, images smaller than it, or not of one shape.
  """
  if window not in WINDOWS:
    raise ValueError(f"window={window!r}: want {' or '.join(WINDOWS)}.")
  weights, bessel = WINDOWS[window]
  x, y = _checked(x, y)
  if min(x.shape[1:3]) < len(weights):
    raise ValueError(
      f"images of {x.shape[1]}x{x.shape[2]} are smaller than the window of"
      f" {len(weights)}x{len(weights)}."
    )
  mean = functools.partial(_windowed, weights=weights)
  mu_x, mu_y = mean(x), mean(y)
  var_x = bessel * (mean(x * x) - mu_x**2)
  var_y = bessel * (mean(y * y) - mu_y**2)
  cov = bessel * (mean(x * y) - mu_x * mu_y)
  c_1, c_2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
  s = (2 * mu_x * mu_y + c_1) * (2 * cov + c_2)
  s /= (mu_x**2 + mu_y**2 + c_1) * (var_x + var_y + c_2)
  return s.mean((1, 2, 3))


def consistency(
  x: np.ndarray,
  low_res: np.ndarray,
  shrink: Callable[[np.ndarray], np.ndarray],
  data_range: float = RANGE,
) -> np.ndarray:
  """MSE between outputs made small again and the small inputs, times 1e5, [N].

  Saharia et al. 2021, Sec. 4 and Table 1: "consistency", in units of 1e-5. The
  paper does not say of which range its pixels are; here they are in [0, 1],
  where rounding a true original to bytes alone costs about 0.13.

  Args:
    x: what was made of them, [N, H, W, C].
    low_res: the small images, [N, h, w, C].
    shrink: makes images small, in the way that inputs were made: [N, H, W, C]
      -> [N, h, w, C] in the units of x, not rounded.
    data_range: largest less smallest possible value.

  Raises:
    ValueError: the shapes do not fit.
  """
  small = np.asarray(shrink(np.asarray(x)))
  return 1e5 * _mse(*_checked(small, low_res)) / data_range**2


def _gaussian(side: int, std: float) -> np.ndarray:
  """Weights along one axis, of sum 1."""
  w = np.exp(-0.5 * ((np.arange(side) - side // 2) / std) ** 2)
  return w / w.sum()


# Weights along each axis, and what makes mean squares into variances.
WINDOWS = {"gauss11": (_gaussian(11, 1.5), 1.0), "uniform7": (np.full(7, 1 / 7), 49 / 48)}


def _windowed(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Weighted means over all windows within, [N, H, W, C] -> smaller ones."""
  r = len(weights) // 2
  for axis in (1, 2):
    x = ndimage.correlate1d(x, weights, axis)
  return x[:, r:-r, r:-r]


def _mse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return np.mean((x - y) ** 2, (1, 2, 3))


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Both as float64; ValueError unless they are alike and not empty."""
  x, y = np.asarray(x), np.asarray(y)
  for a in (x, y):
    if a.ndim != 4 or not a.size or a.dtype.kind not in "uif":
      raise ValueError(f"want batches of images [N, H, W, C], got {a.dtype} {list(a.shape)}.")
  if x.shape != y.shape:
    raise ValueError(f"images of two shapes: {list(x.shape)} and {list(y.shape)}.")
  return x.astype(np.float64), y.astype(np.float64)
