"""Directions in a generator's latents along which images change most.

Nothing is trained: they are read from weights (SeFa: Shen & Zhou 2021) or from
draws (GANSpace: Härkönen et al. 2020).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Directions(NamedTuple):
  """Unit vectors [K, W], the strongest first, and the length of a unit of strength [K]."""

  vectors: Array
  lengths: Array


def sefa(kernels: Sequence[Array]) -> Directions:
  """Eigenvectors of A'A, where A are all that layers do with a latent at first.

  Shen & Zhou 2021, Eq. 5: |A n| is largest for the first of them. As in their
  code every output's weights have length 1 before. A unit of strength is a
  length of 1, where latents have about W^1/2.

  Args:
    kernels: [W, outputs] of the layers that are to change: of a StyleGAN2 the
      affine layers of those styles; of other generators the one that reads z.
  """
  A = jnp.concatenate([k.reshape(len(k), -1) for k in kernels], -1)
  A /= jnp.maximum(jnp.linalg.norm(A, axis=0), 1e-12)
  _, vectors = jnp.linalg.eigh(jnp.matmul(A, A.T, precision="highest"))
  vectors = pointed(vectors.T[::-1])
  return Directions(vectors, jnp.ones(len(vectors)))


def principal(latents: Array) -> Directions:
  """Principal components of draws [N, W]; a unit of strength is a standard deviation.

  Härkönen et al. 2020, Sec. 2.2, of styles w.
  """
  centred = latents - jnp.mean(latents, 0)
  covariance = jnp.matmul(centred.T, centred, precision="highest") / len(latents)
  variances, vectors = jnp.linalg.eigh(covariance)
  return Directions(pointed(vectors.T[::-1]), jnp.sqrt(jnp.maximum(variances[::-1], 0)))


def pointed(vectors: Array) -> Array:
  """Rows with their largest entry positive: eigenvectors have no sign of their own."""
  largest = jnp.argmax(jnp.abs(vectors), -1, keepdims=True)
  return vectors * jnp.sign(jnp.take_along_axis(vectors, largest, -1))


def moved(
  latents: Array, directions: Directions, index: Array | int, strength: Array | float
) -> Array:
  """Latents [B, ..., W] along one direction, by so many units."""
  return latents + strength * directions.lengths[index] * directions.vectors[index]
