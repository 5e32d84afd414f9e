"""Codebooks: the nearest code, and codes that follow what is near to them."""

import jax
import jax.numpy as jnp

Array = Key = jax.Array
Book = dict[str, Array]  # codes [K, dim], count [K], total [K, dim]
EPS = 1e-5  # added to counts, which keeps means of nothing finite


def nearest(z: Array, codes: Array) -> Array:
  """z [..., dim], codes [K, dim] -> row of the nearest code, int32 [...]."""
  z, codes = (jax.lax.stop_gradient(a.astype(jnp.float32)) for a in (z, codes))
  dots = jnp.einsum("...d,kd->...k", z, codes, precision="highest")
  # |z|^2 is the same for all codes; it takes part in rounding alone.
  return jnp.argmin(jnp.sum(codes**2, -1) - 2 * dots, -1).astype(jnp.int32)


def straight_through(z: Array, code: Array) -> Array:
  """The code, with the gradient of z (van den Oord et al. 2017, Sec. 3.2)."""
  return z + jax.lax.stop_gradient(code - z)


def occupancy(index: Array, codes: int) -> Array:
  """How often each code was chosen, float32 [K]."""
  return jnp.sum(jax.nn.one_hot(index.ravel(), codes), 0)


def use(occupancy: Array) -> dict[str, Array]:
  """How evenly codes are chosen, and how many are not.

  Returns:
    perplexity: exp of the entropy of their shares, between 1 and K.
    dead: Number of codes that no latent of this batch chose.
  """
  p = occupancy / jnp.sum(occupancy)
  entropy = -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-10)))
  return {"perplexity": jnp.exp(entropy), "dead": jnp.sum(occupancy == 0).astype(jnp.float32)}


def begin(key: Key, codes: int, dim: int, count: float = 0.0) -> Book:
  """Codes from N(0, 1), each as if chosen `count` times, key []."""
  table = jax.random.normal(key, (codes, dim))
  return {"codes": table, "count": jnp.full(codes, count), "total": table * (count or 1.0)}


def follow(book: Book, z: Array, index: Array, decay: float) -> Book:
  """Codes become averages of the latents that chose them.

  Van den Oord et al. 2017, App. A.1; Razavi et al. 2019, Eq. 3. N <- decay N +
  (1 - decay) n, m <- decay m + (1 - decay) sum z, and e = m / N, where N is
  smoothed by EPS without a change of its sum.

  Args:
    book: Codes before, by which latents were quantised.
    z: Latents [..., dim].
    index: Their codes, [...].
    decay: Of the averages.
  """
  z = jax.lax.stop_gradient(z.astype(jnp.float32)).reshape(-1, z.shape[-1])
  # A product, not a scatter: its sums have one order, on GPUs too.
  mine = jax.nn.one_hot(index.ravel(), len(book["count"]))
  sums, n = jnp.einsum("nk,nd->kd", mine, z, precision="highest"), jnp.sum(mine, 0)
  toward = lambda average, new: decay * average + (1 - decay) * new
  count, total = toward(book["count"], n), toward(book["total"], sums)
  whole = jnp.sum(count)
  smoothed = (count + EPS) / (whole + len(count) * EPS) * whole
  return {"codes": total / smoothed[:, None], "count": count, "total": total}


def revive(book: Book, z: Array, key: Key, least: float) -> tuple[Book, Array]:
  """Codes with counts below `least` begin again at random latents.

  Dhariwal et al. 2020 (Jukebox), Sec. 3.1. Key []. -> codes, how many, [].
  """
  z = jax.lax.stop_gradient(z.astype(jnp.float32)).reshape(-1, z.shape[-1])
  dead = book["count"] < least
  fresh = z[jax.random.randint(key, dead.shape, 0, len(z))]
  count = jnp.where(dead, max(least, 1.0), book["count"])
  renew = lambda new, old: jnp.where(dead[:, None], new, old)
  book = {
    "codes": renew(fresh, book["codes"]),
    "count": count,
    "total": renew(fresh * count[:, None], book["total"]),
  }
  return book, jnp.sum(dead).astype(jnp.float32)


def prior(key: Key, shape: tuple[int, ...], weights: Array) -> Array:
  """Keys [B] -> codes [B, *shape], each drawn alone in proportion to `weights`."""
  logits = jnp.log(jnp.maximum(weights, 1e-10))
  return jax.vmap(lambda k: jax.random.categorical(k, logits, shape=shape))(key).astype(jnp.int32)
