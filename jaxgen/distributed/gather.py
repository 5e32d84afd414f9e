"""What several processes know of each other: shares of features, bytes of the first."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

Features = dict[str, np.ndarray]


def look(
  features: Callable[[Sequence[np.ndarray], tuple[str, ...]], Features],
  batches: Sequence[np.ndarray],
  taps: tuple[str, ...],
) -> Features:
  """Features of all images, the same on every process.

  Args:
    features: What looks, see `collect.Extractor`.
    batches: uint8 [n, H, W, 3] each, the same on every process.
    taps: Which features.

  Returns: Numbers [N, D] by tap, rows in the order of the images.
  """
  if jax.process_count() == 1:
    return features(iter(batches), taps)
  images = [x for batch in batches for x in batch]
  i, n = jax.process_index(), -(-len(images) // jax.process_count())
  # All look at as many; those at the end, at the last one again.
  own = [images[min(j, len(images) - 1)][None] for j in range(i * n, i * n + n)]
  return joined(features(iter(own), taps), len(images))


def joined(own: Mapping[str, np.ndarray], count: int) -> Features:
  """The first `count` rows of all processes, one after the other."""
  gathered = multihost_utils.process_allgather(dict(own), tiled=True)
  return {tap: np.asarray(rows)[:count] for tap, rows in gathered.items()}


def from_first(content: bytes) -> bytes:
  """Bytes of process 0, any number of them, on all; the others' are not looked at."""
  if jax.process_count() == 1:
    return content
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
  own = np.zeros(size, np.uint8)
  if jax.process_index() == 0:
    own[:] = np.frombuffer(content, np.uint8)
  return np.asarray(multihost_utils.broadcast_one_to_all(own), np.uint8).tobytes()


def total(own: Mapping[str, float]) -> dict[str, float]:
  """Sums over all processes, to float32's precision; alone the numbers themselves."""
  if jax.process_count() == 1:
    return dict(own)
  sums = multihost_utils.process_allgather(np.array(list(own.values()), np.float32)).sum(0)
  return dict(zip(own, map(float, sums), strict=True))
