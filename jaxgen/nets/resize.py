"""Resizes of the reference evaluators, exactly: other ones, other numbers."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class Grid(NamedTuple):
  """Where the pixels along one axis come from: lo + (hi - lo) d.

  Attributes:
    lo: [out] int32, pixels before.
    hi: [out] int32, pixels after.
    d: [out] float32 in [0, 1), how far it is from one to the other.
  """
  lo: np.ndarray | Array
  hi: np.ndarray | Array
  d: np.ndarray | Array


def tf1(size: int, out: int) -> Grid:
  """TensorFlow 1's ResizeBilinear, as FID's graph has it.

  Corners are not aligned, nor are centres: pixel i comes from i size / out.
  Nothing is smoothed before it shrinks.
  """
  source = np.arange(out, dtype=np.float32) * np.float32(size / out)
  return between(source, size)


def half_pixel(size: int, out: int) -> Grid:
  """PyTorch's interpolate(mode="bilinear", align_corners=False).

  Centres are aligned: pixel i comes from (i + 1/2) size / out - 1/2.
  """
  i = np.arange(out) + 0.5  # in float64: PyTorch's is fused, rounded once
  source = (i * np.float64(np.float32(size / out)) - 0.5).astype(np.float32)
  return between(np.maximum(source, np.float32(0)), size)


def between(source: np.ndarray, size: int) -> Grid:
  """Neighbours of positions [out] among `size` pixels."""
  lo = np.minimum(source.astype(np.int32), size - 1)
  return Grid(lo, np.minimum(lo + 1, size - 1), source - lo.astype(np.float32))


def bilinear(x: Array, rows: Grid, columns: Grid) -> Array:
  """[H, W, C] of any type -> [len(rows), len(columns), C] float32.

  Columns first, then rows, in this order of operations: equal to the last
  bit to the references', but for fused multiply-adds.
  """
  x = x.astype(jnp.float32)
  left, right = x[:, columns.lo], x[:, columns.hi]
  x = left + (right - left) * columns.d[None, :, None]
  top, bottom = x[rows.lo], x[rows.hi]
  return top + (bottom - top) * rows.d[:, None, None]
