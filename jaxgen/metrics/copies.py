"""Memorisation: are samples nearer to training images than these are apart?"""

from typing import NamedTuple

import numpy as np

from jaxgen.metrics.pairwise import Tick, nearest


class Copies(NamedTuple):
  """What samples have in common with training images.

  index: [N, k] the nearest training rows of each sample, nearest first.
  distance: [N, k] Euclidean, in feature space.
  ratio: [N] distance to the nearest, over that one's distance to its own
    nearest other training row; below 1 a sample is suspiciously near.
  """

  index: np.ndarray
  distance: np.ndarray
  ratio: np.ndarray

  @property
  def authenticity(self) -> float:
    """Share of samples that are no nearer than training rows are apart.

    Alaa et al. 2022, section 3.3, as dgm-eval has it: 0 for copies of the
    training set, about 1/2 for new data of the same distribution.
    """
    return float(np.mean(self.ratio > 1))

  @property
  def identical(self) -> float:
    """Share of samples that are training rows but for round-off."""
    return float(np.mean(self.ratio < 1e-4))


def copies(
  fake: np.ndarray, real: np.ndarray, k: int = 5, tick: Tick = lambda done: None
) -> Copies:
  """Looks for `fake` [N, D] among the training rows `real` [M, D].

  Distances to what was found are computed anew, as norms of differences:
  those of exact copies are exactly 0. `tick` is told how many of M + N rows
  are done.

  Raises:
    ValueError: fewer than k + 1 training rows.
  """
  own, twin = nearest(real, None, 1, tick)
  _, index = nearest(fake, real, k, lambda done: tick(len(real) + done))
  distance = np.stack([_exact(fake, real[j]) for j in index.T], 1)
  order = np.argsort(distance, 1, kind="stable")
  index = np.take_along_axis(index, order, 1)
  distance = np.take_along_axis(distance, order, 1)
  apart = _exact(real, real[twin[:, 0]])[index[:, 0]]
  # Where training rows themselves are twins, a copy of them is one, too.
  ratio = np.where(distance[:, 0] == 0, 0.0,
                   distance[:, 0] / np.maximum(apart, 1e-300))  # fmt: skip
  return Copies(index, distance, ratio)


def _exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Distances [N] of rows to rows."""
  parts = [
    np.linalg.norm(np.asarray(a[i : i + 4096], np.float64) - b[i : i + 4096],
                   axis=1)
    for i in range(0, len(a), 4096)
  ]  # fmt: skip
  return np.concatenate(parts)
