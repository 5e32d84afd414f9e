"""U-Net of diffusion models (Ho et al. 2020; Dhariwal & Nichol 2021)."""
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.layers import (
    Dropout,
    GroupNorm,
    divisor,
    sinusoids,
    upsample,
)

Array = jax.Array
ZERO = nn.initializers.zeros


class ResBlock(nn.Module):
  """Norm, conv, norm modulated by the embedding, conv; plus the input."""
  width: int
  dropout: float = 0.
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, emb: Array, key: Array | None) -> Array:
    conv = lambda **kw: nn.Conv(self.width, (3, 3), dtype=self.dtype, **kw)
    h = conv()(nn.silu(GroupNorm()(x)))
    scale, shift = jnp.split(
        nn.Dense(2 * self.width, dtype=self.dtype)(nn.silu(emb))
        [:, None, None], 2, -1)
    h = GroupNorm()(h) * (1 + scale) + shift  # adaptive norm: ADM, Sec. 3.1
    h = conv(kernel_init=ZERO)(Dropout(self.dropout)(nn.silu(h), key))
    if x.shape[-1] != self.width:
      x = nn.Dense(self.width, dtype=self.dtype)(x)
    return x + h


class Attention(nn.Module):
  """Self-attention over positions, [B, H, W, C]; softmax in float32."""
  head: int = 64  # channels per head, at least
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, h, w, c = x.shape
    heads = divisor(c, c // self.head)
    qkv = nn.Dense(3 * c, dtype=self.dtype)(GroupNorm()(x))
    q, k, v = jnp.split(qkv.reshape(b, h * w, heads, -1), 3, -1)
    y = jax.nn.dot_product_attention(q, k, v).reshape(b, h, w, c)
    return x + nn.Dense(c, dtype=self.dtype, kernel_init=ZERO)(y)


class UNet(nn.Module):
  """Predicts F(x, c_noise, y), shaped like x [B, H, W, C].

  Attributes:
    width: Channels of the first level.
    mults: Channel multipliers, one per level; each level halves H and W
      (rounding up).
    blocks: Residual blocks per level.
    attend: Resolutions (heights) with self-attention.
    head: Channels per attention head; more where heads would be unequal.
    dropout: Share of activations dropped when keys are given.
    classes: Number of labels; 0 means unconditional. Label `classes` is "none".
    dtype: Of the computation; parameters, norms and softmax are float32.
  """
  width: int = 128
  mults: Sequence[int] = (1, 2, 2, 2)
  blocks: int = 2
  attend: Sequence[int] = (16,)
  head: int = 64
  dropout: float = 0.
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, c_noise: Array, y: Array | None = None,
               key: Array | None = None) -> Array:
    dense = lambda n: nn.Dense(n, dtype=self.dtype)
    conv = lambda n, **kw: nn.Conv(n, (3, 3), dtype=self.dtype, **kw)
    emb = dense(4 * self.width)(sinusoids(c_noise, self.width))
    emb = dense(4 * self.width)(nn.silu(emb))
    if self.classes:
      emb += nn.Embed(
          self.classes + 1, 4 * self.width, dtype=self.dtype)(y)

    def level(h, mult):
      h = ResBlock(round(self.width * mult), self.dropout, self.dtype)(
          h, emb, key)
      return attend(h) if h.shape[1] in self.attend else h

    def attend(h):
      return Attention(self.head, self.dtype)(h)

    skips = [conv(round(self.width * self.mults[0]))(x)]
    for i, mult in enumerate(self.mults):
      if i:
        skips.append(conv(skips[-1].shape[-1], strides=2)(skips[-1]))
      for _ in range(self.blocks):
        skips.append(level(skips[-1], mult))

    h = skips[-1]
    for mix in (lambda h: h, attend):
      h = ResBlock(h.shape[-1], self.dropout, self.dtype)(mix(h), emb, key)

    for i, mult in reversed(list(enumerate(self.mults))):
      for _ in range(self.blocks + 1):
        h = level(jnp.concatenate([h, skips.pop()], -1), mult)
      if i:
        _, height, width, _ = skips[-1].shape  # 7 -> 4 on the way down
        h = conv(h.shape[-1])(upsample(h)[:, :height, :width])
    h = nn.silu(GroupNorm()(h)).astype(jnp.float32)
    return nn.Conv(x.shape[-1], (3, 3), kernel_init=ZERO)(h)
