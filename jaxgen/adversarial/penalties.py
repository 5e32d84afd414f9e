"""Penalties: on the discriminator's slope, (D, real, fake, key [B]) -> [].

And one on weights: (params) -> [].
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Disc = Callable[[Array], Array]  # [B, ...] -> [B]


def r1(D: Disc, real: Array, fake: Array, key: Array, gamma: float = 10.0) -> Array:
  """Zero-centred, at real data (Mescheder et al. 2018, Eq. 9)."""
  del fake, key
  return gamma / 2 * jnp.mean(squared_slope(D, real))


def r2(D: Disc, real: Array, fake: Array, key: Array, gamma: float = 10.0) -> Array:
  """Zero-centred, at fakes (Mescheder et al. 2018, Eq. 10)."""
  del real, key
  return gamma / 2 * jnp.mean(squared_slope(D, fake))


def gradient_penalty(D: Disc, real: Array, fake: Array, key: Array, weight: float = 10.0) -> Array:
  """One-centred, between real and fake (Gulrajani et al. 2017, Eq. 3)."""
  norm = safe_sqrt(squared_slope(D, interpolate(real, fake, key)))
  return weight * jnp.mean((norm - 1) ** 2)


def orthogonal(params: Any, weight: float = 1e-4) -> Array:
  """Filters of a layer at right angles (Brock et al. 2019, Eq. 3).

  weight * |W'W * (1 - I)|^2, summed over kernels; norms of filters are free,
  and so are embeddings and biases.
  """

  def one(W: Array) -> Array:
    W = W.reshape(-1, W.shape[-1])
    if W.shape[0] >= W.shape[1]:
      gram = jnp.matmul(W.T, W, precision="highest")
      return jnp.sum((gram - jnp.diag(jnp.diag(gram))) ** 2)
    # |W'W| = |WW'|, and where z is mapped to an image W'W has 10^9 entries.
    # (Its many columns cannot be at right angles: the difference is large.)
    gram = jnp.matmul(W, W.T, precision="highest")
    return jnp.sum(gram**2) - jnp.sum(jnp.sum(W**2, 0) ** 2)

  kernels = [
    leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel"
  ]
  return weight * sum(map(one, kernels), jnp.float32(0))


def interpolate(real: Array, fake: Array, key: Array) -> Array:
  """A place drawn on the line from each fake to its real example."""
  u = jax.vmap(jax.random.uniform)(key).reshape(-1, *[1] * (real.ndim - 1))
  return u * real + (1 - u) * fake


def squared_slope(D: Disc, x: Array) -> Array:
  """Squared norm of D's gradient at every example: [B, ...] -> [B]."""
  g = jax.grad(lambda x: jnp.sum(D(x)))(x)
  return jnp.sum(g**2, axis=range(1, g.ndim))


def safe_sqrt(square: Array) -> Array:
  """Square root, whose missing derivative at 0 is taken to be 0."""
  some = square > 0
  return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1.0)), 0.0)
