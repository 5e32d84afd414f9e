"""Keys of jax.random, one per example.

What is drawn for an example comes of its own key, so it does not depend on how
a batch is split, sharded or padded.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Array = Key = jax.Array


def example_keys(key: Key, n: int) -> Key:
  """One key [] -> one key per example, [n]."""
  return fold(jnp.broadcast_to(key, (n,)), jnp.arange(n))


def fold(key: Key, data: Array | int) -> Key:
  """`fold_in` for keys [B]: with one number for all, or one for each."""
  axis = None if jnp.ndim(data) == 0 else 0
  return jax.vmap(jax.random.fold_in, (0, axis))(key, data)


def normal(key: Key, shape: Sequence[int]) -> Array:
  """Keys [B] -> N(0, 1), [B, *shape]."""
  return jax.vmap(lambda k: jax.random.normal(k, shape))(key)
