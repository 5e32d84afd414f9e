"""Batch norm over the global batch, its gain and bias told by a condition."""
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class CondNorm(nn.Module):
  """Class-conditional batch norm (de Vries et al. 2017), in float32.

  In training (where "batch_stats" may change) x is normalised by this batch;
  else by running averages, `mean` and `var`, whose batches' variances are
  unbiased as in PyTorch.

  Attributes:
    linear: (channels, name=) -> a layer that makes gain - 1, and bias, of the
      condition.
    eps: Added to variances.
    momentum: Share of the running averages that a batch leaves.
    tables: Statistics are kept for so many truncations of z, evenly from 0
      to 1, as in DeepMind's published generators; 0: one for all.
  """
  linear: Callable[..., nn.Module]
  eps: float = 1e-5
  momentum: float = 0.9
  tables: int = 0

  @nn.compact
  def __call__(self, x: Array, cond: Array | None = None,
               truncation: Array | float = 1.) -> Array:
    """x [B, H, W, C], condition [B, ...] or None: a gain and bias for all."""
    channels = x.shape[-1]
    mean, var = self.statistics(x.astype(jnp.float32), truncation)
    if cond is None:
      gain = self.param("gain", nn.initializers.ones, (channels,))
      bias = self.param("bias", nn.initializers.zeros, (channels,))
    else:
      gain, bias = (self.linear(channels, name=name)(cond)[:, None, None]
                    for name in ("gain", "bias"))
      gain = 1 + gain
    scale = gain * jax.lax.rsqrt(var + self.eps)
    return ((x - mean) * scale + bias).astype(x.dtype)

  def statistics(self, x: Array, truncation: Array | float
                 ) -> tuple[Array, Array]:
    """Mean and variance [C] of this batch, or the stored ones."""
    shape = (self.tables, x.shape[-1])[not self.tables:]
    stored = [self.variable("batch_stats", "mean", jnp.zeros, shape),
              self.variable("batch_stats", "var", jnp.ones, shape)]
    if not self.is_mutable_collection("batch_stats"):
      return tuple(self.between(s.value, truncation) for s in stored)
    mean = jnp.mean(x, (0, 1, 2))  # both in one pass: one message on a pod
    var = jnp.maximum(jnp.mean(x * x, (0, 1, 2)) - mean * mean, 0)
    if not self.is_initializing():
      n = x.size / x.shape[-1]
      for s, new in zip(stored, (mean, var * n / max(n - 1, 1)), strict=True):
        s.value = self.momentum * s.value + (1 - self.momentum) * new
    return mean, var

  def between(self, values: Array, truncation: Array | float) -> Array:
    """Those of a truncation: from the nearest two, linearly."""
    if not self.tables:
      return values
    place = jnp.clip(truncation, 0, 1) * (self.tables - 1)
    i = jnp.clip(jnp.int32(place), 0, self.tables - 2)
    return values[i] + (place - i) * (values[i + 1] - values[i])
