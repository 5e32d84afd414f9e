"""BigGAN-deep (Brock et al. 2019, App. B), as in the authors' PyTorch code.

Bottlenecks, two blocks for every resolution, and skips that drop channels (on
the way up) or add some (on the way down) and keep the others as they are.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.biggan import ORTHOGONAL, Grower, Layer, Shrinker, down_mults, linear, nominal
from jaxgen.nets.layers import CondNorm, LabelEmbed, halve, upsample

Array = jax.Array
RATIO = 4  # of a block's channels to its bottleneck's


class Generator(Grower):
  """z [B, Z], labels -> images [B, size, size, channels] in [-1, 1].

  The condition of every norm is the label's embedding and all of z.

  Attributes: those of `biggan.Grower`, and
    depth: Blocks per resolution.
    tables: See CondNorm. With them there is a knob `statistics`: the
      truncation in [0, 1] whose statistics are used.
    spare: Channels that the last convolution makes beyond the image's: nobody
      reads them, but DeepMind's published generators have them.
  """

  width: int = 128
  depth: int = 2
  tables: int = 0
  spare: int = 0

  @property
  def knobs(self) -> dict[str, float]:
    """What can be turned when sampling, with defaults."""
    return {"statistics": 1.0} if self.tables else {}

  @nn.compact
  def __call__(
    self,
    z: Array,
    y: Array | None = None,
    key: Array | None = None,
    statistics: Array | float = 1.0,
  ) -> Array:
    if self.classes:
      label = LabelEmbed(self.classes, self.embed, ORTHOGONAL, name="label")(y)
      z = jnp.concatenate([label, z], -1)
    gains = functools.partial(linear, norm=self.norm)
    norm = functools.partial(CondNorm, gains, eps=self.eps, tables=self.tables)

    def block(h, n, width, up):
      return UpBlock(width, self.conv, norm, up, name=f"block_{n}_0")(h, z, statistics)

    h = self.grow(z, block, self.depth)
    return self.image(norm(name="norm")(h, None, statistics), self.spare)


class Discriminator(Shrinker):
  """Images [B, H, W, C], labels -> logits [B]; labels enter by projection.

  Attributes: those of `biggan.Shrinker`, and
    depth: Blocks per resolution.
  """

  width: int = 128
  depth: int = 2

  def heights(self, height: int) -> tuple[int, ...]:
    """Resolutions at which attention can be, for images of `height`."""
    return super().heights(height)[:-1]

  @nn.compact
  def embed(self, x: Array, y: Array | None = None) -> Array:
    """Features [B, D] before the last layer."""
    size = nominal(x.shape[1])
    stem, *mults = down_mults(size)
    x = self.conv(stem * self.width, name="stem")(x)
    return self.shrink(
      x,
      size,
      mults,
      lambda x, i, width, down, name: DownBlock(width, self.conv, down, name=name)(x),
      self.depth,
    )


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
