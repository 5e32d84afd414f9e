"""What U-Nets of diffusion models are made of: ADM's blocks, DDPM's, SR3's.

Dhariwal & Nichol 2021, Sec. 3; Ho et al. 2020, App. B. Weights begin as in the
reference codes: convolutions before a sum at zero, the rest as PyTorch does.
"""
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.attention import attend
from jaxgen.nets.layers import Dropout, GroupNorm, divisor, upsample

Array = jax.Array
ZERO = nn.initializers.zeros
TORCH = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class ResBlock(nn.Module):
  """Norm, conv, norm modulated by the embedding, conv; plus the input.

  Attributes:
    width: Channels that come out.
    resample: Of h and x between the first norm and convolution; None: neither.
    affine: The embedding scales and shifts the second norm's output (ADM's
      adaptive group norm); else it is added before that norm.
    dropout: Before the last convolution, where keys are given.
    norm: Makes a norm from its name.
    dtype: Of the convolutions; the embedding's layer is float32.
  """
  width: int
  resample: Callable[[Array], Array] | None = None
  affine: bool = True
  dropout: float = 0.
  norm: Callable[..., nn.Module] = GroupNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, emb: Array, key: Array | None = None) -> Array:
    h = nn.silu(self.norm(name="norm_1")(x))
    if self.resample:
      h, x = self.resample(h), self.resample(x)
    h = conv(self.width, self.dtype, "conv_1")(h)
    emb = nn.Dense(self.width * (1 + self.affine), kernel_init=TORCH,
                   name="emb")(emb).astype(h.dtype)[:, None, None]
    if self.affine:
      scale, shift = jnp.split(emb, 2, -1)
      h = self.norm(name="norm_2")(h) * (1 + scale) + shift
    else:
      h = self.norm(name="norm_2")(h + emb)
    h = Dropout(self.dropout)(nn.silu(h), key)
    h = conv(self.width, self.dtype, "conv_2", init=ZERO)(h)
    if x.shape[-1] != self.width:
      x = nn.Dense(self.width, dtype=self.dtype, kernel_init=TORCH,
                   name="skip")(x)
    return x + h


class Attention(nn.Module):
  """Self-attention over positions, [B, H, W, C]; softmax in float32.

  Attributes:
    heads: Their number; None: as many as have `head` channels.
    head: Channels of a head; more where heads would be unequal.
    split_first: The channels of `qkv` are all of q, then k, then v; else q, k
      and v of the first head, then of the second. Weights of one order mean
      nothing in the other: ADM's 64-pixel model has the former, others the
      latter ("legacy").
    bias: `qkv` has one.
    norm: Makes a norm from its name.
    dtype: Of the matrix products.
  """
  heads: int | None = None
  head: int = 64
  split_first: bool = False
  bias: bool = True
  norm: Callable[..., nn.Module] = GroupNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, h, w, c = x.shape
    heads = self.heads or divisor(c, c // self.head)
    if c % heads:
      raise ValueError(f"{c} channels cannot be split into {heads} heads")
    qkv = nn.Dense(3 * c, self.bias, dtype=self.dtype, kernel_init=TORCH,
                   name="qkv")(self.norm(name="norm")(x))
    q, k, v = apart(qkv.reshape(b, h * w, 3 * c), heads, self.split_first)
    y = attend(q, k, v).reshape(b, h, w, c)
    return x + nn.Dense(c, dtype=self.dtype, kernel_init=ZERO, name="proj")(y)


def apart(qkv: Array, heads: int, split_first: bool) -> tuple[Array, ...]:
  """[B, T, 3C] -> q, k and v, [B, T, heads, C / heads] each."""
  b, t, _ = qkv.shape
  if split_first:
    return tuple(jnp.moveaxis(qkv.reshape(b, t, 3, heads, -1), 2, 0))
  return tuple(jnp.split(qkv.reshape(b, t, heads, -1), 3, -1))


class Down(nn.Module):
  """Halves H and W by a strided convolution.

  `pad` is ADM's (1, 1) or, as TensorFlow pads and so DDPM, (0, 1).
  """
  pad: tuple[int, int] = (1, 1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return conv(x.shape[-1], self.dtype, "conv", strides=2,
                padding=[self.pad, self.pad])(x)


class Up(nn.Module):
  """Doubles H and W: nearest neighbours, then a convolution."""
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return conv(x.shape[-1], self.dtype, "conv")(upsample(x))


def halve(x: Array) -> Array:
  """Means of 2 x 2 pixels, [B, 2H, 2W, C] -> [B, H, W, C]."""
  return nn.avg_pool(x, (2, 2), (2, 2))


def conv(width: int, dtype: Any, name: str, init: Callable = TORCH, **kw
         ) -> nn.Conv:
  """Three by three."""
  return nn.Conv(width, (3, 3), dtype=dtype, kernel_init=init, name=name, **kw)
