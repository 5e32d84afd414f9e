"""Fréchet distances (FID and kin) between two sets of features.

Everything is float64 NumPy on the host: float32 linear algebra is wrong by a
per cent at 2048 dimensions, and JAX's default would be just that.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg

SLICE = 8192  # rows that are float64 at a time


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
    sums = self._shift, self._sum, self._outer
    if self._shift is not None:  # _absorb adds in place: keep the originals
      self._sum, self._outer = self._sum.copy(), self._outer.copy()
    if len(tail):
      self._absorb(tail)
    mean = self._sum / self.n
    sigma = (self._outer - self.n * np.outer(mean, mean)) / (self.n - 1)
    mu = self._shift + mean
    self._shift, self._sum, self._outer = sums
    return Gaussian(mu, sigma, self.n)

  def state(self) -> dict[str, np.ndarray]:
    """All that is remembered, to go on from with `Moments.of`."""
    state = {"n": np.int64(self.n), "block": np.int64(self._block)}
    if self._pending:
      state["pending"] = np.concatenate(self._pending)
    if self._shift is not None:
      state |= {"shift": self._shift, "sum": self._sum, "outer": self._outer}
    return state

  @classmethod
  def of(cls, state: dict[str, np.ndarray]) -> "Moments":
    """Bit for bit the moments that gave this `state()`; it is taken over."""
    moments = cls(int(state["block"]))
    moments.n = int(state["n"])
    if "pending" in state:
      moments._pending = [np.asarray(state["pending"])]
      moments._waiting = len(state["pending"])
    if "shift" in state:
      moments._shift, moments._sum, moments._outer = (
        np.asarray(state[k]) for k in ("shift", "sum", "outer")
      )
    return moments


def moments(features: np.ndarray) -> Gaussian:
  """Mean and covariance (ddof 1, as np.cov) of features [N, D], float64."""
  stream = Moments()
  for start in range(0, len(features), SLICE):  # never all in float64 at once
    stream.add(features[start : start + SLICE])
  return stream.result()


def frechet(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
  """The Fréchet distance between two Gaussians (Heusel et al. 2017, eq. 6).

  |mu1 - mu2|^2 + tr(sigma1) + tr(sigma2) - 2 tr((sigma1 sigma2)^(1/2)). Never
  clamped: a tiny negative value for equal inputs is round-off and valid.

  Raises:
    ValueError: features of different width, or values that are not finite.
  """
  mu1, sigma1, mu2, sigma2 = (np.asarray(a, np.float64) for a in (mu1, sigma1, mu2, sigma2))
  if mu1.shape != mu2.shape or sigma1.shape != sigma2.shape:
    raise ValueError(f"Features of different width: {mu1.shape} and {mu2.shape}.")
  if not all(np.isfinite(a).all() for a in (mu1, sigma1, mu2, sigma2)):
    raise ValueError("Means and covariances must be finite.")
  try:
    cross = cross_trace(root(sigma1), sigma2)
  except np.linalg.LinAlgError:  # did not converge
    cross = general_cross_trace(sigma1, sigma2)
  gap = np.sum((mu1 - mu2) ** 2)
  return float(gap + np.trace(sigma1) + np.trace(sigma2) - 2 * cross)


def root(sigma: np.ndarray) -> np.ndarray:
  """B [D, D] with B B^T = sigma, by eigenvalues; round-off below 0 is 0."""
  w, v = np.linalg.eigh(sigma)
  return v * np.sqrt(np.maximum(w, 0))


def cross_trace(root1: np.ndarray, sigma2: np.ndarray) -> float:
  """tr((sigma1 sigma2)^(1/2)), with root1 = root(sigma1).

  The eigenvalues of sigma1 sigma2 are those of the symmetric B^T sigma2 B: no
  complex numbers, and no failure on singular covariances.
  """
  inner = root1.T @ sigma2 @ root1
  w = np.linalg.eigvalsh((inner + inner.T) / 2)
  return float(np.sqrt(np.maximum(w, 0)).sum())


def general_cross_trace(sigma1: np.ndarray, sigma2: np.ndarray) -> float:
  """The same from the eigenvalues of the product, as torch-fidelity has it.

  Where the symmetric decomposition does not converge.

  Raises:
    ValueError: what should be real is not, by 1e-3 of it.
  """
  w = np.sqrt(scipy.linalg.eigvals(sigma1 @ sigma2).astype(complex))
  if not abs(w.imag).sum() <= 1e-3 * w.real.sum() + 1e-12:
    raise ValueError(
      f"tr((sigma1 sigma2)^(1/2)) has an imaginary part of "
      f"{abs(w.imag).sum():.3g}: these are no covariances."
    )
  return float(w.real.sum())


def frechet_rows(x: np.ndarray, y: np.ndarray) -> float:
  """The Fréchet distance between the Gaussians of rows [N, D] and [M, D].

  With fewer rows than dimensions the cross term is the nuclear norm of A B^T,
  A and B the centred rows over sqrt(n - 1): exact, where the covariances would
  be singular, and quick. Otherwise as `frechet`.
  """
  if min(len(x), len(y)) >= x.shape[1]:
    a, b = moments(x), moments(y)
    return frechet(a.mu, a.sigma, b.mu, b.sigma)
  if min(len(x), len(y)) < 2:
    raise ValueError("A covariance needs at least 2 rows.")
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  a = (x - x.mean(0)) / np.sqrt(len(x) - 1)
  b = (y - y.mean(0)) / np.sqrt(len(y) - 1)
  cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
  gap = np.sum((x.mean(0) - y.mean(0)) ** 2)
  return float(gap + np.sum(a**2) + np.sum(b**2) - 2 * cross)


class Limit(NamedTuple):
  """FID of infinitely many samples: the value, and its standard error."""

  value: float
  error: float


def frechet_infinity(
  features: np.ndarray, real: Gaussian, *, points: int = 15, least: int = 5000, seed: int = 0
) -> Limit:
  """The Fréchet distance without the bias of few samples.

  Chong & Forsyth 2020, section 3.2: a line through the distances of `points`
  random subsets of N' = least .. N of the features [N, D], over 1 / N'; its
  value at 0 is the estimate, and the error that of the intercept of least
  squares. `least` is lowered to N / 3 where there are fewer samples.

  Raises:
    ValueError: too few features for any line.
  """
  n = len(features)
  least = min(least, n // 3)
  if least < 2 or points < 3:
    raise ValueError(f"No line through subsets of {n} features.")
  rng = np.random.RandomState(seed)
  sizes = np.linspace(least, n, points).astype(int)
  half = root(real.sigma)
  base = np.trace(real.sigma)
  values = []
  for size in sizes:
    own = moments(features[np.sort(rng.choice(n, size, replace=False))])
    values.append(
      np.sum((own.mu - real.mu) ** 2) + base + np.trace(own.sigma)
      - 2 * cross_trace(half, own.sigma)
    )  # fmt: skip
  return intercept(1 / sizes, np.array(values))


def intercept(x: np.ndarray, y: np.ndarray) -> Limit:
  """Where the least-squares line through (x, y) [N] meets x = 0."""
  design = np.stack([np.ones_like(x), x], 1)
  (value, slope), *_ = np.linalg.lstsq(design, y, rcond=None)
  residual = y - value - slope * x
  spread = np.sum((x - x.mean()) ** 2)
  variance = np.sum(residual**2) / (len(x) - 2)
  error = np.sqrt(variance * (1 / len(x) + x.mean() ** 2 / spread))
  return Limit(float(value), float(error))
