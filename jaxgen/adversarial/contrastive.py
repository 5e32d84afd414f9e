"""Contrastive losses over a batch's pairs (Shoshan et al. 2021, Eqs. 1-3).

Of the features that a predictor finds in images; distances are [B, B].
"""

import jax
import jax.numpy as jnp
from jax.nn import relu

Array = jax.Array
LEAST_SHARE = 0.01  # of an image's pixels, for what is measured in a part of it


def sum_of_squares(a: Array) -> Array:
  """Features [B, ...] -> distances [B, B]; as of the published identity."""
  a = a.reshape(len(a), -1)
  return jnp.sum((a[:, None] - a[None]) ** 2, -1)


def mean_absolute(a: Array) -> Array:
  """Features [B, ...] -> distances [B, B]; as of published pose, expression and age."""
  a = a.reshape(len(a), -1)
  return jnp.mean(jnp.abs(a[:, None] - a[None]), -1)


def mean_absolute_of_parts(a: Array) -> Array:
  """Of features [B, K + 1], whose last is the share of pixels that they were measured on.

  Where that is not above LEAST_SHARE for both, the distance is zero: as of the
  published colour of hair, [0, 1] for each of K channels.
  """
  there = jax.lax.stop_gradient(a[:, -1]) > LEAST_SHARE
  both = there[:, None] & there[None]
  return both * mean_absolute(a[:, :-1])


def contrast(
  distances: Array, pairs: Array, lo: Array | float, hi: Array | float
) -> tuple[Array, Array]:
  """How far pairs are above `lo` apart, and all others below `hi`: two means, [].

  Eqs. 2 and 3, over the strict lower triangle of `distances` [B, B]; `pairs`
  [B / 2] are same, all else is not, even if it happens to be. Their sum is
  the loss.
  """
  n = len(distances)
  row, column = jnp.arange(n)[:, None], jnp.arange(n)[None]
  neighbours = (row == column + 1) & (row % 2 == 1)
  same = neighbours & jnp.repeat(pairs, 2)[:, None]
  rest = (row > column) & ~same
  mean = lambda where, x: jnp.sum(jnp.where(where, x, 0.0)) / jnp.maximum(jnp.sum(where), 1)
  return mean(same, relu(distances - lo)), mean(rest, relu(hi - distances))
