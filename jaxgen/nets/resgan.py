"""The ResNet pairs of WGAN-GP and SNGAN, conditional or not.

Gulrajani et al. 2017, App. F; Miyato et al. 2018, Tables 3-5; with labels, by
conditional batch norm and projection, Miyato & Koyama 2018, Figs. 12-14.
The reference codes mix features by 1x1 after nearest neighbours and before
means; here it is the other way round: it is the same, for a fourth of the work.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.layers import CondNorm, GroupNorm, LabelEmbed, Projection, halve, upsample
from jaxgen.nets.spectral import spectral

Array = jax.Array
Wrap = Callable[[nn.Module], nn.Module]
GLOROT = nn.initializers.glorot_uniform()
LOUD = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")


def total(h: Array) -> Array:
  """Sums over positions, [B, H, W, C] -> [B, C]."""
  return jnp.sum(h, (1, 2))


def mean(h: Array) -> Array:
  """Means over positions, [B, H, W, C] -> [B, C]."""
  return jnp.mean(h, (1, 2))


def layer_norm(h: Array) -> Array:
  """Over all of an example, with a scale and a bias for every channel.

  To be called within a module, whose parameters these become.
  """
  return GroupNorm(1)(h)


def nothing(h: Array) -> Array:
  """The identity."""
  return h


def bilinear(x: Array) -> Array:
  """Doubles H and W, centres aligned, edges repeated."""
  b, h, w, c = x.shape
  return jax.image.resize(x, (b, 2 * h, 2 * w, c), "bilinear")


class Generator(nn.Module):
  """z [B, Z], labels -> images [B, H, W, channels] in [-1, 1].

  Attributes:
    widths: Channels at first, then after every block; each doubles H and W.
    channels: Of the image.
    classes: Number of labels; 0: none.
    bottom: H and W at first.
    enlarge: Doubles H and W: `upsample`, or torch-mimicry's `bilinear`.
    dtype: Of the convolutions.
  """

  widths: Sequence[int] = (256, 256, 256, 256)
  channels: int = 3
  classes: int = 0
  bottom: int = 4
  enlarge: Callable[[Array], Array] = upsample
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Array, y: Array | None = None, key: Array | None = None) -> Array:
    del key
    first, side = self.widths[0], self.bottom
    h = nn.Dense(side * side * first, dtype=self.dtype, kernel_init=GLOROT, name="first")(
      z
    ).reshape(-1, side, side, first)
    for i, width in enumerate(self.widths[1:]):
      h = Up(width, self.classes, self.enlarge, self.dtype, name=f"block_{i}")(h, y)
    h = nn.relu(CondNorm(None, name="norm")(h))
    h = conv(self.channels, self.dtype, GLOROT, name="last")(h)
    return jnp.tanh(h.astype(jnp.float32))


class Up(nn.Module):
  """Norm, ReLU, enlarge, 3x3, norm, ReLU, 3x3; beside a 1x1."""

  width: int
  classes: int
  enlarge: Callable[[Array], Array]
  dtype: Any

  @nn.compact
  def __call__(self, x: Array, y: Array | None) -> Array:
    table = functools.partial(LabelEmbed, self.classes, embedding_init=nn.initializers.zeros)
    norm = lambda name: CondNorm(table, name=name)
    y = y if self.classes else None
    h = self.enlarge(nn.relu(norm("norm_1")(x, y)))
    h = conv(self.width, self.dtype, name="conv_1")(h)
    h = nn.relu(norm("norm_2")(h, y))
    h = conv(self.width, self.dtype, name="conv_2")(h)
    x = nn.Dense(self.width, dtype=self.dtype, kernel_init=GLOROT, name="skip")(x)
    return self.enlarge(x) + h


class Discriminator(nn.Module):
  """Images [B, H, W, C], labels -> logits [B].

  Attributes:
    widths: Channels after every block.
    halvings: As many blocks, the first ones, halve H and W.
    classes: Number of labels; 0: none.
    wrap: Of every layer: `nets.spectral.spectral`, or `plain`.
    norm: Before every ReLU but the first block's: `layer_norm`, or `nothing`.
    pool: Of positions before the last layer: `total`, or WGAN-GP's `mean`.
    dtype: Of the convolutions.
  """

  widths: Sequence[int] = (128, 128, 128, 128)
  halvings: int = 2
  classes: int = 0
  wrap: Wrap = spectral
  norm: Callable[[Array], Array] = nothing
  pool: Callable[[Array], Array] = total
  dtype: Any = jnp.float32

  @nn.compact
  def embed(self, x: Array, y: Array | None = None) -> Array:
    """What the last layer reads, [B, D]."""
    del y
    resample = lambda i: halve if i < self.halvings else nothing
    first, *widths = self.widths
    x = First(first, self.wrap, resample(0), self.dtype, name="block_0")(x)
    for i, width in enumerate(widths, 1):
      x = Down(width, self.wrap, self.norm, resample(i), self.dtype, name=f"block_{i}")(x)
    return self.pool(nn.relu(x).astype(jnp.float32))

  @nn.compact
  def __call__(self, x: Array, y: Array | None = None, key: Array | None = None) -> Array:
    del key
    head = Projection(self.classes, self.wrap, GLOROT, name="head")
    return head(self.embed(x), y)


class Down(nn.Module):
  """ReLU, 3x3, ReLU, 3x3, resample; beside a 1x1 where the shape changes."""

  width: int
  wrap: Wrap
  norm: Callable[[Array], Array]
  resample: Callable[[Array], Array]
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    wide = lambda n, name: self.wrap(conv(n, self.dtype, name=name))
    h = wide(x.shape[-1], "conv_1")(nn.relu(self.norm(x)))
    h = wide(self.width, "conv_2")(nn.relu(self.norm(h)))
    h, skip = self.resample(h), self.resample(x)
    if skip.shape != x.shape or self.width != x.shape[-1]:
      skip = self.wrap(nn.Dense(self.width, dtype=self.dtype, kernel_init=GLOROT, name="skip"))(
        skip
      )
    return skip + h


class First(nn.Module):
  """The same for an image: no ReLU before the first layer."""

  width: int
  wrap: Wrap
  resample: Callable[[Array], Array]
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    wide = lambda name: self.wrap(conv(self.width, self.dtype, name=name))
    h = wide("conv_2")(nn.relu(wide("conv_1")(x)))
    skip = self.wrap(nn.Dense(self.width, dtype=self.dtype, kernel_init=GLOROT, name="skip"))(
      self.resample(x)
    )
    return skip + self.resample(h)


def conv(width: int, dtype: Any, init: Callable = LOUD, **kw) -> nn.Conv:
  """Three by three."""
  return nn.Conv(width, (3, 3), dtype=dtype, kernel_init=init, **kw)
