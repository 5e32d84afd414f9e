"""StyleGAN2's discriminator (Karras et al. 2020a), as StyleGAN2-ADA has it.

Names of parameters are those of the reference code.
"""
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets import fir
from jaxgen.nets.equalised import Conv, Dense, Mapping
from jaxgen.nets.layers import divisor
from jaxgen.nets.stylegan2 import HALF, heights

Array = jax.Array


class Discriminator(nn.Module):
  """Images [B, H, H, C], labels -> logits [B].

  Attributes:
    base: A layer at height h has base / h channels ...
    most: ... or this many, if that is less.
    classes: Number of labels; 0: none. They enter by projection of what a
      mapping network makes of them.
    layers: Of the mapping network.
    mapped: Length of what it makes; None: channels at height 4.
    arch: "resnet": residual blocks; "skip": every resolution reads the image;
      "orig": neither.
    group: Examples whose standard deviation is a feature (Karras et al. 2018,
      Sec. 3); None: the whole batch.
    features: Number of such features; 0: none.
    clamp: Bound of what layers make.
    taps: Of the filters where the resolution changes.
    dtype: Of the `fine` highest resolutions; the others are float32. Height 4
      is float32 always.
    fine: See there.
  """
  base: int = 16384
  most: int = 512
  classes: int = 0
  layers: int = 8
  mapped: int | None = None
  arch: str = "resnet"
  group: int | None = 4
  features: int = 1
  clamp: float | None = None
  taps: Sequence[float] = fir.TAPS
  dtype: Any = jnp.float32
  fine: int = 4

  @nn.compact
  def __call__(self, x: Array, y: Array | None = None,
               key: Array | None = None, embed: bool = False) -> Array:
    del key
    size, width = x.shape[1], lambda h: min(self.base // h, self.most)
    if x.shape[2] != size:
      raise ValueError(f"images of {size}x{x.shape[2]}: want squares")
    h = None
    for height in reversed(heights(size)[1:]):
      half = height >= max(2 * size >> self.fine, 8)
      h, x = Block(width(height), width(height // 2), self.arch, self.clamp,
                   self.taps, self.dtype if half else jnp.float32,
                   name=f"b{height}")(h, x)
    mapped = self.mapped or width(4)
    h, out = Epilogue(width(4), mapped if self.classes else 1, self.arch,
                      self.group, self.features, self.clamp, name="b4")(h, x)
    if embed:
      return h
    if not self.classes:
      return out[:, 0]
    row = Mapping(mapped, self.layers, self.classes, name="mapping")(None, y)
    return jnp.sum(out * row, -1) / np.sqrt(mapped)

  def embed(self, x: Array, y: Array | None = None) -> Array:
    """What the last layer reads, [B, D]."""
    return self(x, y, embed=True)


class Block(nn.Module):
  """One resolution: features h (or none) and image x -> both at half of it.

  Attributes:
    width: Channels of h that come in.
    out: That go out.
    arch: See `Discriminator`, as are the others.
  """
  width: int
  out: int
  arch: str
  clamp: float | None
  taps: Sequence[float]
  dtype: Any

  @nn.compact
  def __call__(self, h: Array | None, x: Array | None
               ) -> tuple[Array, Array | None]:
    if h is not None:
      h = h.astype(self.dtype)
    if h is None or self.arch == "skip":
      x = x.astype(self.dtype)
      rgb = Conv(self.width, 1, clamp=self.clamp, name="fromrgb")(x)
      h = rgb if h is None else h + rgb
      x = fir.downsample(x, self.taps) if self.arch == "skip" else None
    before, gain = h, HALF if self.arch == "resnet" else 1.
    h = Conv(self.width, clamp=self.clamp, name="conv0")(h)
    h = Conv(self.out, down=True, clamp=self.clamp, taps=self.taps,
             name="conv1")(h, gain)
    if self.arch == "resnet":
      h += Conv(self.out, 1, down=True, act=False, taps=self.taps,
                name="skip")(before, gain)
    return h, x


class Epilogue(nn.Module):
  """The last resolution: -> features [B, width], and `out` numbers, [B, out].

  In float32. The attributes are those of `Discriminator`.
  """
  width: int
  out: int
  arch: str
  group: int | None
  features: int
  clamp: float | None

  @nn.compact
  def __call__(self, h: Array | None, x: Array | None
               ) -> tuple[Array, Array]:
    if h is not None:
      h = h.astype(jnp.float32)
    if self.arch == "skip":
      h += Conv(self.width, 1, name="fromrgb")(x.astype(jnp.float32))
    if self.features:
      h = jnp.concatenate([h, spread(h, self.group, self.features)], -1)
    h = Conv(self.width, clamp=self.clamp, name="conv")(h)
    h = jnp.moveaxis(h, -1, 1).reshape(len(h), -1)  # as PyTorch has it
    h = Dense(self.width, act=True, name="fc")(h)
    return h, Dense(self.out, name="out")(h)


def spread(x: Array, group: int | None, features: int = 1) -> Array:
  """How much examples of a group differ, [B, H, W, features].

  Standard deviation over the group, averaged over positions and channels of
  each feature (Karras et al. 2018, Sec. 3). A group is every n-th of the B
  examples: it is the same if a batch is split into every k-th example.
  """
  b, h, w, c = x.shape
  size = divisor(b, min(group or b, b))
  y = x.reshape(size, b // size, h, w, features, c // features)
  y = jnp.sqrt(jnp.var(y, 0) + 1e-8).mean((1, 2, 4))
  return jnp.tile(y[:, None, None], (size, h, w, 1))
