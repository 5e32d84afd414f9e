"""A pool of earlier fakes, which discriminators are shown (Shrivastava et al. 2017, Sec. 2.3).

As CycleGAN's code has it (Zhu et al. 2017, Sec. 4): until the pool is full an image
is stored and returned. Then, by a uniform number u of its own, either (u > 0.5) an
image of the pool, drawn by chance, is returned and the new one takes its place; or
the new one is returned, and is not stored.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.keys import fold

Array = Key = jax.Array
Pool = dict[str, Any]  # "images" [N, ...], "count" [] int32: how many are there


def init(size: int, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Pool:
  """An empty pool of `size` images; 0: one that returns what comes."""
  return {"images": jnp.zeros((size, *shape), dtype), "count": jnp.int32(0)}


def draw(key: Key, size: int) -> tuple[Array, Array]:
  """Keys [B] -> u in [0, 1) and places in 0 .. size - 1, [B] each."""
  u = jax.vmap(jax.random.uniform)(fold(key, 0))
  place = lambda k: jax.random.randint(k, (), 0, max(size, 1))
  return u, jax.vmap(place)(fold(key, 1))


def query(pool: Pool, x: Array, u: Array, places: Array) -> tuple[Array, Pool]:
  """Images [B, ...] one after the other -> what is returned for each, the pool after.

  Args:
    pool: Before.
    x: New images.
    u: [B], read where the pool is full.
    places: [B] int32, read where it is full and u > 0.5.
  """
  size = len(pool["images"])
  if not size:
    return x, pool

  def one(pool: Pool, each: tuple[Array, Array, Array]) -> tuple[Pool, Array]:
    image, u, place = each
    image = image.astype(pool["images"].dtype)
    full = pool["count"] >= size
    swaps = full & (u > 0.5)
    place = jnp.where(full, place, pool["count"])
    old = pool["images"][place]
    stored = jnp.where(full & ~swaps, old, image)
    images = pool["images"].at[place].set(stored)
    count = jnp.minimum(pool["count"] + 1, size)
    return {"images": images, "count": count}, jnp.where(swaps, old, image)

  pool, returned = jax.lax.scan(one, pool, (x, u, places))
  return returned.astype(x.dtype), pool
