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


class Nearness(NamedTuple):
  """How near images are to their nearest training image: [N] each.

  image: which one that is, in feature space.
  features: Euclidean distance to it, there.
  pixels: root mean square difference to it or its mirror image, 0 .. 255.
  """

  image: np.ndarray
  features: np.ndarray
  pixels: np.ndarray


def nearness(f: np.ndarray, x: np.ndarray, real_f: np.ndarray, real_x: np.ndarray) -> Nearness:
  """Of images x uint8 [N, H, W, C], whose features are f [N, D].

  Among training images real_x uint8 [M, H, W, C], of features real_f [M, D].
  """
  _, index = nearest(f, real_f, 1)
  image = index[:, 0]
  return Nearness(image, _exact(f, real_f[image]), pixel_distance(x, real_x, image))


def pixel_distance(x: np.ndarray, y: np.ndarray, index: np.ndarray) -> np.ndarray:
  """Root mean square difference of x[i] to y[index[i]], or it mirrored, [N]."""
  distances = []
  for image, i in zip(x, index, strict=True):  # one by one: y may lie on disk
    a, b = image.astype(np.float64), y[i].astype(np.float64)
    distances.append(min(np.mean((a - b) ** 2), np.mean((a - b[:, ::-1]) ** 2)))
  return np.sqrt(distances)


class CopyShare(NamedTuple):
  """How many samples are as near to training images as few new images are.

  share: of samples, in [0, 1].
  floor: of held-out real images, by the same rule: LEVEL or less, but for few.
  samples: [n] the most copy-like samples, worst first.
  images: [n] their nearest training images.
  ratio: [n] their distances over those that a copy has at most: 1 or less is a copy.
  """

  share: float
  floor: float
  samples: np.ndarray
  images: np.ndarray
  ratio: np.ndarray


LEVEL = 0.05  # share of new images that are nearer, by each measure alone


def copy_share(own: Nearness, held: Nearness, most: int = 10) -> CopyShare:
  """Copies among samples, by what held-out real images are like.

  A copy is nearer to its training image than all but LEVEL of the held-out
  images are to theirs, in features and in pixels too: features alone may
  overlook what pixels show, and in pixels all is near what is blurred.
  """
  limits = [np.quantile(a, LEVEL, method="lower") for a in (held.features, held.pixels)]

  def far(near: Nearness) -> np.ndarray:  # up to 1: a copy
    parts = zip((near.features, near.pixels), limits, strict=True)
    return np.max([a / max(limit, 1e-12) for a, limit in parts], 0)

  x, real = far(own), far(held)
  worst = np.argsort(x, kind="stable")[:most]
  shares = float(np.mean(x <= 1)), float(np.mean(real <= 1))
  return CopyShare(*shares, worst, own.image[worst], x[worst])
