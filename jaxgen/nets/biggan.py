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

from jaxgen.nets.attention import attend
from jaxgen.nets.layers import CondNorm, LabelEmbed, Projection, upsample
from jaxgen.nets.spectral import spectral

Array = jax.Array
ORTHOGONAL = nn.initializers.orthogonal()
Layer = Callable[..., nn.Module]


class NonLocal(nn.Module):
  """Self-attention to a grid of half the height (Zhang et al. 2019, SAGAN)."""

  conv: Layer

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, h, w, c = x.shape
    part = lambda n, name: self.conv(n, 1, use_bias=False, name=name)
    rows = lambda x: x.reshape(b, -1, x.shape[-1])
    pool = lambda x: rows(nn.max_pool(x, (2, 2), (2, 2)))
    narrow = max(c // 8, 1)
    theta = rows(part(narrow, "theta")(x))
    phi = pool(part(narrow, "phi")(x))
    g = pool(part(c // 2, "g")(x))
    y = attend(theta[:, :, None], phi[:, :, None], g[:, :, None], scale=1.0)
    y = part(c, "o")(y.reshape(b, h, w, -1))
    gamma = self.param("gamma", nn.initializers.zeros, ())
    return x + gamma.astype(y.dtype) * y


def convolve(width: int, size: int = 3, *, norm: Callable, dtype: Any, **kw) -> nn.Module:
  """A convolution of `size` squared pixels within its norm."""
  return norm(nn.Conv(width, (size, size), dtype=dtype, kernel_init=ORTHOGONAL, **kw))


def linear(width: int, *, norm: Callable, name: str) -> nn.Module:
  """What reads a norm's condition, within its norm."""
  return norm(nn.Dense(width, use_bias=False, kernel_init=ORTHOGONAL, name=name))


def begin(z: Array, width: int, bottom: int, norm: Callable, dtype: Any) -> Array:
  """z [B, Z] -> the bottom, [B, bottom, bottom, width]."""
  layer = norm(nn.Dense(width * bottom**2, dtype=dtype, kernel_init=ORTHOGONAL, name="linear"))
  return layer(z).reshape(-1, bottom, bottom, width)


def halve(x: Array) -> Array:
  """Means of 2 x 2 pixels, [B, 2H, 2W, C] -> [B, H, W, C]."""
  return nn.avg_pool(x, (2, 2), (2, 2))


def levels(size: int) -> int:
  """How often 4 pixels are doubled."""
  return (size // 4).bit_length() - 1


def nominal(height: int) -> int:
  """The 4 * 2^k whose blocks images have: 128's if they grew from 6 to 192."""
  return 4 << levels(height)


def up_mults(size: int) -> tuple[int, ...]:
  """Multiples of `width` that a generator's resolutions have, 8 x 8 first.

  Brock et al. 2019, Tables 4 to 6; for 32 and 64 their PyTorch code's.
  """
  n = levels(size)
  if n <= 3:
    return (4,) * n
  if n <= 5:
    return (16, 8, 4, 2, 1)[:n]
  return (16, 8, 8, 4, 2) + (1,) * (n - 5)


def down_mults(size: int) -> tuple[int, ...]:
  """Likewise of a discriminator's blocks; the last does not halve."""
  n = levels(size)
  if n <= 3:
    return (4,) * (n + 1)
  if n <= 5:
    return (1, 2, 4, 8, 16, 16)[: n + 1]
  return (1,) * (n - 5) + (2, 4, 8, 8, 16, 16)


def halves(size: int, i: int) -> bool:
  """Whether block i of a discriminator does; at 32 pixels only two do."""
  return i < (2 if size == 32 else levels(size))


def resolution(size: int, i: int) -> int:
  """Of block i's output, by which attention is placed.

  At 32 pixels the PyTorch code calls it 16 for every block.
  """
  return 16 if size == 32 else max(size >> i + 1, 4)


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
  def __call__(self, z: Array, y: Array | None = None, key: Array | None = None) -> Array:
    mults = up_mults(self.size)
    conv = functools.partial(convolve, norm=self.norm, dtype=self.dtype)
    gains = (
      functools.partial(LabelEmbed, self.classes, embedding_init=ORTHOGONAL)
      if self.classes and not self.embed
      else functools.partial(linear, norm=self.norm)
    )
    norm = functools.partial(CondNorm, gains, eps=self.eps)
    z, conds = self.conditions(z, y, len(mults))
    h = begin(z, mults[0] * self.width, self.bottom, self.norm, self.dtype)
    for i, mult in enumerate(mults):
      h = UpBlock(mult * self.width, conv, norm, name=f"block_{i}_0")(h, conds[i])
      if 8 << i in self.attend:
        h = NonLocal(conv, name=f"attn_{i}_1")(h)
    h = conv(self.channels, name="conv")(nn.relu(norm(name="norm")(h)))
    return jnp.tanh(h.astype(jnp.float32))

  def conditions(self, z: Array, y: Array | None, blocks: int) -> tuple[Array, list[Array | None]]:
    """What the bottom is made of, and what every block's norms are told."""
    told = y if self.classes else None
    if self.classes and self.embed:
      told = LabelEmbed(self.classes, self.embed, ORTHOGONAL, name="label")(y)
    if not self.hier:
      return z, [told] * blocks
    if self.classes and not self.embed:
      raise ValueError(
        "chunks of z need a shared embedding of the labels: set embed=128, or hier=False"
      )
    chunk = z.shape[-1] // (blocks + 1)
    first, *rest = jnp.split(z[:, : chunk * (blocks + 1)], blocks + 1, -1)
    return first, rest if told is None else [jnp.concatenate([told, part], -1) for part in rest]


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
      x = DownBlock(
        out,
        out if self.wide else x.shape[-1],
        conv,
        first=i == 0,
        down=halves(size, i),
        name=f"block_{i}_0",
      )(x)
      if resolution(size, i) in self.attend:
        x = NonLocal(conv, name=f"attn_{i}_1")(x)
    return jnp.sum(nn.relu(x.astype(jnp.float32)), (1, 2))

  def __call__(self, x: Array, y: Array | None = None, key: Array | None = None) -> Array:
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
