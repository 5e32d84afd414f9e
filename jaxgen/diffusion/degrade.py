"""What images lose: size, colour, parts, sharpness; and what JPEG and edges leave.

All take images [B, H, W, C] in [-1, 1] and are differentiable. What is linear here
has its adjoint and its inverse in `diffusion.linear`. Strengths (`width`, `quality`)
may be traced; sizes may not.
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601, as in JPEG and Pillow
# The tables of JPEG's standard for quality 50 (ITU-T T.81, Tables K.1 and K.2).
LUMA_TABLE = """
  16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56
  14 17 22 29 51 87 80 62  18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92
  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
CHROMA_TABLE = """
  17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99
  47 66 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
# RGB -> Y, Cb, Cr, both of these about 128 (JFIF 1.02).
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def area(x: Array, size: int) -> Array:
  """Means over equal boxes, [B, H, W, C] -> [B, size, size, C].

  ADM's upsamplers are trained with it (Dhariwal & Nichol 2021, Sec. 5).
  """
  b, h, w, c = x.shape
  if h % size or w % size:
    raise ValueError(f"{h}x{w} cannot be cut into {size}x{size} equal boxes")
  boxes = x.reshape(b, size, h // size, size, w // size, c)
  return jnp.mean(boxes, (2, 4))


def bicubic(x: Array, size: int) -> Array:
  """By Keys' kernel without aliasing, [B, H, W, C] -> [B, size, size, C].

  What Pillow's BICUBIC does, but for its rounding to bytes: SR3's choice.
  """
  shape = len(x), size, size, x.shape[-1]
  return jax.image.resize(x, shape, "bicubic", antialias=True)


def enlarged(conditions: dict[str, Array], shape: tuple[int, ...], how: str = "bicubic") -> Array:
  """Conditions -> their `low_res` enlarged to `shape`, for `around`.

  With the noise of its augmentation, which should be low, then.
  """
  return jax.image.resize(conditions["low_res"], shape, how)


def grey(x: Array) -> Array:
  """Luma of RGB, [B, H, W, 3] -> [B, H, W, 1]; grey images stay as they are."""
  if x.shape[-1] == 1:
    return x
  return jnp.sum(x * jnp.asarray(LUMA, x.dtype), -1, keepdims=True)


def mask(x: Array, keep: Array, fill: float | Array = 0.0) -> Array:
  """x where `keep` is 1, else `fill`; keep in [0, 1], [B or 1, H, W, 1]."""
  return keep * x + (1 - keep) * fill


def centre(height: int, width: int, share: float = 0.5) -> np.ndarray:
  """A mask to `keep` all but a box in the middle, float32 [1, H, W, 1].

  The box takes `share` of height and of width, rounded to whole pixels.
  """
  box = [(n - round(share * n)) // 2 for n in (height, width)]
  inside = np.zeros((height, width), bool)
  inside[box[0] : box[0] + round(share * height), box[1] : box[1] + round(share * width)] = True
  return (~inside).astype(np.float32)[None, :, :, None]


def boxes(key: Array, height: int, width: int, lo: float = 0.25, hi: float = 0.5) -> Array:
  """Masks to `keep` all but a random box, keys [B] -> float32 [B, H, W, 1].

  Its sides take a share of the image's that is drawn evenly from [lo, hi], and its
  place is drawn evenly among those where it fits: what inpainting is trained with.
  """

  def along(key: Array, n: int) -> Array:  # bool [n], whether in the box
    size_key, place_key = jax.random.split(key)
    size = jnp.round(n * jax.random.uniform(size_key, minval=lo, maxval=hi))
    first = jnp.floor((n - size + 1) * jax.random.uniform(place_key))
    return (jnp.arange(n) >= first) & (jnp.arange(n) < first + size)

  def one(key: Array) -> Array:
    rows, columns = jax.random.split(key)
    inside = along(rows, height)[:, None] & along(columns, width)
    return 1.0 - inside[..., None].astype(jnp.float32)

  return jax.vmap(one)(key)


def blur(x: Array, width: float | Array) -> Array:
  """By a Gaussian of standard deviation `width` >= 0 pixels, edges mirrored.

  In cosines, in which it is a product: the heat equation in a box whose walls let
  nothing out (Rissanen et al. 2023). The mean of an image stays.
  """
  for axis in (1, 2):
    basis, rates = cosines(x.shape[axis])
    matrix = (basis.T * jnp.exp(-0.5 * (rates * width) ** 2)) @ basis
    x = jnp.moveaxis(jnp.tensordot(matrix, x, ((1,), (axis,))), 0, axis)
  return x


def cosines(n: int) -> tuple[np.ndarray, np.ndarray]:
  """The orthonormal DCT-II, float32 [n, n], rows are waves; radians per pixel [n]."""
  rates = np.pi * np.arange(n) / n
  waves = np.cos(rates[:, None] * (np.arange(n) + 0.5)) * np.sqrt(2 / n)
  waves[0] /= np.sqrt(2)
  return waves.astype(np.float32), rates.astype(np.float32)


def edges(x: Array, gain: float | Array = 1.0) -> Array:
  """Sobel's magnitude of luma as black lines on white, [B, H, W, C] -> [B, H, W, 1].

  1 - 2 min(gain |g|, 1), where |g| is 1 at a straight step from black to white.
  Pixels beyond the border are copies of those on it.
  """
  y = jnp.pad((grey(x) + 1) / 2, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")

  def slope(y: Array, axis: int) -> Array:  # Sobel's: (1, 2, 1) across (-1, 0, 1), over 4
    cut = lambda y, axis, i: jax.lax.slice_in_dim(y, i, i + y.shape[axis] - 2, axis=axis)
    step = cut(y, axis, 2) - cut(y, axis, 0)
    a, b, c = (cut(step, 3 - axis, i) for i in range(3))
    return (a + 2 * b + c) / 4

  # The root's slope at zero is no number: keep away from it, by less than a byte's step.
  magnitude = jnp.sqrt(slope(y, 1) ** 2 + slope(y, 2) ** 2 + 1e-12) - 1e-6
  return 1 - 2 * jnp.clip(gain * magnitude, 0, 1)


def jpeg(x: Array, quality: float | Array, subsample: int = 1) -> Array:
  """What a JPEG file leaves, [B, H, W, 1 or 3] -> the same shape, in [-1, 1].

  Baseline JPEG: rounded bytes, YCbCr, 8x8 DCT, the standard's tables scaled by the
  rule of the Independent JPEG Group's library. Gradients pass each rounding as if
  it were none.

  Args:
    x: In [-1, 1]; sides of any length.
    quality: 1 (worst) to 100.
    subsample: 2 halves the sides of the colours, as most writers do (4:2:0);
      1 does not (4:4:4).
  """
  _, h, w, c = x.shape
  if c not in (1, 3):
    raise ValueError(f"JPEG holds 1 or 3 channels, not {c}")
  ycc = _bytes((x + 1) * 127.5)
  if c == 3:
    ycc = _bytes(ycc @ jnp.asarray(YCC, x.dtype).T + jnp.asarray((0.0, 128.0, 128.0)))
  luma = _coded(ycc[..., :1], _table(LUMA_TABLE, quality))
  if c == 1:
    return luma / 127.5 - 1
  chroma = ycc[..., 1:]
  if subsample > 1:
    pads = [(0, 0), *[(0, -n % subsample) for n in (h, w)], (0, 0)]
    chroma = jnp.pad(chroma, pads, mode="edge")
    full = chroma.shape
    small = chroma.reshape(full[0], full[1] // subsample, subsample, -1, subsample, 2)
    chroma = _coded(_bytes(jnp.mean(small, (2, 4))), _table(CHROMA_TABLE, quality))
    chroma = jax.image.resize(chroma, full, "linear")[:, :h, :w]
  else:
    chroma = _coded(chroma, _table(CHROMA_TABLE, quality))
  ycc = jnp.concatenate([luma, chroma - 128], -1)
  return _bytes(ycc @ jnp.asarray(np.linalg.inv(YCC), x.dtype).T) / 127.5 - 1


def jpegs(key: Array, x: Array, lo: float = 5.0, hi: float = 30.0, subsample: int = 1) -> Array:
  """What JPEG files of qualities that are drawn leave, keys [B], [B, H, W, C] -> the same.

  Each image's is a whole number from `lo` to `hi`, all alike: what Palette is
  trained to restore (Saharia et al. 2022, Sec. 4.4: 5 to 30).
  """
  u = jax.vmap(jax.random.uniform)(key)
  quality = jnp.minimum(jnp.floor(lo + (hi - lo + 1) * u), hi)
  return jax.vmap(lambda x, q: jpeg(x[None], q, subsample)[0])(x, quality)


def _table(text: str, quality: float | Array) -> Array:
  """[8, 8] of whole numbers: steps of the coefficients at this quality."""
  quality = jnp.clip(jnp.asarray(quality, jnp.float32), 1, 100)
  scale = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
  table = np.array(text.split(), np.float32).reshape(8, 8)
  return jnp.clip(jnp.floor((table * scale + 50) / 100), 1, 255)


def _coded(plane: Array, table: Array) -> Array:
  """Bytes [B, H, W, C], through rounded coefficients of 8x8 blocks, to bytes."""
  b, h, w, c = plane.shape
  padded = jnp.pad(plane, [(0, 0), (0, -h % 8), (0, -w % 8), (0, 0)], mode="edge")
  dct, _ = cosines(8)
  blocks = padded.reshape(b, (h + 7) // 8, 8, (w + 7) // 8, 8, c) - 128
  waves = jnp.einsum("ui,vj,bhiwjc->bhuwvc", dct, dct, blocks)
  steps = table[:, None, :, None]
  waves = steps * _rounded(waves / steps)
  blocks = jnp.einsum("ui,vj,bhuwvc->bhiwjc", dct, dct, waves) + 128
  return _bytes(blocks.reshape(padded.shape)[:, :h, :w])


def _bytes(x: Array) -> Array:
  return jnp.clip(_rounded(x), 0, 255)


def _rounded(x: Array) -> Array:
  """To whole numbers; its slope is taken to be 1 (a "straight-through" gradient)."""
  whole = jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)  # halves away from zero, as JPEG writers do
  return x + jax.lax.stop_gradient(whole - x)
