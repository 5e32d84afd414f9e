"""Large images of small tiles, which overlap and are blended.

Tiles [s, s] become [S, S], whoever enlarges them; the noise that they are made
from is a function of where in the image a pixel lies, so that neighbours begin
alike.
"""

import functools
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import Key
from jaxgen.keys import normal


def tile_starts(n: int, s: int, overlap: int) -> np.ndarray:
  """Where tiles of side s begin that cover n >= s pixels, evenly spread."""
  k = -(-(n - s) // (s - overlap))
  return (n - s) * np.arange(k + 1) // max(k, 1)


def blend_weights(begin: np.ndarray, S: int, ramp: int) -> np.ndarray:
  """Weights float32 [k, S] of tiles along a side; at each pixel they sum to 1.

  They rise over the first `ramp` pixels of a tile and fall over its last.
  """
  i = np.arange(S)
  w = np.minimum(np.minimum(i + 1, S - i), max(ramp, 1)).astype(np.float64)
  total = np.zeros(begin[-1] + S)
  for b in begin:
    total[b : b + S] += w
  return np.stack([w / total[b : b + S] for b in begin]).astype(np.float32)


@functools.partial(jax.jit, static_argnames="shape")
def tile_noise(key: Key, corners: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Standard normal noise of tiles, float32 [n, *shape].

  Each pixel's is drawn from its own row and column alone.

  Args:
    key: [].
    corners: int32 [n, 2], the row and column where each tile begins.
    shape: [S, S, C] of a tile.
  """
  each = jax.vmap(jax.random.fold_in, (None, 0))

  def tile(corner):
    rows = each(key, corner[0] + jnp.arange(shape[0]))
    row = lambda key: normal(each(key, corner[1] + jnp.arange(shape[1])), shape[2:])
    return jax.vmap(row)(rows)

  return jax.vmap(tile)(corners)


class Canvas:
  """An image in the making: takes its tiles in order, row by row.

  Only the result in bytes and one band of float rows are held: rows above the
  next row of tiles are final.

  Attributes:
    image: The result, uint8 [h * factor, w * factor, C].
  """

  def __init__(self, x: np.ndarray, s: int, factor: int, overlap: int):
    self.s, self.factor, self.S = s, factor, s * factor
    h, w, channels = x.shape
    self.x = np.pad(x, ((0, max(0, s - h)), (0, max(0, s - w)), (0, 0)), "reflect")
    self.rows, self.columns = (tile_starts(n, s, overlap) for n in self.x.shape[:2])
    weights = lambda starts: blend_weights(starts * factor, self.S, overlap * factor)
    self.down, self.across = weights(self.rows), weights(self.columns)
    self.image = np.empty((h * factor, w * factor, channels), np.uint8)
    self.band = np.zeros((self.S, self.x.shape[1] * factor, channels), np.float32)
    self.count = 0

  def tiles(self) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Small tiles uint8 [s, s, C], and the pixel where each begins."""
    for i, j in itertools.product(self.rows, self.columns):
      yield self.x[i : i + self.s, j : j + self.s], (i, j)

  def add(self, tile: np.ndarray) -> bool:
    """Takes the next tile, enlarged: uint8 [S, S, C]. True after the last."""
    i, j = divmod(self.count, len(self.columns))
    left = self.columns[j] * self.factor
    weights = self.down[i][:, None, None] * self.across[j][:, None]
    self.band[:, left : left + self.S] += tile * weights
    self.count += 1
    if j + 1 == len(self.columns):
      self.flush(i)
    return self.count == len(self.rows) * len(self.columns)

  def flush(self, i: int) -> None:
    """Moves rows that no further tile will touch from the band to bytes."""
    top = self.rows[i] * self.factor
    n = self.S if i + 1 == len(self.rows) else (self.rows[i + 1] * self.factor - top)
    final = self.image[top : top + n]  # less, where the image was padded
    final[:] = np.rint(self.band[:n], out=self.band[:n])[: len(final), : final.shape[1]]
    self.band[:-n] = self.band[n:]
    self.band[self.S - n :] = 0
