"""ADA's colour transforms: one affine map of colours for each image.

Brightness, contrast, luma flip, hue rotation and saturation, as the reference
has them (Karras et al. 2020b, App. B, Table "colour transformations").
"""

import jax
import jax.numpy as jnp

Array = jax.Array
NAMES = ("brightness", "contrast", "lumaflip", "hue", "saturation")
LUMA = 3**-0.5  # each component of the unit vector along gray


def matrix(key: Array, chance: dict[str, Array], channels: int) -> tuple[Array, Array]:
  """One key -> a map of colours [4, 4], and whether any was drawn.

  Gray images have no hue and no saturation.
  """
  C, some = jnp.eye(4), jnp.zeros((), bool)
  names = NAMES if channels == 3 else NAMES[:3]
  for i, name in enumerate(names):
    k_on, k = jax.random.split(jax.random.fold_in(key, i))
    on = jax.random.uniform(k_on) < chance[name]
    C = jnp.where(on, dot(globals()[name](k), C), C)
    some |= on
  return C, some


def apply(C: Array, x: Array) -> Array:
  """x [H, W, C] through the map; one channel takes the mean of three."""
  if x.shape[-1] == 1:
    row = jnp.mean(C[:3], 0)
    return x * jnp.sum(row[:3]) + row[3]
  return dot(x, C[:3, :3].T) + C[:3, 3]


def brightness(key: Array, std: float = 0.2) -> Array:
  """Adds the same to all."""
  return jnp.eye(4).at[:3, 3].set(std * jax.random.normal(key))


def contrast(key: Array, std: float = 0.5) -> Array:
  """Multiplies all."""
  return affine(jnp.exp2(std * jax.random.normal(key)) * jnp.eye(3))


def lumaflip(key: Array) -> Array:
  """Mirrors gray, and leaves hue and saturation: for one image in two."""
  i = jax.random.bernoulli(key).astype(jnp.float32)
  return affine(jnp.eye(3) - 2 * i * gray())


def hue(key: Array, most: float = 1.0) -> Array:
  """Rotates around gray by an angle of up to `most` pi."""
  theta = jnp.pi * most * jax.random.uniform(key, minval=-1.0, maxval=1.0)
  cross = LUMA * jnp.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
  c, s = jnp.cos(theta), jnp.sin(theta)  # Rodrigues
  return affine(c * jnp.eye(3) + s * cross + (1 - c) * gray())


def saturation(key: Array, std: float = 1.0) -> Array:
  """Multiplies what is not gray."""
  s = jnp.exp2(std * jax.random.normal(key))
  return affine(gray() + s * (jnp.eye(3) - gray()))


def gray() -> Array:
  """The projection on gray, [3, 3]."""
  return jnp.full((3, 3), LUMA**2)


def affine(A: Array) -> Array:
  """A [3, 3] -> [4, 4]."""
  return jnp.eye(4).at[:3, :3].set(A)


def dot(a: Array, b: Array) -> Array:
  """Without the short cuts that accelerators take."""
  return jnp.matmul(a, b, precision="highest")
