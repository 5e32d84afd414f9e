"""Consistency: the discriminator is to mind no harmless change of an image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
Disc = Callable[[Array], Array]  # [B, ...] -> [B]
Change = Callable[[Array, Array], Array]  # (x [B, ...], keys [B]) -> x


def flip_and_shift(x: Array, key: Array, share: float = 0.125) -> Array:
  """Mirrors half of the images [B, H, W, C] and shifts all, reflecting.

  By up to `share` of height and width each way: 4 of 32 pixels, as Zhang et
  al. (2020) do on CIFAR-10.
  """

  def one(x, key):
    k_flip, *k_shift = jax.random.split(key, 3)
    x = jnp.where(jax.random.bernoulli(k_flip), x[:, ::-1], x)
    most = [int(share * n) for n in x.shape[:2]]
    padded = jnp.pad(x, [(m, m) for m in most] + [(0, 0)], "reflect")
    corner = [jax.random.randint(k, (), 0, 2 * m + 1) for k, m in zip(k_shift, most, strict=True)]
    return jax.lax.dynamic_slice(padded, (*corner, 0), x.shape)

  return jax.vmap(one)(x, key)


def consistency(
  D: Disc,
  real: Array,
  fake: Array,
  key: Array,
  weight: float = 10.0,
  change: Change = flip_and_shift,
) -> Array:
  """CR: mean of (D(x) - D(T(x)))^2 at real data (Zhang et al. 2020)."""
  del fake
  return weight * distance(D, real, key, change)


def balanced(
  D: Disc,
  real: Array,
  fake: Array,
  key: Array,
  weight: float = 10.0,
  weight_fake: float = 10.0,
  change: Change = flip_and_shift,
) -> Array:
  """bCR: at fakes, too (Zhao et al. 2021, Alg. 1)."""
  keys = (jax.vmap(jax.random.fold_in, (0, None))(key, i) for i in (0, 1))
  return sum(
    w * distance(D, x, k, change)
    for w, x, k in zip((weight, weight_fake), (real, fake), keys, strict=True)
  )


def distance(D: Disc, x: Array, key: Array, change: Change) -> Array:
  """How far logits move with the images, mean of squares."""
  return jnp.mean((D(x) - D(change(x, key))) ** 2)
