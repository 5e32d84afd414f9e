"""Smaller copies of images, which upsamplers are trained on."""

import jax
import jax.numpy as jnp

Array = jax.Array


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
