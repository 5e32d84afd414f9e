"""Fidelity and diversity apart: precision, recall, density, coverage.

Distances are squared and float64, and come in tiles: at no time is more than
one of the N x M matrix in memory.
"""

from typing import NamedTuple

import numpy as np

from jaxgen.metrics.pairwise import Tick, check_widths, radii, tiles


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


def prdc(
  fake: np.ndarray, real: np.ndarray, *, k: int = 3, k_ball: int = 5, tick: Tick = lambda done: None
) -> PRDC:
  """Scores generated features `fake` [N, D] against `real` [M, D].

  Precision and recall are those of Kynkäänniemi et al. 2019, eq. 1-2: inside
  means distance <= the radius to the k-th neighbour. Density and coverage are
  those of Naeem et al. 2020, eq. 4-5, with their strict <, and k_ball. `tick`
  is told how many of 2 N + M rows are done.

  Raises:
    ValueError: fewer rows than neighbours, or features of different width.
  """
  check_widths(fake, real)
  real_k, real_ball = radii(real, (k, k_ball), tick)
  (fake_k,) = radii(fake, (k,), lambda done: tick(len(real) + done))
  inside, balls = np.zeros(len(fake), bool), 0
  recalled = np.zeros(len(real), bool)
  nearest = np.full(len(real), np.inf)
  for rows, columns, d in tiles(fake, real):
    inside[rows] |= (d <= real_k[columns]).any(1)
    balls += int((d < real_ball[columns]).sum())
    recalled[columns] |= (d <= fake_k[rows, None]).any(0)
    np.minimum(nearest[columns], d.min(0), out=nearest[columns])
    if columns.stop == len(real):
      tick(len(real) + len(fake) + rows.stop)
  return PRDC(
    precision=float(inside.mean()),
    recall=float(recalled.mean()),
    density=balls / (k_ball * len(fake)),
    coverage=float((nearest < real_ball).mean()),
  )


def half_precision_recall(fake: np.ndarray, real: np.ndarray, k: int = 3) -> tuple[float, float]:
  """Precision and recall as ADM's evaluator has them: in float16.

  guided-diffusion, evaluations/evaluator.py: norms, products and squared
  distances are float16, where nothing overflows. Real Inception features lie
  on a grid of 0.25 then, and ties count as inside. Accelerators accumulate
  differently, so that a few rows in a hundred may fall out otherwise. Holds
  N x M and N x N distances in float32.

  Raises:
    ValueError: fewer rows than neighbours, or features of different width.
  """
  check_widths(fake, real)
  if min(len(fake), len(real)) <= k:
    raise ValueError(f"{k} neighbours need more than {k} rows.")
  kth = lambda x: np.partition(half_distances(x, x), k, 1)[:, k]
  d = half_distances(fake, real)
  precision = (d <= kth(real)).any(1).mean()
  recall = (d <= kth(fake)[:, None]).any(0).mean()
  return float(precision), float(recall)


def half_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Squared distances float32 [N, M], rounded to float16 at every step."""
  with np.errstate(over="ignore", invalid="ignore"):
    a, b = (np.asarray(z, np.float16) for z in (x, y))
    wide = a.astype(np.float32) @ b.astype(np.float32).T
    a2, b2 = ((z * z).sum(1, dtype=np.float32).astype(np.float16) for z in (a, b))
    half = (a2[:, None] - np.float16(2) * wide.astype(np.float16)) + b2
  if np.isfinite(half).all():
    return np.maximum(half, 0).astype(np.float32)
  a, b = (np.asarray(z, np.float32) for z in (x, y))
  a2, b2 = (np.einsum("nd,nd->n", z, z) for z in (a, b))
  return np.maximum(a2[:, None] - 2 * (a @ b.T) + b2, 0)
