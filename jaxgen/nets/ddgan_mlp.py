"""Perceptrons for points [B, D]: the pair of a denoising diffusion GAN."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.layers import sinusoids
from jaxgen.nets.mlp import Trunk, waves, with_label

Array = jax.Array


class PointGenerator(nn.Module):
  """(x_{t+1} [B, D], t [B], z [B, Z], y) -> guess of x_0."""

  width: int = 128
  depth: int = 3
  classes: int = 0

  @nn.compact
  def __call__(self, x: Array, t: Array, z: Array, y: Array | None = None) -> Array:
    h = jnp.concatenate([waves(x), sinusoids(t, 16), z], -1)
    h = Trunk(self.width, self.depth)(with_label(h, y, self.classes, 32))
    return nn.Dense(x.shape[-1])(h)


class PointDiscriminator(nn.Module):
  """(x_t [B, D], t [B], x_{t+1}, y) -> logits [B]."""

  width: int = 128
  depth: int = 3
  classes: int = 0

  @nn.compact
  def __call__(self, x: Array, t: Array, x_next: Array, y: Array | None = None) -> Array:
    h = jnp.concatenate([waves(x), waves(x_next), sinusoids(t, 16)], -1)
    h = Trunk(self.width, self.depth)(with_label(h, y, self.classes, 32))
    return nn.Dense(1)(h)[:, 0]
