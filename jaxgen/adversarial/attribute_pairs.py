"""Pairs in a batch that share an attribute's slice of z (Shoshan et al. 2021, Sec. 3.1).

Examples 2i and 2i + 1 are pair i. Which pairs share what is a table of booleans
[B / 2] for every attribute; pairs that share nothing of an attribute are drawn
apart, and count as different.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def fixed_pairs(size: int, places: Sequence[int]) -> np.ndarray:
  """Pairs within the places first, last of a batch of `size` -> bool [size / 2].

  The published configs give each attribute its own places, which fill the batch.
  """
  first, last = places
  if size % 2 or first % 2 or last % 2 or not 0 <= first < last <= size:
    raise ValueError(f"places {first} to {last} of a batch of {size}: want even numbers within it")
  pair = np.arange(size // 2)
  return (2 * pair >= first) & (2 * pair < last)


def random_pairs(key: Array, size: int, counts: Sequence[int]) -> Array:
  """An even number of places from counts[0] to counts[1], anywhere -> bool [size / 2].

  All numbers are alike probable, and so are all places: the published code's
  other mode. One key [], for the batch.
  """
  least, most = counts
  if size % 2 or least % 2 or most % 2 or not 0 < least <= most <= size:
    raise ValueError(f"{least} to {most} places of a batch of {size}: want even numbers within it")
  k_count, k_order = jax.random.split(key)
  count = jax.random.randint(k_count, (), least // 2, most // 2 + 1)
  return jax.random.permutation(k_order, size // 2) < count


def share_slice(z: Array, pairs: Array, start: int, stop: int) -> Array:
  """z [B, Z] in which the second of each of `pairs` [B / 2] has the first one's slice."""
  couples = z.reshape(-1, 2, z.shape[-1])
  first, second = couples[:, 0], couples[:, 1]
  inside = (jnp.arange(z.shape[-1]) >= start) & (jnp.arange(z.shape[-1]) < stop)
  second = jnp.where(pairs[:, None] & inside, first, second)
  return jnp.stack([first, second], 1).reshape(z.shape)
