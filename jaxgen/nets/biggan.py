"""BigGAN (Brock et al. 2019, Apps. A and B), as in its authors' PyTorch code.

Images have any size 4 * 2^k; the published ones are 128, 256 and 512. Widths
of other sizes follow by analogy. `Grower` and `Shrinker` are what BigGAN-deep
has in common with it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.attention import attend
from jaxgen.nets.layers import CondNorm, LabelEmbed, Projection, halve, upsample
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
  """A norm's gains or biases from its condition, within its own norm."""
  return norm(nn.Dense(width, use_bias=False, kernel_init=ORTHOGONAL, name=name))


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


class Grower(nn.Module):
  """A generator's attributes, and its way from z up to the image.

  Attributes:
    size: Height and width, 4 * 2^k.
    width: Channels at full size; multiples of it below.
    channels: Of the image.
    classes: Number of labels; 0 means unconditional.
    embed: Length of the labels' embedding that all norms share.
    attend: Resolutions that end in self-attention.
    bottom: Height and width of the first features; images grow with it.
    norm: Wraps every layer but the embedding: `nets.spectral.spectral`, or
      `plain`.
    eps: Of batch norm.
    dtype: Of the convolutions.
  """

  size: int = 128
  width: int = 96
  channels: int = 3
  classes: int = 1000
  embed: int = 128
  attend: Sequence[int] = (64,)
  bottom: int = 4
  norm: Callable[[nn.Module], nn.Module] = spectral
  eps: float = 1e-5
  dtype: Any = jnp.float32

  def heights(self, height: int) -> tuple[int, ...]:
    """Resolutions at which attention can be; `height` is that of images."""
    return tuple(8 << i for i in range(len(up_mults(self.size))))

  @property
  def conv(self) -> Layer:
    """Makes a convolution of so many channels."""
    return functools.partial(convolve, norm=self.norm, dtype=self.dtype)

  def grow(self, z: Array, block: Callable[..., Array], depth: int = 1) -> Array:
    """z [B, Z] -> features at full size.

    block(h, n, width, up) is the n-th block; every `depth`-th doubles H and W.
    """
    widths = [mult * self.width for mult in up_mults(self.size)]
    first = nn.Dense(
      widths[0] * self.bottom**2, dtype=self.dtype, kernel_init=ORTHOGONAL, name="linear"
    )
    h = self.norm(first)(z).reshape(-1, self.bottom, self.bottom, widths[0])
    for n in range(len(widths) * depth):
      level, up = n // depth, n % depth == depth - 1
      h = block(h, n, widths[level] if up else h.shape[-1], up)
      if up and 8 << level in self.attend:
        h = NonLocal(self.conv, name=f"attn_{n}_1")(h)
    return h

  def image(self, h: Array, spare: int = 0) -> Array:
    """Normalised features -> the image in [-1, 1], less `spare` channels."""
    h = self.conv(self.channels + spare, name="conv")(nn.relu(h))[..., : self.channels]
    return jnp.tanh(h.astype(jnp.float32))


class Generator(Grower):
  """z [B, Z], labels -> images [B, size, size, channels] in [-1, 1].

  Attributes: those of `Grower`, and
    embed: 0: each norm has its own gains and biases per label, and `hier` is
      off (SAGAN).
    hier: z is cut into chunks, one for the bottom and one for every block's
      norms; else all of it makes the bottom.
  """

  hier: bool = True

  @nn.compact
  def __call__(self, z: Array, y: Array | None = None, key: Array | None = None) -> Array:
    gains = (
      functools.partial(LabelEmbed, self.classes, embedding_init=ORTHOGONAL)
      if self.classes and not self.embed
      else functools.partial(linear, norm=self.norm)
    )
    norm = functools.partial(CondNorm, gains, eps=self.eps)
    z, conds = self.conditions(z, y, len(up_mults(self.size)))
    h = self.grow(
      z, lambda h, n, width, up: UpBlock(width, self.conv, norm, name=f"block_{n}_0")(h, conds[n])
    )
    return self.image(norm(name="norm")(h))

  def conditions(self, z: Array, y: Array | None, blocks: int) -> tuple[Array, list[Array | None]]:
    """What the bottom is made of, and the condition of every block's norms."""
    cond = y if self.classes else None
    if self.classes and self.embed:
      cond = LabelEmbed(self.classes, self.embed, ORTHOGONAL, name="label")(y)
    if not self.hier:
      return z, [cond] * blocks
    if self.classes and not self.embed:
      raise ValueError(
        "chunks of z need a shared embedding of the labels: set embed=128, or hier=False"
      )
    chunk = z.shape[-1] // (blocks + 1)
    first, *parts = jnp.split(z[:, : chunk * (blocks + 1)], blocks + 1, -1)
    return first, parts if cond is None else [jnp.concatenate([cond, part], -1) for part in parts]


class Shrinker(nn.Module):
  """A discriminator's attributes, and its way from the image down to a logit.

  Attributes:
    width: Channels at full size; multiples of it below.
    classes: Number of labels; 0 means unconditional.
    attend: Resolutions that end in self-attention.
    norm: Wraps every layer.
    dtype: Of the convolutions.
  """

  width: int = 96
  classes: int = 1000
  attend: Sequence[int] = (64,)
  norm: Callable[[nn.Module], nn.Module] = spectral
  dtype: Any = jnp.float32

  def setup(self):
    self.head = Projection(self.classes, self.norm)

  def heights(self, height: int) -> tuple[int, ...]:
    """Resolutions at which attention can be, for images of `height`."""
    size = nominal(height)
    return tuple(resolution(size, i) for i in range(len(down_mults(size))))

  @property
  def conv(self) -> Layer:
    """Makes a convolution of so many channels."""
    return functools.partial(convolve, norm=self.norm, dtype=self.dtype)

  def shrink(
    self, x: Array, size: int, mults: Sequence[int], block: Callable[..., Array], depth: int = 1
  ) -> Array:
    """Images or features -> features [B, D], sums over all places.

    block(x, i, width, down, name) is one of `depth` blocks at level i.
    """
    for i, mult in enumerate(mults):
      for j in range(depth):
        x = block(x, i, mult * self.width, j == 0 and halves(size, i), f"block_{i}_{j}")
      if resolution(size, i) in self.attend:
        x = NonLocal(self.conv, name=f"attn_{i}_{depth}")(x)
    return jnp.sum(nn.relu(x.astype(jnp.float32)), (1, 2))

  def __call__(self, x: Array, y: Array | None = None, key: Array | None = None) -> Array:
    return self.head(self.embed(x), y)


class Discriminator(Shrinker):
  """Images [B, H, W, C], labels -> logits [B]; labels enter by projection.

  Attributes: those of `Shrinker`, and
    wide: A block's inner channels are as many as come out, not go in.
  """

  wide: bool = True

  @nn.compact
  def embed(self, x: Array, y: Array | None = None) -> Array:
    """Features [B, D] before the last layer."""
    size = nominal(x.shape[1])

    def block(x, i, width, down, name):
      inner = width if self.wide else x.shape[-1]
      return DownBlock(width, inner, self.conv, i == 0, down, name=name)(x)

    return self.shrink(x, size, down_mults(size), block)


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
