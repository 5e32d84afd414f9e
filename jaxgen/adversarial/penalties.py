"""Penalties on the discriminator's slope: (D, real, fake, key [B]) -> []."""
from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
Disc = Callable[[Array], Array]  # [B, ...] -> [B]


def r1(D: Disc, real: Array, fake: Array, key: Array, gamma: float = 10.
       ) -> Array:
  """Zero-centred, at real data (Mescheder et al. 2018, Eq. 9)."""
  del fake, key
  return gamma / 2 * jnp.mean(squared_slope(D, real))


def gradient_penalty(D: Disc, real: Array, fake: Array, key: Array,
                     weight: float = 10.) -> Array:
  """One-centred, between real and fake (Gulrajani et al. 2017, Eq. 3)."""
  u = jax.vmap(jax.random.uniform)(key).reshape(-1, *[1] * (real.ndim - 1))
  square = squared_slope(D, u * real + (1 - u) * fake)
  # The root has no derivative at 0: take a subgradient of 0 there.
  norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.)), 0.)
  return weight * jnp.mean((norm - 1) ** 2)


def squared_slope(D: Disc, x: Array) -> Array:
  """Squared norm of D's gradient at every example: [B, ...] -> [B]."""
  g = jax.grad(lambda x: jnp.sum(D(x)))(x)
  return jnp.sum(g ** 2, axis=range(1, g.ndim))
