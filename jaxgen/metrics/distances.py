"""Distances between two sets of features: Fréchet (FID and kin) and KID.

Everything is float64 NumPy on the host: float32 linear algebra is wrong by a
per cent at 2048 dimensions, and JAX's default would be just that.
"""

from typing import NamedTuple

import numpy as np


class Gaussian(NamedTuple):
  """Mean [D] and unbiased covariance [D, D] of `n` feature rows, float64."""

  mu: np.ndarray
  sigma: np.ndarray
  n: int


class Moments:
  """Streaming mean and covariance, bitwise independent of the batch size.

  Rows are regrouped into blocks of fixed size before they are summed, and
  shifted by the first block's mean so that no digits cancel.
  """

  def __init__(self, block: int = 1024):
    self._block = block
    self._pending: list[np.ndarray] = []
    self._waiting = 0
    self._shift = self._sum = self._outer = None
    self.n = 0

  def add(self, features: np.ndarray) -> None:
    """Takes [B, D] rows in, of any float type and any B."""
    rows = np.array(features, np.float64, ndmin=2)  # a copy: ours to keep
    self._pending.append(rows)
    self._waiting += len(rows)
    self.n += len(rows)
    if self._waiting >= self._block:
      rows = np.concatenate(self._pending)
      full = len(rows) // self._block * self._block
      for block in np.split(rows[:full], full // self._block):
        self._absorb(block)
      self._pending, self._waiting = [rows[full:]], len(rows) - full

  def _absorb(self, rows: np.ndarray) -> None:
    if self._shift is None:
      self._shift = rows.mean(0)
      self._sum = np.zeros_like(self._shift)
      self._outer = np.zeros((rows.shape[1],) * 2)
    rows = rows - self._shift
    self._sum += rows.sum(0)
    self._outer += rows.T @ rows

  def result(self) -> Gaussian:
    """The Gaussian of all rows so far; more may be added afterwards."""
    if self.n < 2:
      raise ValueError(f"A covariance needs at least 2 rows, got {self.n}.")
    tail = np.concatenate(self._pending)
    whole = self._shift, self._sum, self._outer
    if self._shift is not None:  # _absorb adds in place: keep the originals
      self._sum, self._outer = self._sum.copy(), self._outer.copy()
    if len(tail):
      self._absorb(tail)
    mean = self._sum / self.n
    sigma = (self._outer - self.n * np.outer(mean, mean)) / (self.n - 1)
    mu = self._shift + mean
    self._shift, self._sum, self._outer = whole
    return Gaussian(mu, sigma, self.n)


def moments(features: np.ndarray) -> Gaussian:
  """Mean and covariance (ddof 1, as np.cov) of features [N, D], float64."""
  stream = Moments()
  stream.add(features)
  return stream.result()


def frechet(
  mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray
) -> float:
  """The Fréchet distance between two Gaussians (Heusel et al. 2017, eq. 6).

  |mu1 - mu2|^2 + tr(sigma1) + tr(sigma2) - 2 tr((sigma1 sigma2)^(1/2)), with
  the last trace from the eigenvalues of the symmetric H sigma2 H, H =
  sigma1^(1/2): no complex numbers, no failure on singular covariances. Never
  clamped: a tiny negative value for equal inputs is round-off and valid.
  """
  mu1, sigma1, mu2, sigma2 = (
    np.asarray(a, np.float64) for a in (mu1, sigma1, mu2, sigma2)
  )
  if mu1.shape != mu2.shape or sigma1.shape != sigma2.shape:
    raise ValueError(
      f"Features of different width: {mu1.shape} and {mu2.shape}."
    )
  w, v = np.linalg.eigh(sigma1)
  root = (v * np.sqrt(np.maximum(w, 0))) @ v.T
  inner = root @ sigma2 @ root
  w = np.linalg.eigvalsh((inner + inner.T) / 2)
  cross = np.sqrt(np.maximum(w, 0)).sum()
  gap = np.sum((mu1 - mu2) ** 2)
  return float(gap + np.trace(sigma1) + np.trace(sigma2) - 2 * cross)


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
  """Unbiased squared MMD of [m, D] and [n, D] under (x.y / D + 1)^3."""
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  m, n = len(x), len(y)
  k_xx, k_yy, k_xy = (
    (a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))
  )
  off_xx = (k_xx.sum() - np.trace(k_xx)) / (m * (m - 1))
  off_yy = (k_yy.sum() - np.trace(k_yy)) / (n * (n - 1))
  return float(off_xx + off_yy - 2 * k_xy.mean())


def kid(
  x: np.ndarray,
  y: np.ndarray,
  subsets: int = 100,
  size: int = 1000,
  seed: int = 2020,
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
  for _ in range(subsets):
    i = rng.choice(len(x), size, replace=False)
    j = rng.choice(len(y), size, replace=False)
    values.append(mmd2(x[i], y[j]))
  return float(np.mean(values)), float(np.std(values))
