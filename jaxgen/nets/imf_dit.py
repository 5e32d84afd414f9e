"""The transformer of improved MeanFlow (Geng et al. 2025, arXiv 2512.02012).

Conditions are tokens before those of the image (its Sec. 4.3), each a learned
token plus the embedding of what it stands for, and there is no adaLN. Blocks
have RMSNorm, rotary places in one dimension over all tokens, normed queries and
keys, SwiGLU, and vectors as gates, zero at the start. The last blocks exist
twice: for the average velocity u, and for v, which training alone wants.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets import dit, two_times
from jaxgen.nets.attention import attend
from jaxgen.nets.layers import sinusoids
from jaxgen.nets.unet import spread_patches

Array = jax.Array
Norm = functools.partial(nn.RMSNorm, epsilon=1e-6)  # in float32


def spread_of(gain: float) -> Any:
  """Normal weights of standard deviation gain / sqrt(inputs)."""
  return nn.initializers.variance_scaling(gain**2, "fan_in", "normal")


INNER = spread_of(0.32)
OUTER = spread_of(1.0)


class Attention(nn.Module):
  """Self-attention of tokens [B, T, D] that sees how far apart they are.

  Attributes:
    heads: Their number.
    dtype: Of the matrix products; softmax is float32.
  """

  heads: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    dense = functools.partial(nn.Dense, width, False, dtype=self.dtype, kernel_init=INNER)
    split = lambda x: x.reshape(*x.shape[:2], self.heads, -1)
    q, k, v = (split(dense(name=name)(x)) for name in "qkv")
    q, k = (turn(Norm(name=f"norm_{n}")(a)).astype(self.dtype) for n, a in (("q", q), ("k", k)))
    return dense(name="proj")(attend(q, k, v).reshape(x.shape))


class Block(nn.Module):
  """Attention, then SwiGLU, each added through a gate [D]."""

  heads: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    gates = [self.param(f"gate_{i}", nn.initializers.zeros, (width,)) for i in (1, 2)]
    gate_1, gate_2 = (gate.astype(self.dtype) for gate in gates)
    x += gate_1 * Attention(self.heads, self.dtype, name="attn")(Norm(name="norm_1")(x))
    dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype, kernel_init=INNER)
    h, hidden = Norm(name="norm_2")(x), int(width * 8 / 3)
    h = nn.silu(dense(hidden, name="fc_1")(h)) * dense(hidden, name="fc_3")(h)
    return x + gate_2 * dense(width, name="fc_2")(h)


class ImfDiT(nn.Module):
  """u and v as channels, [B, H, W, 2C], of x [B, H, W, C].

  c [B, 4] are h = t - r, 1 - 1 / omega, t_min and t_max; without labels h alone.

  Attributes:
    width: Channels of a token.
    depth: Blocks from x to u.
    own: How many of these are u's alone; v has as many.
    heads: Of attention.
    patch: Pixels along a patch's side: H and W are multiples of it.
    labels: Rows of the label embedding, "none" among them; 0: no labels.
    tokens: How many stand for the label, omega, t_min, t_max and h.
    remat: Blocks keep only the products of their matrices for the gradient.
    unroll: Blocks in a turn of the loop.
    dtype: Of the blocks; parameters, norms, softmax, what conditions become and
      the last layers are float32. A derivative in bfloat16 is noisy.
  """

  width: int = 768
  depth: int = 12
  own: int = 8
  heads: int = 12
  patch: int = 2
  labels: int = 0
  tokens: tuple[int, ...] = (8, 4, 2, 2, 4)
  remat: bool = False
  unroll: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, c: Array, y: Array | None = None, key: Array | None = None) -> Array:
    del key  # nothing to draw
    b, height, width, channels = x.shape
    p = self.patch
    if height % p or width % p:
      raise ValueError(f"images of {height}x{width} are not made of patches of {p}x{p}")
    embed = functools.partial(nn.Conv, kernel_init=dit.flat_xavier, name="patch_embed")
    patches = embed(self.width, (p, p), p, "VALID")(x).reshape(b, -1, self.width)
    tokens = jnp.concatenate([*self.conditions(c, y), patches], 1).astype(self.dtype)
    tokens = self.blocks(tokens, self.depth - self.own, "blocks")
    outputs = []
    for name in "uv":
      h = self.blocks(tokens, self.own, f"{name}_blocks")[:, -patches.shape[1] :]
      h = Norm(name=f"{name}_norm")(h.astype(jnp.float32))
      h = nn.Dense(p * p * channels, kernel_init=dit.ZERO, name=f"{name}_head")(h)
      outputs.append(spread_patches(h.reshape(b, height // p, width // p, -1), p))
    return jnp.concatenate(outputs, -1)

  def conditions(self, c: Array, y: Array | None) -> list[Array]:
    """Tokens [B, n, D] each: the label's, omega's, t_min's, t_max's and h's."""
    h, *guide = two_times.columns(c)
    numbers = dict(zip(("omega", "t_min", "t_max"), guide, strict=False)) | {"h": h}
    counts = dict(zip(("label", "omega", "t_min", "t_max", "h"), self.tokens, strict=True))
    dense = functools.partial(nn.Dense, self.width, kernel_init=OUTER)
    vectors = {}
    if self.labels:
      table = nn.initializers.normal(self.width**-0.5)
      vectors["label"] = nn.Embed(self.labels, self.width, embedding_init=table, name="label")(y)
    for name, a in numbers.items():
      e = nn.silu(dense(name=f"{name}_0")(sinusoids(a, dit.FEATURES)))
      vectors[name] = dense(name=f"{name}_2")(e)
    begin = nn.initializers.normal(self.width**-0.5)
    learned = lambda k: self.param(f"{k}_tokens", begin, (counts[k], self.width))
    return [learned(name) + vector[:, None] for name, vector in vectors.items()]

  def blocks(self, tokens: Array, depth: int, name: str) -> Array:
    """So many, whose weights are stacked, [depth, ...]."""
    if not depth:
      return tokens
    block = functools.partial(Block, self.heads, self.dtype)
    if self.remat:
      remat = nn.remat(Block, prevent_cse=self.unroll > 1, policy=dit.PRODUCTS)
      block = functools.partial(remat, self.heads, self.dtype)
    turn = nn.scan(
      lambda block, tokens: (block(tokens), None),
      variable_axes={"params": 0},
      split_rngs={"params": True},
      length=depth,
      unroll=min(self.unroll, depth),
    )
    return turn(block(name=name), tokens)[0]


def turn(x: Array) -> Array:
  """Rotates the pairs (2i, 2i + 1) of x [B, T, N, C] by their token's place.

  By place / 10000^(2i / C) (Su et al. 2021, Eq. 34); float32.
  """
  count, head = x.shape[1], x.shape[-1]
  if head % 2:
    raise ValueError(f"heads of {head} channels: places want a multiple of 2")
  angle = np.arange(count)[:, None, None] / 10000 ** (np.arange(0, head, 2) / head)
  cos, sin = (np.float32(f(angle)) for f in (np.cos, np.sin))
  x = x.astype(jnp.float32)
  a, b = x[..., ::2], x[..., 1::2]
  return jnp.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)
