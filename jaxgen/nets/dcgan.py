"""A convolutional pair after DCGAN (Radford et al. 2016), for any 2^k size."""
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.labels import LabelEmbed
from jaxgen.nets.layers import upsample
from jaxgen.nets.spectral import plain

Array = jax.Array
NORMAL = nn.initializers.normal(0.02)  # Radford et al. 2016, Sec. 4


class BatchNorm(nn.Module):
  """Over the global batch in training, running averages when sampling."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    moving = self.is_mutable_collection("batch_stats")
    y = nn.BatchNorm(use_running_average=not moving, momentum=0.95,
                     dtype=jnp.float32)(x.astype(jnp.float32))
    return y.astype(x.dtype)


class Generator(nn.Module):
  """z [B, Z], labels -> images [B, size, size, channels] in [-1, 1].

  Attributes:
    size: Height and width, 4 * 2^k.
    channels: Of the image.
    width: Channels at full size; they double with every halving, up to 512.
    classes: Number of labels; 0 means unconditional.
    dtype: Of the computation.
  """
  size: int = 32
  channels: int = 3
  width: int = 64
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Array, y: Array | None = None) -> Array:
    conv = lambda n: nn.Conv(n, (3, 3), dtype=self.dtype, kernel_init=NORMAL)
    levels = (self.size // 4).bit_length() - 1
    width = lambda i: min(self.width * 2 ** i, 512)
    if self.classes:
      row = LabelEmbed(self.classes, 64, name="Embed_0")(y)
      z = jnp.concatenate([z, row], -1)
    h = nn.Dense(16 * width(levels), dtype=self.dtype, kernel_init=NORMAL)(z)
    h = h.reshape(-1, 4, 4, width(levels))
    h = nn.relu(BatchNorm()(h))
    for i in reversed(range(levels)):
      h = nn.relu(BatchNorm()(conv(width(i))(upsample(h))))
    h = nn.relu(BatchNorm()(conv(self.width)(h)))
    return jnp.tanh(conv(self.channels)(h).astype(jnp.float32))


class Discriminator(nn.Module):
  """Images [B, H, W, C], labels -> logits [B].

  Labels enter by projection (Miyato & Koyama 2018, Eq. 5).

  Attributes:
    width: Channels at full size; they double with every halving, up to 512.
    classes: Number of labels; 0 means unconditional.
    norm: What wraps every layer: `nets.spectral.spectral` or `plain`.
    dtype: Of the computation.
  """
  width: int = 64
  classes: int = 0
  norm: Callable[[nn.Module], nn.Module] = plain
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, y: Array | None = None) -> Array:
    def conv(n, **kw):
      return self.norm(nn.Conv(n, (3, 3), dtype=self.dtype, **kw))

    h = nn.leaky_relu(conv(self.width)(x), 0.2)
    levels = (x.shape[1] // 4).bit_length() - 1
    for i in range(levels):
      h = nn.leaky_relu(conv(min(self.width * 2 ** i, 512))(h), 0.2)
      h = nn.leaky_relu(
          conv(min(self.width * 2 ** (i + 1), 512), strides=2)(h), 0.2)
    h = h.reshape(len(h), -1).astype(jnp.float32)
    h = nn.leaky_relu(self.norm(nn.Dense(4 * self.width))(h), 0.2)
    logit = self.norm(nn.Dense(1))(h)[:, 0]
    if self.classes:
      row = LabelEmbed(self.classes, h.shape[-1], name="Embed_0")(y)
      logit += jnp.sum(row * h, -1) / jnp.sqrt(h.shape[-1])
    return logit
