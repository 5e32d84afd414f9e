"""What a GAN is put together from: nets in training, latents, its gauges."""
import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import Array, Groups, Key, Metrics, State
from jaxgen.keys import fold, normal


def train(net: nn.Module, state: State, group: str, *args, **kw
          ) -> tuple[Array, Groups]:
  """Applies a net whose statistics may move -> output, all stats."""
  carried = state.stats.get(group, {})
  out, moved = net.apply(
      state.variables(group), *args, mutable=list(carried), **kw)
  return out, state.stats | {group: dict(moved)}


def keyed(net: nn.Module, key: Key) -> dict[str, Key]:
  """Keys [B] for nets that draw: {"key": key} if it takes one."""
  takes = "key" in inspect.signature(net.__call__).parameters
  return {"key": key} if takes else {}


def latents(key: Key, z_dim: int, truncation: Array | float) -> Array:
  """Keys [B] -> z [B, z_dim] ~ N(0, 1), given that |z_i| <= truncation.

  What resampling all that lies outside comes to (Brock et al. 2019, Sec. 3.1),
  by the inverse distribution function. Infinity gives the plain normal's bits.
  """
  draw = lambda k: jax.random.truncated_normal(
      k, -truncation, truncation, (z_dim,), jnp.float32)
  truncation = jnp.float32(truncation)
  return jnp.where(jnp.isinf(truncation), normal(key, (z_dim,)),
                   jax.vmap(draw)(key))


def mix(ws: Array, other: Array, key: Key, share: float) -> Array:
  """Styles [B, L, W] that a `share` of examples takes from another, from some
  layer on (Karras et al. 2019, Sec. 3.1); each with a cut of its own."""
  layers = ws.shape[1]
  cut = jax.vmap(lambda k: jax.random.randint(k, (), 1, layers))(fold(key, 0))
  mixed = jax.vmap(jax.random.bernoulli, (0, None))(fold(key, 1), share)
  cut = jnp.where(mixed, cut, layers)
  return jnp.where(jnp.arange(layers)[:, None] < cut[:, None, None], ws, other)


def spread(x: Array) -> Array:
  """Mean distance of neighbours in a batch, [B, D] -> []: one pair each."""
  square = jnp.sum((x - jnp.roll(x, 1, 0)) ** 2, -1)
  return jnp.mean(jnp.sqrt(square))


def sigmas(stats: dict[str, Any]) -> Metrics:
  """Largest singular values that spectral norms carry: their max and min."""
  found = [jnp.max(leaf) for path, leaf in
           jax.tree_util.tree_leaves_with_path(stats)
           if str(path[-1].key).rpartition("/")[2] == "sigma"]
  if not found:
    return {}
  found = jnp.stack(found)
  return {"sigma_max": jnp.max(found), "sigma_min": jnp.min(found)}
