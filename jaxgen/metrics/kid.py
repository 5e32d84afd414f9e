"""The Kernel Inception Distance: unbiased, and with an error of its own."""

from collections.abc import Callable

import numpy as np


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
  """Unbiased squared MMD of [m, D] and [n, D] under (x.y / D + 1)^3."""
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  m, n = len(x), len(y)
  k_xx, k_yy, k_xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
  off_xx = (k_xx.sum() - np.trace(k_xx)) / (m * (m - 1))
  off_yy = (k_yy.sum() - np.trace(k_yy)) / (n * (n - 1))
  return float(off_xx + off_yy - 2 * k_xy.mean())


def kid(
  x: np.ndarray,
  y: np.ndarray,
  subsets: int = 100,
  size: int = 1000,
  seed: int = 2020,
  tick: Callable[[int], object] = lambda done: None,
) -> tuple[float, float]:
  """The Kernel Inception Distance: mean and std (ddof 0) over subsets.

  Bińkowski et al. 2018, section 4. Subsets are drawn as torch-fidelity draws
  them (RandomState(2020), first from x [N, D], then from y [M, D], without
  replacement). Slightly negative values are valid: the estimate is unbiased.

  Raises:
    ValueError: either set has fewer rows than `size`.
  """
  if min(len(x), len(y)) < size:
    raise ValueError(
      f"KID on subsets of {size} needs as many features of each kind, got "
      f"{len(x)} and {len(y)}; use a smaller subset size."
    )
  rng = np.random.RandomState(seed)
  values = []
  for k in range(subsets):
    i = rng.choice(len(x), size, replace=False)
    j = rng.choice(len(y), size, replace=False)
    values.append(mmd2(x[i], y[j]))
    tick(k + 1)
  return float(np.mean(values)), float(np.std(values))
