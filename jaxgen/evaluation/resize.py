"""FID's resize: how images come to the size of a network.

FID is defined with TensorFlow 1's (`tf1`, to InceptionV3's 299 x 299), and other
evaluators have PyTorch's (`half_pixel`) or PIL's (`clean`): other grids, other
numbers. What PIL defines is resized on the host, by PIL; the rest on devices,
in one program for all images of a size.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxgen.errors import UserError

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


def interpolate(x: Array, rows: Grid, columns: Grid) -> Array:
  """[H, W, C] of any type -> [len(rows), len(columns), C] float32.

  Columns first, then rows, in this order of operations: equal to the last
  bit to the references', but for fused multiply-adds.
  """
  x = x.astype(jnp.float32)
  left, right = x[:, columns.lo], x[:, columns.hi]
  x = left + (right - left) * columns.d[None, :, None]
  top, bottom = x[rows.lo], x[rows.hi]
  return top + (bottom - top) * rows.d[:, None, None]


Images = Sequence[np.ndarray]  # uint8 [H, W, C] each
BICUBIC = Image.Resampling.BICUBIC


class Entry(NamedTuple):
  """A way of images to what a network takes.

  Attributes:
    prepare: Images -> arrays, on the host. Arrays of rank 1 belong to all
      images, the leading axis of others is theirs.
    enter: These arrays -> x [B, H, W, C], on devices.
  """

  prepare: Callable[[Images], tuple[np.ndarray, ...]]
  enter: Callable[..., Array]


def bilinear(grid: Callable[[int, int], Grid], size: int) -> Entry:
  """Resized on devices. Sizes that differ are padded to a power of two."""
  grid = functools.lru_cache(4096)(functools.partial(grid, out=size))

  def prepare(images):
    sizes = [x.shape[:2] for x in images]
    if len(set(sizes)) == 1:
      return np.stack(images), *grid(sizes[0][0]), *grid(sizes[0][1])
    h, w = (1 << (max(side) - 1).bit_length() for side in zip(*sizes, strict=True))
    x = np.zeros((len(images), h, w, images[0].shape[-1]), np.uint8)
    for i, image in enumerate(images):
      x[i, : image.shape[0], : image.shape[1]] = image
    return x, *(
      np.stack([grid(hw[side])[part] for hw in sizes]) for side in (0, 1) for part in range(3)
    )

  def enter(x, *parts):
    axis = 0 if parts[0].ndim == 2 else None
    return jax.vmap(interpolate, (0, axis, axis))(x, Grid(*parts[:3]), Grid(*parts[3:]))

  return Entry(prepare, enter)


def by_pil(resize: Callable[[np.ndarray, int], np.ndarray], size: int) -> Entry:
  """Resized on the host, by several threads."""

  def prepare(images):
    with ThreadPoolExecutor(8) as pool:
      return (np.stack(list(pool.map(lambda x: resize(x, size), images))),)

  return Entry(prepare, lambda x: x)


def unresized() -> Entry:
  """For images of the network's size, or where it takes any."""

  def prepare(images):
    if len({x.shape for x in images}) > 1:
      raise UserError("images of several sizes want a resize")
    return (np.stack(images),)

  return Entry(prepare, lambda x: x)


def check_images(images: Images, channels: int | None) -> None:
  """UserError unless they are bytes [H, W, C], of so many channels."""
  for x in images:
    if x.dtype != np.uint8 or x.ndim != 3 or channels not in (None, x.shape[2]):
      raise UserError(
        f"wanted are images uint8 [H, W, {channels or 'C'}], not {x.dtype} {list(x.shape)}"
      )


def clean(image: np.ndarray, size: int) -> np.ndarray:
  """clean-fid's: uint8 [H, W, C] -> float32 [size, size, C] in 0 .. 255.

  Bicubic, smoothed before it shrinks, each channel by itself in float, so that
  nothing is rounded; what overshoots is clipped (Parmar et al. 2022).
  """
  return smooth(image, size).clip(0, 255)


def smooth(image: np.ndarray, size: int) -> np.ndarray:
  """The same without clipping: PyTorch's antialiased bicubic, as in EDM2."""
  return np.stack(
    [
      np.asarray(Image.fromarray(image[..., c].astype(np.float32)).resize((size, size), BICUBIC))
      for c in range(image.shape[-1])
    ],
    -1,
  )


def rounded(image: np.ndarray, size: int) -> np.ndarray:
  """PIL's bicubic of bytes, as dgm-eval has it; float32 of whole numbers."""
  return np.asarray(Image.fromarray(image).resize((size, size), BICUBIC), np.float32)
