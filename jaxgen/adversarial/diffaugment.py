"""Differentiable augmentation with a fixed strength (Zhao et al. 2020, App. B).

Each transform takes one image [H, W, C] in [-1, 1] and a key [].
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def color(x: Array, key: Array) -> Array:
  """Brightness by +-0.5, saturation by 0 to 2, contrast by 0.5 to 1.5."""
  brightness, saturation, contrast = jax.random.uniform(key, (3,))
  x = x + brightness - 0.5
  gray = jnp.mean(x, -1, keepdims=True)
  x = gray + 2 * saturation * (x - gray)
  mean = jnp.mean(x)
  return mean + (contrast + 0.5) * (x - mean)


def translation(x: Array, key: Array, share: float = 0.125) -> Array:
  """Shifts by up to `share` of height and width; black (0) comes in."""
  most = [int(share * n + 0.5) for n in x.shape[:2]]
  padded = jnp.pad(x, [(m, m) for m in most] + [(0, 0)])
  corner = [
    jax.random.randint(k, (), 0, 2 * m + 1)
    for k, m in zip(jax.random.split(key), most, strict=True)
  ]
  return jax.lax.dynamic_slice(padded, (*corner, 0), x.shape)


def cutout(x: Array, key: Array, share: float = 0.5) -> Array:
  """A box of `share` of height and width is 0; it may stick out."""
  outside = jnp.zeros((), bool)
  for axis, k in enumerate(jax.random.split(key)):
    n = x.shape[axis]
    size = int(share * n + 0.5)
    first = jax.random.randint(k, (), 0, n + 1 - size % 2) - size // 2
    i = jnp.expand_dims(jnp.arange(n), [a for a in range(3) if a != axis])
    outside |= (i < first) | (i >= first + size)
  return jnp.where(outside, x, 0)


@dataclasses.dataclass(frozen=True)
class DiffAugment:
  """All of the transforms, on every image."""

  transforms: Sequence[Callable[[Array, Array], Array]] = (color, translation, cutout)

  def init(self) -> dict[str, Array]:
    """Nothing is learned."""
    return {}

  def __call__(self, x: Array, key: Array, stats: Any) -> Array:
    """Images [B, H, W, C], keys [B] -> images."""
    del stats

    def one(x, key):
      keys = jax.random.split(key, len(self.transforms))
      for transform, k in zip(self.transforms, keys, strict=True):
        x = transform(x, k)
      return x

    return jax.vmap(one)(x, key)

  def update(self, stats: Any, real_logits: Array, step: Array, batch: int) -> dict[str, Array]:
    """Nothing is learned."""
    del real_logits, step, batch
    return stats
