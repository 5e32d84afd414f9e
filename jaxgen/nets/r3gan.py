"""R3GAN: Huang et al. 2024, Sec. 4, "config E"; a modern ResNet without norms.

Residual blocks are inverted bottlenecks with grouped convolutions. Their last
layer begins at zero, the others small enough that a deep stack is no louder
than one block (Zhang et al. 2019, "Fixup"). No layer but these has a bias.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets import fir
from jaxgen.nets.layers import LabelEmbed, TimeRow, times

Array = jax.Array
SLOPE = 0.2
GAIN = (2 / (1 + SLOPE**2)) ** 0.5  # of leaky ReLU: He et al. 2015, Eq. 15


class Generator(nn.Module):
  """z [B, Z], labels -> images [B, H, W, channels]; H = 4 * 2^(stages - 1).

  Attributes:
    widths: Channels of every stage, from 4x4 to full size.
    groups: Of its 3x3 convolutions.
    blocks: Residual blocks in every stage.
    channels: Of the image.
    classes: Number of labels; 0: none.
    embedding: Length of a label's, which is appended to z.
    dtype: Of the computation, but at 4x4 it is float32.
  """

  widths: Sequence[int] = (768, 768, 768, 768)
  groups: Sequence[int] = (96, 96, 96, 96)
  blocks: int = 2
  channels: int = 3
  classes: int = 0
  embedding: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Array, y: Array | None = None, key: Array | None = None) -> Array:
    del key
    if self.classes:
      z = jnp.concatenate(
        [z, LabelEmbed(self.classes, self.embedding, scaled(self.classes), name="label")(y)], -1
      )
    basis = self.param("basis", nn.initializers.normal(1.0), (4, 4, self.widths[0]))
    h = basis * dense(self.widths[0], name="project")(z)[:, None, None]
    h = stage(h, self, 0, jnp.float32)
    for i, width in enumerate(self.widths[1:], 1):
      if h.shape[-1] != width:
        h = conv(width, self.dtype, name=f"transition_{i}")(h)
      h = stage(fir.upsample(h.astype(self.dtype)), self, i, self.dtype)
    return conv(self.channels, self.dtype, name="image")(h).astype(jnp.float32)


class Discriminator(nn.Module):
  """Images [B, H, W, C], labels, times t [B] -> logits [B].

  Labels enter by projection, and so do times.

  Attributes:
    widths: Channels of every stage, from full size to 4x4.
    groups: Of its 3x3 convolutions.
    blocks: Residual blocks in every stage.
    classes: Number of labels; 0: none.
    embedding: Length of a label's; None: the last width.
    dtype: Of the computation, but at 4x4 it is float32.
    timed: Takes times.
  """

  widths: Sequence[int] = (768, 768, 768, 768)
  groups: Sequence[int] = (96, 96, 96, 96)
  blocks: int = 2
  classes: int = 0
  embedding: int | None = None
  dtype: Any = jnp.float32
  timed: bool = False

  @nn.compact
  def embed(self, x: Array, y: Array | None = None, t: Array | None = None) -> Array:
    """What the last layer reads, [B, D]."""
    del y, t
    h = conv(self.widths[0], self.dtype, name="image")(x)
    last = len(self.widths) - 1
    for i, width in enumerate(self.widths[1:]):
      h = fir.downsample(stage(h, self, i, self.dtype))
      if h.shape[-1] != width:
        h = conv(width, self.dtype, name=f"transition_{i}")(h)
    h = stage(h.astype(jnp.float32), self, last, jnp.float32)
    basis = self.param("basis", scaled(h[0, ..., 0].size), h.shape[1:])
    return jnp.einsum("bhwc,hwc->bc", h, basis)

  @nn.compact
  def __call__(
    self, x: Array, y: Array | None = None, key: Array | None = None, t: Array | None = None
  ) -> Array:
    del key
    h = self.embed(x)
    if not self.classes and not self.timed:
      return dense(1, name="logit")(h)[:, 0]
    width, row = self.embedding or self.widths[-1], 0.0
    if self.classes:
      row = LabelEmbed(self.classes, width, scaled(self.classes * width), name="label")(y)
    if self.timed:
      row += TimeRow(width, name="time")(times(t, x)) / width**0.5
    return jnp.sum(row * dense(width, name="logit")(h), -1)


class Block(nn.Module):
  """x + C_3 f(C_2 f(C_1 x)): twice the width inside, 3x3 in groups.

  Attributes:
    groups: Of the 3x3 convolution.
    depth: Blocks in the network, by which weights are scaled.
    dtype: Of the convolutions.
  """

  groups: int
  depth: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width, gain = x.shape[-1], GAIN * self.depth**-0.25  # 2m - 2 = 4: m = 3
    act = lambda h: nn.leaky_relu(h, SLOPE)
    h = conv(2 * width, self.dtype, gain, use_bias=True, name="conv_1")(x)
    h = conv(
      2 * width,
      self.dtype,
      gain,
      (3, 3),
      use_bias=True,
      name="conv_2",
      feature_group_count=self.groups,
    )(act(h))
    return x + conv(width, self.dtype, 0.0, name="conv_3")(act(h))


def stage(h: Array, net: nn.Module, i: int, dtype: Any) -> Array:
  """The residual blocks of a generator's or discriminator's i-th stage."""
  depth = net.blocks * len(net.widths)
  for j in range(net.blocks):
    h = Block(net.groups[i], depth, dtype, name=f"block_{i}_{j}")(h)
  return h


def scaled(fan_in: int, gain: float = 1.0) -> Callable:
  """Initialises with N(0, gain^2 / fan_in)."""
  return nn.initializers.normal(gain * fan_in**-0.5)


def he(gain: float) -> Callable:
  """The same, with the kernel's own fan-in; zeros where the gain is zero."""
  if not gain:
    return nn.initializers.zeros
  return nn.initializers.variance_scaling(gain**2, "fan_in", "normal")


def conv(
  width: int, dtype: Any, gain: float = 1.0, size: tuple = (1, 1), use_bias: bool = False, **kw
) -> nn.Conv:
  """A convolution, one by one and without a bias if nothing else is said."""
  return nn.Conv(width, size, use_bias=use_bias, dtype=dtype, kernel_init=he(gain), **kw)


def dense(width: int, **kw) -> nn.Dense:
  """A matrix."""
  return nn.Dense(width, use_bias=False, kernel_init=he(1.0), **kw)
