"""Multi-layer perceptrons for points [B, D]: a denoiser, a pair, a codec."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.layers import sinusoids, times

Array = jax.Array


class Trunk(nn.Module):
  """Hidden layers of equal width."""

  width: int
  depth: int

  @nn.compact
  def __call__(self, h: Array) -> Array:
    for _ in range(self.depth):
      h = nn.silu(nn.Dense(self.width)(h))
    return h


def waves(x: Array, octaves: int = 3) -> Array:
  """Appends sines and cosines to x [B, D]: nets learn finer shapes by them.

  Tancik et al. 2020, Sec. 6, positional encoding.
  """
  return jnp.concatenate(
    [x, *(f(x * 2**i * jnp.pi) for i in range(octaves) for f in (jnp.sin, jnp.cos))], -1
  )


def with_label(h: Array, y: Array | None, classes: int, width: int) -> Array:
  """Appends the label's embedding to h [B, D]; nothing without classes."""
  if not classes:
    return h
  return jnp.concatenate([h, nn.Embed(classes, width)(y)], -1)


class Denoiser(nn.Module):
  """F(x, c_noise, y), shaped like x [B, D]."""

  width: int = 128
  depth: int = 3
  classes: int = 0

  def condition(self, c_noise: Array) -> Array:
    """Of the noise level [B], [B, E]."""
    return sinusoids(c_noise, 64)

  @nn.compact
  def __call__(
    self, x: Array, c_noise: Array, y: Array | None = None, key: Array | None = None
  ) -> Array:
    del key  # nothing to draw
    h = jnp.concatenate([waves(x), self.condition(c_noise)], -1)
    h = with_label(h, y, self.classes and self.classes + 1, 32)  # the last: none
    h = Trunk(self.width, self.depth)(h)
    return nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros)(h)


class Generator(nn.Module):
  """z [B, Z], labels -> x [B, dims]."""

  width: int = 128
  depth: int = 3
  dims: int = 2
  classes: int = 0

  @nn.compact
  def __call__(self, z: Array, y: Array | None = None) -> Array:
    h = Trunk(self.width, self.depth)(with_label(z, y, self.classes, 32))
    return nn.Dense(self.dims)(h)


class Discriminator(nn.Module):
  """x [B, D], labels, times t [B] if it is `timed` -> logits [B]."""

  width: int = 128
  depth: int = 3
  classes: int = 0
  timed: bool = False

  @nn.compact
  def __call__(self, x: Array, y: Array | None = None, t: Array | None = None) -> Array:
    h = with_label(waves(x), y, self.classes, 32)
    if self.timed:
      h = jnp.concatenate([h, sinusoids(times(t, x), 32)], -1)
    h = Trunk(self.width, self.depth)(h)
    return nn.Dense(1)(h)[:, 0]


class Codec(nn.Module):
  """Encoder and decoder of a VAE: x [B, D] <-> z [B, Z]."""

  z_dim: int = 2
  width: int = 128
  depth: int = 3
  classes: int = 0
  dims: int = 2

  def setup(self):
    self.encoder = nn.Sequential([Trunk(self.width, self.depth), nn.Dense(2 * self.z_dim)])
    self.decoder = nn.Sequential([Trunk(self.width, self.depth), nn.Dense(self.dims)])
    self.label = nn.Embed(self.classes, 32) if self.classes else None

  def encode(self, x: Array, y: Array | None = None) -> tuple[Array, Array]:
    """Means and log variances of q(z | x, y), each [B, Z]."""
    return tuple(jnp.split(self.encoder(self._with_label(waves(x), y)), 2, -1))

  def decode(self, z: Array, y: Array | None = None) -> Array:
    """Mean of p(x | z, y), [B, D]."""
    return self.decoder(self._with_label(z, y))

  def __call__(self, x: Array, y: Array | None = None) -> Array:
    """The mean's reconstruction."""
    return self.decode(self.encode(x, y)[0], y)

  def _with_label(self, h, y):
    return jnp.concatenate([h, self.label(y)], -1) if self.classes else h
