"""Layers that several nets share. Keys are [B]: one per example."""
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class Dropout(nn.Module):
  """Zeroes a share `rate` of the entries of x [B, ...]; off without keys.

  Every example draws from its own key, folded with this layer's path: masks do
  not depend on the rest of the batch.
  """
  rate: float

  @nn.compact
  def __call__(self, x: Array, key: Array | None = None) -> Array:
    if key is None or self.rate == 0:
      return x
    salt = zlib.crc32("/".join(self.path).encode()) & 0x7FFFFFFF
    def mask(k):
      k = jax.random.fold_in(k, salt)
      return jax.random.bernoulli(k, 1 - self.rate, x.shape[1:])
    # Behind a barrier, or XLA for TPUs draws the bits anew for every tile of
    # the convolution that follows.
    kept = jax.lax.optimization_barrier(jax.vmap(mask)(key))
    return jnp.where(kept, x / (1 - self.rate), 0)


class GroupNorm(nn.Module):
  """Group norm with statistics in float32.

  Of `groups` groups, or fewer: equal parts, of at least `least` channels each.
  """
  groups: int = 32
  eps: float = 1e-5
  least: int = 4

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1]
    norm = nn.GroupNorm(
        divisor(channels, min(self.groups, channels // self.least)),
        epsilon=self.eps)
    nn.share_scope(self, norm)
    return norm(x.astype(jnp.float32)).astype(x.dtype)


def divisor(n: int, most: int) -> int:
  """The largest divisor of n that is at most `most`; 1 if there is none."""
  return max((d for d in range(1, most + 1) if n % d == 0), default=1)


def sinusoids(t: Array, width: int, period: float = 1e4,
              sine_first: bool = False, ends: bool = False) -> Array:
  """Times [B] -> features [B, width] of frequencies from 1 to 1 / period.

  By default ADM's: cosines first, and the frequency 1 / period is just not
  reached. DDPM's and Transformers' have sines first and both ends.
  """
  half = width // 2
  w = jnp.exp(-jnp.log(period) * jnp.arange(half) / (half - ends))
  angle = t.astype(jnp.float32)[:, None] * w
  pair = jnp.cos(angle), jnp.sin(angle)
  return jnp.concatenate(pair[::-1] if sine_first else pair, -1)


def upsample(x: Array) -> Array:
  """Nearest neighbour, [B, H, W, C] -> [B, 2H, 2W, C]."""
  return x.repeat(2, 1).repeat(2, 2)
