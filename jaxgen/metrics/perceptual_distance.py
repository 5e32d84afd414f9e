"""How far apart two images look: LPIPS (Zhang et al. 2018, Eq. 1)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Array = jax.Array
EPS = 1e-10  # as the reference: features of zero length stay zero


def distance(
  a: Sequence[Array], b: Sequence[Array], weights: Sequence[Array] | None = None
) -> Array:
  """Distances [B] of images by their features in several layers, 0 for equal.

  d = sum_l mean_hw sum_c w_lc (a_lhwc / |a_lhw| - b_lhwc / |b_lhw|)^2

  (The paper writes w within the square; its code, and we, have it outside.)

  Args:
    a, b: [B, H_l, W_l, C_l] of every layer l.
    weights: w, [C_l] of every layer; None: all are 1, and every layer counts
      alike, between 0 and 4.

  Raises:
    ValueError: features, or weights, do not fit each other.
  """
  shapes = [[x.shape for x in side] for side in (a, b)]
  if not a or shapes[0] != shapes[1]:
    raise ValueError(f"features of shapes {shapes[0]} and {shapes[1]}.")
  if weights is None:
    weights = [jnp.ones(x.shape[-1]) for x in a]
  if [w.shape for w in weights] != [s[-1:] for s in shapes[0]]:
    raise ValueError(f"weights of shapes {[w.shape for w in weights]} for features of {shapes[0]}.")
  layers = zip(a, b, weights, strict=True)
  return sum(jnp.mean((unit(x) - unit(y)) ** 2 @ w, (1, 2))
             for x, y, w in layers)  # fmt: skip


def unit(x: Array) -> Array:
  """Features [.., C] of length 1."""
  # Not of zero, where a root has no slope: losses are differentiated here.
  length = jnp.sqrt(jnp.maximum(jnp.sum(x**2, -1, keepdims=True), 1e-30))
  return x / (length + EPS)
