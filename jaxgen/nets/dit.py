"""Diffusion transformers: images or latents as a sequence of patches.

DiT (Peebles & Xie 2023, arXiv 2212.09748) and SiT, which is the same net to
the weight (Ma et al. 2024, arXiv 2401.08740). Blocks are one program that
turns `depth` times: their weights are stacked, [depth, ...], and compiling
takes as long for 28 blocks as for one.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets.attention import attend
from jaxgen.nets.layers import sinusoids
from jaxgen.nets.unet import spread_patches

Array = jax.Array
ZERO = nn.initializers.zeros
XAVIER = nn.initializers.xavier_uniform()
SMALL = nn.initializers.normal(0.02)
PRODUCTS = jax.checkpoint_policies.dots_with_no_batch_dims_saveable  # no attention's weights
FEATURES = 256  # sinusoids that a time becomes

# Without a gain and a bias of its own: those are the condition's. In float32.
Norm = functools.partial(nn.LayerNorm, epsilon=1e-6, use_bias=False, use_scale=False)


class Heads(nn.Module):
  """Queries, keys and values of all heads, of tokens [B, T, D].

  Three products of one matrix's columns, written such that tokens are neighbours
  in memory: a TPU keeps 128 neighbours together, and heads of 72 channels would
  be laid out anew for every product of attention.

  Attributes:
    heads: Their number, N.
    dtype: Of the products.
  """

  heads: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, ...]:
    """-> three of [B, T, N, D / N]."""
    width = x.shape[-1]
    kernel = self.param("kernel", XAVIER, (width, 3 * width)).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros, (3 * width,)).astype(self.dtype)
    x = x.astype(self.dtype)
    parts = zip(jnp.split(kernel, 3, -1), jnp.split(bias, 3), strict=True)
    return tuple(self.split(jnp.einsum("de,btd->ebt", w, x) + b[:, None, None]) for w, b in parts)

  def split(self, y: Array) -> Array:
    """[D, B, T] -> [B, T, N, D / N]."""
    return jnp.moveaxis(y.reshape(self.heads, -1, *y.shape[1:]), (0, 1), (2, 3))


class Attention(nn.Module):
  """Self-attention of tokens [B, T, D].

  Attributes:
    heads: Their number.
    dtype: Of the matrix products; softmax is float32.
  """

  heads: int
  dtype: Any = jnp.float32

  def adapt(self, q: Array, k: Array) -> tuple[Array, Array]:
    """Queries and keys [B, T, N, C], before they meet."""
    return q, k

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    if width % self.heads:
      raise ValueError(f"{width} channels cannot be split into {self.heads} heads")
    q, k, v = Heads(self.heads, self.dtype, name="qkv")(x)
    y = attend(*self.adapt(q, k), v).reshape(x.shape)
    return nn.Dense(width, dtype=self.dtype, kernel_init=XAVIER, name="proj")(y)


class MLP(nn.Module):
  """Tokens one by one: four times as wide, GELU (its tanh form), and back."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=XAVIER)
    h = dense(4 * x.shape[-1], name="fc1")(x)
    return dense(x.shape[-1], name="fc2")(nn.gelu(h, approximate=True))


class Block(nn.Module):
  """adaLN-zero (Peebles & Xie 2023, Fig. 3): the identity at the start.

  The condition shifts and scales what attention and perceptron read, and scales
  what they add.

  Attributes:
    attention: (name=) -> a module of tokens [B, T, D].
    mlp: The same.
    norm: The same.
  """

  attention: Callable[..., nn.Module]
  mlp: Callable[..., nn.Module]
  norm: Callable[..., nn.Module] = Norm

  @nn.compact
  def __call__(self, x: Array, c: Array) -> Array:
    """Tokens [B, T, D], the condition [B, D] float32 -> tokens."""
    dense = functools.partial(nn.Dense, dtype=x.dtype, dot_general=sum_in_float32)
    ada = dense(6 * x.shape[-1], kernel_init=ZERO, name="ada")(c)[:, None]
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = jnp.split(ada, 6, -1)
    h = modulate(self.norm(name="norm_1")(x), shift_1, scale_1)
    x += gate_1.astype(x.dtype) * self.attention(name="attn")(h)
    h = modulate(self.norm(name="norm_2")(x), shift_2, scale_2)
    return x + gate_2.astype(x.dtype) * self.mlp(name="mlp")(h)


def sum_in_float32(*args: Any, **kw: Any) -> Array:
  """`lax.dot_general` of whatever dtype, whose sums are not rounded."""
  return jax.lax.dot_general(*args, **kw | {"preferred_element_type": jnp.float32})


def modulate(x: Array, shift: Array, scale: Array) -> Array:
  """x (1 + scale) + shift in float32, where normed."""
  return x.astype(jnp.float32) * (1 + scale) + shift


class Transformer(nn.Module):
  """F(x, c_noise, y), shaped like x [B, H, W, C], by blocks over patches.

  What DiT and others share; they say which blocks, and how a token knows its
  place.

  Attributes:
    width: Channels of a token.
    depth: Number of blocks.
    heads: Of attention.
    patch: Pixels along a patch's side: H and W are multiples of it.
    labels: Rows of the label embedding; 0: no labels. A "none" is one of them.
    learned: [B, H, W, 2C]: F and, in about [-1, 1], where the variance lies
      between its bounds (Nichol & Dhariwal 2021, Sec. 3.1).
    remat: Of what they compute, blocks keep the products of their matrices
      for the gradient, and make the rest again: a little more work, for much
      less memory.
    unroll: Blocks in a turn of the loop; `depth`: there is none.
    dtype: Of the computation; parameters, norms, softmax, the condition (but
      for what blocks multiply) and the last layer are float32.
  """

  width: int = 384
  depth: int = 12
  heads: int = 6
  patch: int = 2
  labels: int = 0
  learned: bool = False
  remat: bool = False
  unroll: int = 1
  dtype: Any = jnp.float32

  norm = Norm
  unread = 0  # outputs per channel of x that nobody reads

  def block(self, grid: tuple[int, int]) -> Callable[..., nn.Module]:
    """(name=) -> a block for so many rows and columns of tokens."""
    raise NotImplementedError

  def positions(self, grid: tuple[int, int]) -> Array | float:
    """What is added to tokens, [rows, columns, D]."""
    return 0.0

  def condition(self, c_noise: Array, y: Array | None) -> Array:
    """Of time and label, [B, D] float32."""
    return condition(c_noise, y, self.width, self.labels)

  @nn.compact
  def __call__(
    self, x: Array, c_noise: Array, y: Array | None = None, key: Array | None = None
  ) -> Array:
    del key  # nothing to draw
    b, height, width, channels = x.shape
    p = self.patch
    if height % p or width % p:
      raise ValueError(f"images of {height}x{width} are not made of patches of {p}x{p}")
    grid = height // p, width // p
    tokens = nn.Conv(
      self.width, (p, p), p, "VALID", dtype=self.dtype, kernel_init=flat_xavier, name="patch_embed"
    )(x)
    tokens += jnp.asarray(self.positions(grid), self.dtype)
    c = nn.silu(self.condition(c_noise, y))
    tokens = self.blocks(tokens.reshape(b, -1, self.width), c, grid)
    out = p * p * channels * (1 + self.learned + self.unread)
    shift, scale = jnp.split(nn.Dense(2 * self.width, kernel_init=ZERO, name="ada")(c), 2, -1)
    tokens = modulate(type(self).norm(name="norm")(tokens), shift[:, None], scale[:, None])
    F = nn.Dense(out, kernel_init=ZERO, name="head")(tokens)
    return spread_patches(F.reshape(b, *grid, out), p)[..., : channels * (1 + self.learned)]

  def blocks(self, tokens: Array, c: Array, grid: tuple[int, int]) -> Array:
    """All blocks, one after the other, [B, T, D]."""
    block = self.block(grid)
    if self.remat:  # nothing is found to be the same from turn to turn of a loop
      remat = nn.remat(block.func, prevent_cse=self.unroll > 1, policy=PRODUCTS)
      block = functools.partial(remat, **block.keywords)
    turn = nn.scan(
      lambda block, tokens, c: (block(tokens, c), None),
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=nn.broadcast,
      length=self.depth,
      unroll=self.unroll,
    )
    if not self.is_initializing():
      # Matrices are rounded before the loop, and so are the sums of their
      # gradients: half of what is written in every turn, and of what chips send.
      turn = nn.map_variables(turn, "params", trans_in_fn=lambda tree: rounded(tree, self.dtype))
    return turn(block(name="blocks"), tokens, c)[0]


def rounded(tree: Any, dtype: Any) -> Any:
  """The same with matrices, all of those of a loop in one array, of `dtype`."""
  return jax.tree.map(lambda a: a.astype(dtype) if a.ndim > 2 else a, tree)


class DiT(Transformer):
  """Peebles & Xie 2023: fixed places, layer norms, a perceptron with GELU."""

  def block(self, grid: tuple[int, int]) -> Callable[..., nn.Module]:
    """See Transformer."""
    return functools.partial(
      Block,
      attention=functools.partial(Attention, self.heads, self.dtype),
      mlp=functools.partial(MLP, self.dtype),
    )

  def positions(self, grid: tuple[int, int]) -> Array:
    """See `sin_cos`."""
    return jnp.asarray(sin_cos(grid, self.width))


class SiT(DiT):
  """DiT that predicts no variance, but has the outputs for one.

  As published (Ma et al. 2024): half of the last layer is never read.
  """

  unread = 1


def condition(c_noise: Array, y: Array | None, width: int, labels: int) -> Array:
  """The sum of time's and label's embedding, [B, width] float32."""
  dense = functools.partial(nn.Dense, width, kernel_init=SMALL)
  c = dense(name="time_0")(sinusoids(c_noise, FEATURES))
  c = dense(name="time_2")(nn.silu(c))
  return c + nn.Embed(labels, width, embedding_init=SMALL, name="label")(y) if labels else c


def flat_xavier(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
  """Of a convolution [p, p, C, D] as if it were the matrix [p p C, D]."""
  return XAVIER(key, (np.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)


def sin_cos(grid: tuple[int, int], width: int) -> np.ndarray:
  """Fixed places [rows, columns, width]: the column's half, then the row's.

  Each is all sines, then all cosines, of index / 10000^(i / n), i = 0 .. n - 1,
  where n = width / 4 (Vaswani et al. 2017, Sec. 3.5, of two dimensions). In
  float64, then rounded, as published.
  """
  if width % 4:
    raise ValueError(f"width={width}: sines and cosines of rows and columns want a multiple of 4")
  w = 1 / 10000 ** (np.arange(width // 4) / (width / 4))
  rows, columns = (
    np.concatenate([np.sin(angle), np.cos(angle)], -1)
    for angle in (np.arange(n)[:, None] * w for n in grid)
  )
  shape = *grid, width // 2
  places = np.broadcast_to(columns[None], shape), np.broadcast_to(rows[:, None], shape)
  return np.concatenate(places, -1).astype(np.float32)
