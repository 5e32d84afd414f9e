"""What a generator starts from: truncated latents z, mixed styles w."""

import jax
import jax.numpy as jnp

from jaxgen.keys import fold, normal

Array = Key = jax.Array


def truncated_normal(key: Key, z_dim: int, truncation: Array | float) -> Array:
  """Keys [B] -> z [B, z_dim] ~ N(0, 1), given that |z_i| <= truncation.

  What resampling all that lies outside comes to (Brock et al. 2019, Sec. 3.1),
  by the inverse distribution function. Infinity gives the plain normal's bits.
  """
  draw = lambda k: jax.random.truncated_normal(k, -truncation, truncation, (z_dim,), jnp.float32)
  truncation = jnp.float32(truncation)
  return jnp.where(jnp.isinf(truncation), normal(key, (z_dim,)), jax.vmap(draw)(key))


def mix_styles(ws: Array, other: Array, key: Key, share: float) -> Array:
  """Styles [B, L, W] that a `share` of examples takes from another, from some
  layer on (Karras et al. 2019, Sec. 3.1); each with a cut of its own."""
  layers = ws.shape[1]
  cut = jax.vmap(lambda k: jax.random.randint(k, (), 1, layers))(fold(key, 0))
  mixed = jax.vmap(jax.random.bernoulli, (0, None))(fold(key, 1), share)
  cut = jnp.where(mixed, cut, layers)
  return jnp.where(jnp.arange(layers)[:, None] < cut[:, None, None], ws, other)
