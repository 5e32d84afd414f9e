"""Encoder and decoder of latent diffusion (Rombach et al. 2022, App. G.1).

Residual blocks without a time, self-attention at some heights and in the
middle; Esser et al. 2021 (VQGAN) have the same nets. Names of parameters carry
the numbers of the published checkpoints: up_2_0 is `decoder.up.2.block.0`, and
level 0 has full size on both sides.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.attention import attend
from jaxgen.nets.layers import GroupNorm
from jaxgen.nets.unet import TORCH, Down, Up, conv

Array = jax.Array
# 32 groups also of 64 channels; nets of fewer are for tests and laptops.
norm = functools.partial(GroupNorm, 32, 1e-6, 2)


class Block(nn.Module):
  """Norm, conv, norm, conv; plus the input."""

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    h = conv(self.width, self.dtype, "conv_1")(nn.silu(norm(name="norm_1")(x)))
    h = conv(self.width, self.dtype, "conv_2")(nn.silu(norm(name="norm_2")(h)))
    if x.shape[-1] != self.width:
      x = nn.Dense(self.width, dtype=self.dtype, kernel_init=TORCH, name="skip")(x)
    return x + h


class SelfAttention(nn.Module):
  """Of one head, over positions [B, H, W, C]; plus the input."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, h, w, c = x.shape
    dense = functools.partial(nn.Dense, c, dtype=self.dtype, kernel_init=TORCH)
    normed = norm(name="norm")(x).reshape(b, h * w, 1, c)
    q, k, v = (dense(name=name)(normed) for name in "qkv")
    return x + dense(name="proj")(attend(q, k, v).reshape(b, h, w, c))


class Trunk(nn.Module):
  """What encoder and decoder share.

  Attributes:
    width: Channels of the first level, before multipliers.
    mults: Channel multipliers, one per level; each but the last halves H and W.
    blocks: Residual blocks per level; the decoder has one more.
    size: Height of the images for which `attend` is meant. Others are taken,
      too: attention stays at its level.
    attend: Heights of maps with self-attention.
    middle: Whether there is self-attention in the middle.
    dtype: Of the computation; parameters, norms, softmax and the last layer are
      float32.
  """

  width: int = 128
  mults: Sequence[int] = (1, 2, 4)
  blocks: int = 2
  size: int = 256
  attend: Sequence[int] = ()
  middle: bool = True
  dtype: Any = jnp.float32

  def level(self, h: Array, i: int, name: str) -> Array:
    """A residual block of level i, with attention where that has it."""
    h = Block(self.width * self.mults[i], self.dtype, name=name)(h)
    attends = self.size >> i in self.attend
    return SelfAttention(self.dtype, name=f"{name}_attn")(h) if attends else h

  def center(self, h: Array) -> Array:
    """Block, attention, block, as wide as h."""
    h = Block(h.shape[-1], self.dtype, name="mid_0")(h)
    h = SelfAttention(self.dtype, name="mid_1")(h) if self.middle else h
    return Block(h.shape[-1], self.dtype, name="mid_2")(h)


class Encoder(Trunk):
  """Images [B, H, W, C] -> maps [B, H / f, W / f, out], f = 2^(levels - 1)."""

  out: int = 8

  @nn.compact
  def __call__(self, x: Array) -> Array:
    f = 2 ** (len(self.mults) - 1)
    if x.shape[1] % f or x.shape[2] % f:
      raise ValueError(
        f"images of {x.shape[1]}x{x.shape[2]} cannot be halved "
        f"{len(self.mults) - 1} times: want multiples of {f}"
      )
    h = conv(self.width, self.dtype, "conv_in")(x)
    for i in range(len(self.mults)):
      for j in range(self.blocks):
        h = self.level(h, i, f"down_{i}_{j}")
      if i < len(self.mults) - 1:
        h = Down((0, 1), self.dtype, name=f"down_{i}_down")(h)
    h = nn.silu(norm(name="norm_out")(self.center(h).astype(jnp.float32)))
    return conv(self.out, jnp.float32, "conv_out")(h)


class Decoder(Trunk):
  """Maps [B, h, w, Z] -> what the last convolution reads, [B, f h, f w, width]."""

  @nn.compact
  def __call__(self, z: Array) -> Array:
    h = conv(self.width * self.mults[-1], self.dtype, "conv_in")(z)
    h = self.center(h)
    for i in reversed(range(len(self.mults))):
      for j in range(self.blocks + 1):
        h = self.level(h, i, f"up_{i}_{j}")
      if i:
        h = Up(self.dtype, name=f"up_{i}_up")(h)
    return nn.silu(norm(name="norm_out")(h.astype(jnp.float32)))


class Autoencoder(Trunk):
  """Images [B, H, W, C] <-> latents [B, H / f, W / f, dim], not yet coded.

  The decoder's last convolution stands apart (`features`, then `head`): by the
  gradients there an adversarial term is weighed (Esser et al. 2021, Eq. 7).

  Attributes:
    channels: Of the images.
    z: Channels between the convolutional halves.
    dim: Channels of latents.
    low: What stands for black within the net, where 1 is white: of images in
      [-1, 1] it sees, and makes, a [low, 1] of its own. EDM2's code gives its
      autoencoder pixels from 0 on.
  """

  channels: int = 3
  z: int = 4
  dim: int = 4
  low: float = -1.0
  moments = 1  # numbers that the encoder says of each latent

  def setup(self):
    shared = {f: getattr(self, f) for f in Trunk.__dataclass_fields__ if f not in LINENS_OWN}
    self.encoder = Encoder(**shared, out=self.moments * self.z)
    self.decoder = Decoder(**shared)
    dense = functools.partial(nn.Dense, kernel_init=TORCH)
    self.quant = dense(self.moments * self.dim)
    self.post_quant = dense(self.z)
    self.last = nn.Conv(self.channels, (3, 3), kernel_init=TORCH)

  def heights(self, height: int) -> tuple[int, ...]:
    """Heights of maps, of images of `size`; `attend` names some."""
    del height
    return tuple(self.size >> i for i in range(len(self.mults)))

  @property
  def factor(self) -> int:
    """Pixels along the side of a latent's square."""
    return 2 ** (len(self.mults) - 1)

  def features(self, z: Array) -> Array:
    """What the last convolution reads, [B, H, W, width]."""
    return self.decoder(self.post_quant(z))

  def head(self, h: Array) -> Array:
    """The last convolution -> images, unbounded."""
    x = self.last(h)
    return x if self.low == -1 else (x - self.low) * (2 / (1 - self.low)) - 1

  def coded(self, x: Array) -> Array:
    """What the encoder says of images [B, H, W, C], as numbers of the latents."""
    if self.low != -1:
      x = self.low + (x + 1) * ((1 - self.low) / 2)
    return self.quant(self.encoder(x))

  def decode(self, z: Array) -> Array:
    """Latents -> images [B, H, W, C], unbounded."""
    return self.head(self.features(z))


LINENS_OWN = ("name", "parent")


class KLNet(Autoencoder):
  """The encoder says means and log variances."""

  moments = 2

  def encode(self, x: Array) -> tuple[Array, Array]:
    """Means and log variances of q(z | x), [B, H / f, W / f, dim] each."""
    mean, logvar = jnp.split(self.coded(x), 2, -1)
    return mean, jnp.clip(logvar, -30.0, 20.0)

  def __call__(self, x: Array) -> Array:
    """The mean's reconstruction."""
    return self.decode(self.encode(x)[0])


def uniform(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
  """Codes [K, dim] in +- 1 / K, with which a codebook begins."""
  return jax.random.uniform(key, shape, dtype, -1 / shape[0], 1 / shape[0])


class VQNet(Autoencoder):
  """The encoder says z, for which the nearest code will stand.

  Attributes:
    codes: Number of codes.
  """

  codes: int = 8192

  def setup(self):
    super().setup()
    self.codebook = self.param("codebook", uniform, (self.codes, self.dim))

  def encode(self, x: Array) -> Array:
    """z, before it is quantised, [B, H / f, W / f, dim]."""
    return self.coded(x)

  def table(self) -> Array:
    """The codes, [K, dim]."""
    return self.codebook

  def __call__(self, x: Array) -> Array:
    """A reconstruction without codes: all layers are visited."""
    return self.decode(self.encode(x))
