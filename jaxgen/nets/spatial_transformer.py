"""Transformer blocks over the positions of a map (Rombach et al. 2022, App. E.2.1).

Attention of latent diffusion's U-Net that also reads a context: tokens of a
class, of a text. Of one token alone the softmax is 1: whatever asks, all get
what it answers.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.attention import attend
from jaxgen.nets.layers import GroupNorm, divisor
from jaxgen.nets.unet import TORCH, ZERO

Array = jax.Array
EPS = 1e-6  # of its group norm; the U-Net's others have 1e-5
# In float32, as PyTorch's.
Norm = functools.partial(nn.LayerNorm, epsilon=1e-5, dtype=jnp.float32)


class CrossAttention(nn.Module):
  """Tokens x [B, T, C] ask tokens of a context [B, S, D] -> [B, T, C].

  Attributes:
    heads: Their number.
    dtype: Of the matrix products; softmax is float32.
  """

  heads: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, context: Array) -> Array:
    width = x.shape[-1]
    dense = functools.partial(nn.Dense, width, dtype=self.dtype, kernel_init=TORCH)
    q, k, v = (
      dense(use_bias=False, name=name)(tokens).reshape(*tokens.shape[:2], self.heads, -1)
      for name, tokens in (("q", x), ("k", context), ("v", context))
    )
    return dense(name="proj")(attend(q, k, v).reshape(x.shape))


class GEGLU(nn.Module):
  """Tokens one by one: `mult` times as wide, gated by GELU, and back.

  Shazeer 2020, Eq. 6 (its exact form, by the error function).
  """

  mult: int = 4
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=TORCH)
    h, gate = jnp.split(dense(2 * self.mult * x.shape[-1], name="fc1")(x), 2, -1)
    return dense(x.shape[-1], name="fc2")(h * nn.gelu(gate, approximate=False))


class Block(nn.Module):
  """Attends to itself, then to the context, then thinks; each is added.

  Without a context it attends to itself twice.
  """

  heads: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, context: Array | None = None) -> Array:
    cross = functools.partial(CrossAttention, self.heads, self.dtype)
    h = Norm(name="norm_1")(x).astype(self.dtype)
    x = x + cross(name="attn_1")(h, h)
    h = Norm(name="norm_2")(x).astype(self.dtype)
    x = x + cross(name="attn_2")(h, h if context is None else context)
    h = Norm(name="norm_3")(x).astype(self.dtype)
    return x + GEGLU(dtype=self.dtype, name="mlp")(h)


class SpatialTransformer(nn.Module):
  """`depth` blocks over the positions of x [B, H, W, C]; plus x itself.

  Attributes:
    heads: Their number; None: as many as have `head` channels.
    head: Channels of a head; more where heads would be unequal.
    depth: Number of blocks.
    norm: Makes a group norm from its `eps` and name.
    dtype: Of the matrix products; norms and softmax are float32.
  """

  heads: int | None = None
  head: int = 64
  depth: int = 1
  norm: Callable[..., nn.Module] = functools.partial(GroupNorm, least=1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, context: Array | None = None) -> Array:
    """With a context [B, T, D], tokens that all positions attend to."""
    b, height, width, c = x.shape
    heads = self.heads or divisor(c, c // self.head)
    if c % heads:
      raise ValueError(f"{c} channels cannot be split into {heads} heads")
    dense = functools.partial(nn.Dense, c, dtype=self.dtype)
    h = dense(kernel_init=TORCH, name="proj_in")(self.norm(eps=EPS, name="norm")(x))
    h = h.reshape(b, height * width, c)
    for i in range(self.depth):
      h = Block(heads, self.dtype, name=f"block_{i}")(h, context)
    return x + dense(kernel_init=ZERO, name="proj")(h.reshape(x.shape))


def transformer(
  heads: int | None,
  head: int,
  norm: Callable[..., nn.Module],
  dtype: Any,
  name: str,
  depth: int = 1,
) -> SpatialTransformer:
  """What a U-Net takes as its `attention`, see `nets.unet.Trunk`."""
  return SpatialTransformer(heads, head, depth, norm, dtype, name=name)
