"""Fidelity and diversity apart: precision, recall, density, coverage.

Distances are squared and float64, and streamed by rows: at no time is more
than one block of the N x M matrix in memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 1 << 24  # distances held at a time: 128 MiB


class PRDC(NamedTuple):
  """Four scores of generated features against real ones; more is better.

  precision in [0, 1], fidelity: the share of generated rows inside the real
  manifold. recall in [0, 1], diversity: the share of real rows inside the
  generated manifold. density >= 0, fidelity, robust to outliers, 1 for equal
  distributions. coverage in [0, 1], diversity, robust to outliers.
  """

  precision: float
  recall: float
  density: float
  coverage: float


def _blocks(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
  """Rows of the squared distances of x [N, D] to y [M, D], block by block."""
  x2, y2 = (np.einsum("nd,nd->n", a, a) for a in (x, y))
  step = max(1, BLOCK // len(y))
  for start in range(0, len(x), step):
    rows = slice(start, min(start + step, len(x)))
    d = x[rows] @ y.T
    d *= -2
    d += x2[rows, None]
    d += y2
    yield rows, np.maximum(d, 0, out=d)


def radii(x: np.ndarray, ks: tuple[int, ...]) -> np.ndarray:
  """Squared distances [len(ks), N] to the k-th neighbours, self excluded."""
  if len(x) <= max(ks):
    raise ValueError(
      f"{max(ks)} neighbours need more than {max(ks)} rows, got {len(x)}."
    )
  result = np.empty((len(ks), len(x)))
  for rows, d in _blocks(x, x):
    d[np.arange(len(d)), np.arange(rows.start, rows.stop)] = np.inf
    nearest = np.sort(np.partition(d, max(ks) - 1, 1)[:, : max(ks)], 1)
    result[:, rows] = nearest[:, np.array(ks) - 1].T
  return result


def prdc(
  fake: np.ndarray, real: np.ndarray, *, k: int = 3, k_ball: int = 5
) -> PRDC:
  """Scores generated features `fake` [N, D] against `real` [M, D].

  Precision and recall are those of Kynkäänniemi et al. 2019, eq. 1-2: inside
  means distance <= the radius to the k-th neighbour. Density and coverage are
  those of Naeem et al. 2020, eq. 4-5, with their strict <, and k_ball.

  Raises:
    ValueError: fewer rows than neighbours, or features of different width.
  """
  fake, real = np.asarray(fake, np.float64), np.asarray(real, np.float64)
  if fake.shape[1:] != real.shape[1:]:
    raise ValueError(
      f"Features of different width: {fake.shape[1:]} and {real.shape[1:]}."
    )
  real_k, real_ball = radii(real, (k, k_ball))
  (fake_k,) = radii(fake, (k,))
  inside, balls = 0, 0
  recalled = np.zeros(len(real), bool)
  nearest = np.full(len(real), np.inf)
  for rows, d in _blocks(fake, real):
    inside += int((d <= real_k).any(1).sum())
    balls += int((d < real_ball).sum())
    recalled |= (d <= fake_k[rows, None]).any(0)
    np.minimum(nearest, d.min(0), out=nearest)
  return PRDC(
    precision=inside / len(fake),
    recall=float(recalled.mean()),
    density=balls / (k_ball * len(fake)),
    coverage=float((nearest < real_ball).mean()),
  )
