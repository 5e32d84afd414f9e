"""BigGAN (Brock et al. 2019, Apps. A and B), as in its authors' PyTorch code.

Images have any size 4 * 2^k; the published ones are 128, 256 and 512. Widths
of other sizes follow by analogy.
"""
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.biggan_parts import (
    ORTHOGONAL,
    Layer,
    NonLocal,
    begin,
    convolve,
    down_mults,
    halve,
    halves,
    linear,
    nominal,
    resolution,
    up_mults,
)
from jaxgen.nets.condnorm import CondNorm
from jaxgen.nets.labels import LabelEmbed, Projection
from jaxgen.nets.layers import upsample
from jaxgen.nets.spectral import spectral

Array = jax.Array


class Generator(nn.Module):
  """z [B, Z], labels -> images [B, size, size, channels] in [-1, 1].

  Attributes:
    size: Height and width, 4 * 2^k.
    width: Channels at full size; multiples of it below.
    channels: Of the image.
    classes: Number of labels; 0 means unconditional.
    embed: Length of the labels' embedding that all norms share; 0: each norm
      has its own gains and biases per label, and `hier` is off (SAGAN).
    hier: z is cut into chunks, one for the bottom and one for every block's
      norms; else all of it makes the bottom.
    attend: Resolutions that end in self-attention.
    bottom: Height and width at which it begins; images grow with it.
    norm: What wraps every layer but the embedding: `nets.spectral.spectral`,
      or `plain`.
    eps: Of batch norm.
    dtype: Of the convolutions.
  """
  size: int = 128
  width: int = 96
  channels: int = 3
  classes: int = 1000
  embed: int = 128
  hier: bool = True
  attend: Sequence[int] = (64,)
  bottom: int = 4
  norm: Callable[[nn.Module], nn.Module] = spectral
  eps: float = 1e-5
  dtype: Any = jnp.float32

  def heights(self, height: int) -> tuple[int, ...]:
    """Resolutions at which attention can be; `height` is that of images."""
    return tuple(8 << i for i in range(len(up_mults(self.size))))

  @nn.compact
  def __call__(self, z: Array, y: Array | None = None,
               key: Array | None = None) -> Array:
    mults = up_mults(self.size)
    conv = functools.partial(convolve, norm=self.norm, dtype=self.dtype)
    gains = (functools.partial(LabelEmbed, self.classes,
                               embedding_init=ORTHOGONAL)
             if self.classes and not self.embed else
             functools.partial(linear, norm=self.norm))
    norm = functools.partial(CondNorm, gains, eps=self.eps)
    z, conds = self.conditions(z, y, len(mults))
    h = begin(z, mults[0] * self.width, self.bottom, self.norm, self.dtype)
    for i, mult in enumerate(mults):
      h = UpBlock(mult * self.width, conv, norm, name=f"block_{i}_0")(
          h, conds[i])
      if 8 << i in self.attend:
        h = NonLocal(conv, name=f"attn_{i}_1")(h)
    h = conv(self.channels, name="conv")(nn.relu(norm(name="norm")(h)))
    return jnp.tanh(h.astype(jnp.float32))

  def conditions(self, z: Array, y: Array | None, blocks: int
                 ) -> tuple[Array, list[Array | None]]:
    """What the bottom is made of, and what every block's norms are told."""
    told = y if self.classes else None
    if self.classes and self.embed:
      told = LabelEmbed(self.classes, self.embed, ORTHOGONAL, name="label")(y)
    if not self.hier:
      return z, [told] * blocks
    if self.classes and not self.embed:
      raise ValueError("chunks of z need a shared embedding of the labels: "
                       "set embed=128, or hier=False")
    chunk = z.shape[-1] // (blocks + 1)
    first, *rest = jnp.split(z[:, :chunk * (blocks + 1)], blocks + 1, -1)
    return first, rest if told is None else [
        jnp.concatenate([told, part], -1) for part in rest]


class Discriminator(nn.Module):
  """Images [B, H, W, C], labels -> logits [B]; labels enter by projection.

  Attributes:
    width: Channels at full size; multiples of it below.
    classes: Number of labels; 0 means unconditional.
    attend: Resolutions that end in self-attention.
    wide: A block's inner channels are as many as come out, not go in.
    norm: What wraps every layer.
    dtype: Of the convolutions.
  """
  width: int = 96
  classes: int = 1000
  attend: Sequence[int] = (64,)
  wide: bool = True
  norm: Callable[[nn.Module], nn.Module] = spectral
  dtype: Any = jnp.float32

  def heights(self, height: int) -> tuple[int, ...]:
    """Resolutions at which attention can be, for images of `height`."""
    size = nominal(height)
    return tuple(resolution(size, i) for i in range(len(down_mults(size))))

  def setup(self):
    self.head = Projection(self.classes, self.norm)

  @nn.compact
  def embed(self, x: Array, y: Array | None = None) -> Array:
    """Features [B, D] before the last layer: sums over all places."""
    conv = functools.partial(convolve, norm=self.norm, dtype=self.dtype)
    size = nominal(x.shape[1])
    for i, mult in enumerate(down_mults(size)):
      out = mult * self.width
      x = DownBlock(out, out if self.wide else x.shape[-1], conv,
                    first=i == 0, down=halves(size, i), name=f"block_{i}_0")(x)
      if resolution(size, i) in self.attend:
        x = NonLocal(conv, name=f"attn_{i}_1")(x)
    return jnp.sum(nn.relu(x.astype(jnp.float32)), (1, 2))

  def __call__(self, x: Array, y: Array | None = None,
               key: Array | None = None) -> Array:
    return self.head(self.embed(x), y)


class UpBlock(nn.Module):
  """Fig. 15 (b): doubles H and W between two conditional norms."""
  width: int
  conv: Layer
  norm: Layer

  @nn.compact
  def __call__(self, x: Array, cond: Array | None) -> Array:
    h = upsample(nn.relu(self.norm(name="norm_1")(x, cond)))
    h = self.conv(self.width, name="conv_1")(h)
    h = nn.relu(self.norm(name="norm_2")(h, cond))
    h = self.conv(self.width, name="conv_2")(h)
    # A 1x1 convolution may as well come before nearest neighbours.
    return h + upsample(self.conv(self.width, 1, name="skip")(x))


class DownBlock(nn.Module):
  """Fig. 15 (c): halves H and W, if `down`, after two convolutions.

  Attributes:
    width: Channels that come out.
    inner: Channels between the convolutions.
    conv: Makes a convolution.
    first: It reads images: no activation comes before.
    down: Whether it halves.
  """
  width: int
  inner: int
  conv: Layer
  first: bool = False
  down: bool = True

  @nn.compact
  def __call__(self, x: Array) -> Array:
    h = x if self.first else nn.relu(x)
    h = self.conv(self.inner, name="conv_1")(h)
    h = self.conv(self.width, name="conv_2")(nn.relu(h))
    if self.down:
      h, x = halve(h), halve(x)
    if self.down or x.shape[-1] != self.width:
      x = self.conv(self.width, 1, name="skip")(x)
    return h + x
