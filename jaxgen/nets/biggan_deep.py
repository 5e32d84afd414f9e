"""BigGAN-deep (Brock et al. 2019, App. B), as in the authors' PyTorch code.

Bottlenecks, two blocks for every resolution, and skips that drop channels (on
the way up) or add some (on the way down) and keep the others as they are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.biggan import (
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
from jaxgen.nets.layers import CondNorm, LabelEmbed, Projection, upsample
from jaxgen.nets.spectral import spectral

Array = jax.Array
RATIO = 4  # of a block's channels to its bottleneck's


class Generator(nn.Module):
  """z [B, Z], labels -> images [B, size, size, channels] in [-1, 1].

  Every norm is told the label's embedding and all of z.

  Attributes:
    size: Height and width, 4 * 2^k.
    width: Channels at full size; multiples of it below.
    depth: Blocks per resolution.
    channels: Of the image.
    classes: Number of labels; 0 means unconditional.
    embed: Length of a label's embedding.
    attend: Resolutions that end in self-attention.
    bottom: Height and width at which it begins; images grow with it.
    norm: What wraps every layer but the embedding: `nets.spectral.spectral`,
      or `plain`.
    eps: Of batch norm.
    tables: See CondNorm. With them there is a knob `statistics`: the
      truncation in [0, 1] whose statistics are used.
    spare: Channels that the last convolution makes beyond the image's: none
      sees them, but DeepMind's published generators have them.
    dtype: Of the convolutions.
  """

  size: int = 128
  width: int = 128
  depth: int = 2
  channels: int = 3
  classes: int = 1000
  embed: int = 128
  attend: Sequence[int] = (64,)
  bottom: int = 4
  norm: Callable[[nn.Module], nn.Module] = spectral
  eps: float = 1e-5
  tables: int = 0
  spare: int = 0
  dtype: Any = jnp.float32

  @property
  def knobs(self) -> dict[str, float]:
    """What can be turned when sampling, with defaults."""
    return {"statistics": 1.0} if self.tables else {}

  def heights(self, height: int) -> tuple[int, ...]:
    """Resolutions at which attention can be; `height` is that of images."""
    return tuple(8 << i for i in range(len(up_mults(self.size))))

  @nn.compact
  def __call__(
    self,
    z: Array,
    y: Array | None = None,
    key: Array | None = None,
    statistics: Array | float = 1.0,
  ) -> Array:
    if self.classes:
      row = LabelEmbed(self.classes, self.embed, ORTHOGONAL, name="label")(y)
      z = jnp.concatenate([row, z], -1)
    mults = up_mults(self.size)
    conv = functools.partial(convolve, norm=self.norm, dtype=self.dtype)
    norm = functools.partial(
      CondNorm, functools.partial(linear, norm=self.norm), eps=self.eps, tables=self.tables
    )
    h = begin(z, mults[0] * self.width, self.bottom, self.norm, self.dtype)
    for i, mult in enumerate(mults):
      for j in range(self.depth):
        n, last = i * self.depth + j, j == self.depth - 1
        width = mult * self.width if last else h.shape[-1]
        h = UpBlock(width, conv, norm, up=last, name=f"block_{n}_0")(h, z, statistics)
      if 8 << i in self.attend:
        h = NonLocal(conv, name=f"attn_{n}_1")(h)
    h = nn.relu(norm(name="norm")(h, None, statistics))
    h = conv(self.channels + self.spare, name="conv")(h)[..., : self.channels]
    return jnp.tanh(h.astype(jnp.float32))


class Discriminator(nn.Module):
  """Images [B, H, W, C], labels -> logits [B]; labels enter by projection.

  Attributes:
    width: Channels at full size; multiples of it below.
    depth: Blocks per resolution.
    classes: Number of labels; 0 means unconditional.
    attend: Resolutions that end in self-attention.
    norm: What wraps every layer.
    dtype: Of the convolutions.
  """

  width: int = 128
  depth: int = 2
  classes: int = 1000
  attend: Sequence[int] = (64,)
  norm: Callable[[nn.Module], nn.Module] = spectral
  dtype: Any = jnp.float32

  def heights(self, height: int) -> tuple[int, ...]:
    """Resolutions at which attention can be, for images of `height`."""
    size = nominal(height)
    return tuple(resolution(size, i) for i in range(len(down_mults(size)) - 1))

  def setup(self):
    self.head = Projection(self.classes, self.norm)

  @nn.compact
  def embed(self, x: Array, y: Array | None = None) -> Array:
    """Features [B, D] before the last layer: sums over all places."""
    conv = functools.partial(convolve, norm=self.norm, dtype=self.dtype)
    size = nominal(x.shape[1])
    stem, *mults = down_mults(size)
    x = conv(stem * self.width, name="stem")(x)
    for i, mult in enumerate(mults):
      for j in range(self.depth):
        x = DownBlock(
          mult * self.width, conv, down=j == 0 and halves(size, i), name=f"block_{i}_{j}"
        )(x)
      if resolution(size, i) in self.attend:
        x = NonLocal(conv, name=f"attn_{i}_{self.depth}")(x)
    return jnp.sum(nn.relu(x.astype(jnp.float32)), (1, 2))

  def __call__(self, x: Array, y: Array | None = None, key: Array | None = None) -> Array:
    return self.head(self.embed(x), y)


class UpBlock(nn.Module):
  """Fig. 16 (b): four convolutions; H and W double, if `up`."""

  width: int
  conv: Layer
  norm: Layer
  up: bool = True

  @nn.compact
  def __call__(self, x: Array, cond: Array, truncation: Array | float) -> Array:
    inner = x.shape[-1] // RATIO
    act = lambda h, name: nn.relu(self.norm(name=name)(h, cond, truncation))
    h = self.conv(inner, 1, name="conv_1")(act(x, "norm_1"))
    h, x = act(h, "norm_2"), x[..., : self.width]
    if self.up:
      h, x = upsample(h), upsample(x)
    h = self.conv(inner, name="conv_2")(h)
    h = self.conv(inner, name="conv_3")(act(h, "norm_3"))
    return x + self.conv(self.width, 1, name="conv_4")(act(h, "norm_4"))


class DownBlock(nn.Module):
  """Fig. 16 (c): four convolutions; H and W halve, if `down`."""

  width: int
  conv: Layer
  down: bool = True

  @nn.compact
  def __call__(self, x: Array) -> Array:
    inner = self.width // RATIO
    h = self.conv(inner, 1, name="conv_1")(nn.relu(x))
    h = self.conv(inner, name="conv_2")(nn.relu(h))
    h = nn.relu(self.conv(inner, name="conv_3")(nn.relu(h)))
    if self.down:
      h, x = halve(h), halve(x)
    if more := self.width - x.shape[-1]:
      x = jnp.concatenate([x, self.conv(more, 1, name="skip")(x)], -1)
    return x + self.conv(self.width, 1, name="conv_4")(h)
