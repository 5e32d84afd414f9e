"""ADA's geometric transforms: one inverse affine warp for each image.

Transforms are composed as in the reference (Karras et al. 2020b, App. B), and
like there an image is reflected beyond its edges, filtered to twice its
resolution, read bilinearly, and filtered down again. Two differences: the
filter is Lanczos-3 in place of the wavelet sym6; it is symmetric, so edges
reflect without end, and nothing is padded. And what is only flipped, turned by
right angles and shifted by whole pixels is copied, not filtered.

An inverse map, [3, 3], takes pixels of the result to pixels of the source:
both are columns (x, y, 1), counted from the middle of the image.
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
BLIT = ("xflip", "rotate90", "xint")
GEOMETRY = ("scale", "rotate", "aniso", "xfrac")
REACH = 5  # of the filter, in samples of the doubled resolution


def blit(
  key: Array, chance: dict[str, Array], shape: tuple[int, ...], most: float = 0.125
) -> Array:
  """One key -> inverse map of a flip, right angles and a whole shift.

  `most`: of a shift, as a share of width and height [H, W, C].
  """
  M, size = jnp.eye(3), jnp.array(shape[1::-1])
  k = dict(zip(BLIT, jax.random.split(key, len(BLIT)), strict=True))
  on = lambda name: drawn(k[name], chance[name])
  flip = on("xflip") & jax.random.bernoulli(fold(k["xflip"]))
  M = dot(M, scaling(jnp.stack([1.0 - 2 * flip, 1.0])))
  i = on("rotate90") * jax.random.randint(fold(k["rotate90"]), (), 0, 4)
  cos, sin = jnp.array([[1.0, 0, -1, 0], [0.0, 1, 0, -1]])[:, i]
  M = dot(M, rotation(cos, sin))
  shift = jax.random.uniform(fold(k["xint"]), (2,), minval=-most, maxval=most)
  return dot(M, translation(on("xint") * jnp.round(shift * size)))


def geometry(
  key: Array,
  chance: dict[str, Array],
  shape: tuple[int, ...],
  std: float = 0.2,
  move: float = 0.125,
) -> tuple[Array, Array]:
  """One key -> inverse map of all the others; whether any was drawn.

  `std`: of scale and aspect, in octaves; `move`: of the shift, as a share.
  """
  M, size = jnp.eye(3), jnp.array(shape[1::-1])
  # Two rotations, before and after the change of aspect: one chance in all.
  chance = chance | {"rotate": 1 - jnp.sqrt(jnp.clip(1 - chance["rotate"], 0))}
  order = ("scale", "rotate", "aniso", "rotate", "xfrac")
  some = jnp.zeros((), bool)
  for name, k in zip(order, jax.random.split(key, len(order)), strict=True):
    on, k = drawn(k, chance[name]), fold(k)
    if name == "scale":
      step = scaling(jnp.exp2(-std * jax.random.normal(k)) * jnp.ones(2))
    elif name == "aniso":
      s = jnp.exp2(-std * jax.random.normal(k))
      step = scaling(jnp.stack([s, 1 / s]))
    elif name == "rotate":
      theta = jax.random.uniform(k, minval=-jnp.pi, maxval=jnp.pi)
      step = rotation(jnp.cos(theta), jnp.sin(theta))
    else:
      step = translation(move * jax.random.normal(k, (2,)) * size)
    M, some = dot(M, jnp.where(on, step, jnp.eye(3))), some | on
  return M, some


def gather(x: Array, M: Array) -> Array:
  """x [H, W, C] by an inverse map that takes pixels to pixels; copies."""
  h, w = x.shape[:2]
  col, row = source(M, np.arange(h), np.arange(w), x.shape)
  return x[fold_back(jnp.round(row), h).astype(int), fold_back(jnp.round(col), w).astype(int)]


def resample(x: Array, M: Array) -> Array:
  """x [H, W, C] by any inverse map, without aliases."""
  shape, twice = x.shape, [2 * n - 1 for n in x.shape[:2]]
  fine = [np.arange(-REACH, n + REACH) / 2 for n in twice]
  col, row = (2 * c for c in source(M, *fine, shape))
  x = separable(x, *(doubling(n) for n in shape[:2]))
  row, col = fold_back(row, twice[0]), fold_back(col, twice[1])
  top, left = (jnp.clip(jnp.floor(c), 0, n - 2) for c, n in zip((row, col), twice, strict=True))
  a, b = (row - top)[..., None], (col - left)[..., None]
  i, j = top.astype(int), left.astype(int)
  upper = (1 - b) * x[i, j] + b * x[i, j + 1]
  lower = (1 - b) * x[i + 1, j] + b * x[i + 1, j + 1]
  return separable((1 - a) * upper + a * lower, *(halving(n) for n in shape[:2]))


def source(
  M: Array, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, ...]
) -> tuple[Array, Array]:
  """Where pixels of the result come from -> columns, rows [len, len]."""
  middle = [(n - 1) / 2 for n in shape[:2]]
  v, u = np.meshgrid(rows - middle[0], cols - middle[1], indexing="ij")
  # Not a matrix product: accelerators would round the coordinates.
  x, y = (M[i, 0] * u + M[i, 1] * v + M[i, 2] for i in (0, 1))
  return x + middle[1], y + middle[0]


def fold_back(i: Array, n: int) -> Array:
  """Indices reflected at the middles of the first and the last pixel."""
  return (n - 1) - jnp.abs(jnp.mod(i, 2 * (n - 1)) - (n - 1))


def lanczos(x: np.ndarray) -> np.ndarray:
  """Lanczos-3 in samples."""
  return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


def doubling(n: int) -> np.ndarray:
  """[2n - 1, n]: samples, and values halfway between them."""
  out = np.zeros((2 * n - 1, n))
  for i in range(2 * n - 1):
    for j in range(i // 2 - 3, i // 2 + 4):
      back = n - 1 - abs(j % (2 * (n - 1)) - (n - 1))
      out[i, back] += lanczos(i / 2 - j)
  return out / out.sum(1, keepdims=True)


def halving(n: int) -> np.ndarray:
  """[n, 2n - 1 + 2 REACH]: every second of filtered samples."""
  out = np.zeros((n, 2 * n - 1 + 2 * REACH))
  for i in range(n):
    out[i, 2 * i : 2 * i + 2 * REACH + 1] = lanczos(np.arange(-REACH, REACH + 1) / 2)
  return out / out.sum(1, keepdims=True)


def separable(x: Array, A: np.ndarray, B: np.ndarray) -> Array:
  """Rows by A and columns by B: [H, W, C] -> [len(A), len(B), C]."""
  return jnp.einsum("ah,bw,hwc->abc", jnp.float32(A), jnp.float32(B), x, precision="highest")


def scaling(s: Array) -> Array:
  """[2] -> [3, 3]."""
  return jnp.diag(jnp.concatenate([s, jnp.ones(1)]))


def rotation(cos: Array, sin: Array) -> Array:
  """[3, 3]."""
  return jnp.eye(3).at[:2, :2].set(jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])]))


def translation(t: Array) -> Array:
  """Of an image by t [2] pixels: the inverse map looks back."""
  return jnp.eye(3).at[:2, 2].set(-t)


def drawn(key: Array, chance: Array) -> Array:
  """Whether it happens, []."""
  return jax.random.uniform(key) < chance


def fold(key: Array) -> Array:
  """Another key."""
  return jax.random.fold_in(key, 1)


def dot(a: Array, b: Array) -> Array:
  """Without the short cuts that accelerators take."""
  return jnp.matmul(a, b, precision="highest")
