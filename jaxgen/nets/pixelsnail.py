"""PixelSNAIL: what code comes next, of a map of codes (Chen et al. 2018).

As in rosinality/vq-vae-2-pytorch, which has it for both levels of VQ-VAE-2. A
map is read row by row. The net is written once and runs in three ways: over a
whole map, to learn; and in a walk, with what it remembers, for the row that
begins and for one pixel of it. So a map that is drawn code by code costs about
one pass over it, not one for every code: see `models.autoregressive`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.layers import Dropout, LabelEmbed, upsample
from jaxgen.nets.unet import TORCH

Array = jax.Array
UNSEEN = -1e4  # logit of a place that comes later


class At(NamedTuple):
  """Where a walk is. Collections "cache" and "fixed" are what it remembers.

  Attributes:
    i: Row, int32 [].
    j: Column, int32 []; None: row i begins, and each layer takes in what is
      above it. The answer is then of no use.
  """

  i: Array
  j: Array | None = None


def fixed(module: nn.Module, name: str, make: Callable[[], Array]) -> Array:
  """What is the same all along a walk: made at its begin, and then read."""
  if module.has_variable("fixed", name):
    return module.get_variable("fixed", name)
  value = make()
  if module.is_mutable_collection("fixed") and not module.is_initializing():
    module.put_variable("fixed", name, value)
  return value


def normed(module: nn.Module, shape: Sequence[int], mask: Array | float = 1.0) -> Array:
  """A kernel [.., in, out] as scale * v / |v|, |v| for each output.

  Salimans & Kingma 2016, Eq. 2. What the mask hides does not count in |v|.
  """
  norm = lambda v: jnp.sqrt(jnp.sum(v**2, tuple(range(v.ndim - 1))))
  v = module.param("kernel", TORCH, shape)
  scale = module.param("scale", lambda _: norm(v))
  return fixed(module, "kernel", lambda: v * mask * (scale / norm(v * mask)))


def convolve(x: Array, kernel: Array, pads: Sequence[tuple[int, int]]) -> Array:
  """x [B, H, W, in], kernel [h, w, in, out]."""
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


class NormedConv(nn.Module):
  """A convolution of odd `side` that looks everywhere; of side 1 at its pixel.

  Attributes:
    width: Channels that come out.
    side: Of the kernel.
    use_bias: Adds one.
    dtype: Of the computation.
  """

  width: int
  side: int = 1
  use_bias: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x, channels = x.astype(self.dtype), x.shape[-1]
    if self.side == 1:
      y = x @ normed(self, (channels, self.width)).astype(self.dtype)
    else:
      kernel = normed(self, (self.side, self.side, channels, self.width)).astype(self.dtype)
      y = convolve(x, kernel, [(self.side // 2,) * 2] * 2)
    if not self.use_bias:
      return y
    return y + self.param("bias", nn.initializers.zeros, (self.width,)).astype(self.dtype)


class CausalConv(nn.Module):
  """A convolution that sees side - 1 rows above, and side // 2 pixels to the left.

  The pixel itself is not seen, although its input holds nothing of its code.

  Attributes:
    width: Channels that come out.
    side: Of the kernel; odd.
    dtype: Of the computation.
  """

  width: int
  side: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, at: At | None = None, plus: Array | float = 0.0) -> Array:
    """x [B, h, w, C] -> [B, h, w, width]; in a walk h = 1, and w = 1 at a pixel.

    `plus` is added; in a walk it is that of a whole row, when this begins.
    """
    side, half, (n, _, width, channels) = self.side, self.side // 2, x.shape
    mask = jnp.ones((side, side, 1, 1)).at[-1, half:].set(0)
    kernel = normed(self, (side, side, channels, self.width), mask).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.width,)).astype(self.dtype)
    x = x.astype(self.dtype)
    if at is None:
      return convolve(x, kernel, [(side - 1, 0), (half, half)]) + bias + plus
    zeros = functools.partial(jnp.zeros, dtype=self.dtype)
    # The last of the rows is the present one; zeros are around.
    rows = self.variable("cache", "rows", zeros, (n, side, width + 2 * half, channels))
    above = self.variable("cache", "above", zeros, (n, 1, width, self.width))
    if at.j is None:
      rows.value = jnp.pad(rows.value[:, 1:], [(0, 0), (0, 1), (0, 0), (0, 0)])
      above.value = convolve(rows.value[:, :-1], kernel[:-1], [(0, 0)] * 2) + bias + plus
      return above.value
    left = jax.lax.dynamic_slice(rows.value, (0, side - 1, at.j, 0), (n, 1, half, channels))
    rows.value = jax.lax.dynamic_update_slice(rows.value, x, (0, side - 1, at.j + half, 0))
    y = jnp.einsum("bhwc,wcd->bhd", left, kernel[-1, :half])[:, :, None]
    return y + jax.lax.dynamic_slice_in_dim(above.value, at.j, 1, 2)


class Kernel(nn.Module):
  """A layer's weights alone: kernel of `shape`, and bias."""

  shape: tuple[int, ...]
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self) -> tuple[Array, Array]:
    bias = self.param("bias", nn.initializers.zeros, self.shape[-1:])
    return normed(self, self.shape).astype(self.dtype), bias.astype(self.dtype)


class Look(nn.Module):
  """Codes before a pixel -> its first features.

  One kernel is for the rows above; another for pixels to the left, in these
  rows and in its own. Where there is no row above, or nothing to the left, the
  bias of the kernel is missing, too: its answer comes from next door.

  Attributes:
    codes: Their number.
    width: Channels that come out.
    side: Odd.
    dtype: Of the computation.
  """

  codes: int
  width: int
  side: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, codes: Array, at: At | None = None) -> Array:
    """Codes int32 [B, H, W]: of these, a walk reads what is before it."""
    half, (n, _, width) = self.side // 2, codes.shape
    shape = half, self.side, self.codes, self.width
    up, up_bias = Kernel(shape, self.dtype, name="horizontal")()
    shape = half + 1, half, self.codes, self.width
    left, left_bias = Kernel(shape, self.dtype, name="vertical")()
    one_hot = lambda codes: jax.nn.one_hot(codes, self.codes, dtype=self.dtype)
    left_bias = left_bias * (jnp.arange(width) > 0)[:, None]
    if at is None:
      x, up_bias = one_hot(codes), up_bias * (jnp.arange(codes.shape[1]) > 0)[:, None, None]
      y = convolve(x, up, [(half, 0), (half, half)])[:, :-1] + up_bias
      return y + convolve(x, left, [(half, 0), (half, 0)])[:, :, :-1] + left_bias
    zeros = functools.partial(jnp.zeros, dtype=self.dtype)
    above = self.variable("cache", "above", zeros, (n, 1, width, self.width))
    if at.j is None:
      x = one_hot(before(codes, at.i, half, 1))
      y = convolve(x, up, [(0, 0), (half, half)]) + up_bias * (at.i > 0)
      y += convolve(x, left[:-1], [(0, 0), (half, 0)])[:, :, :-1] + left_bias
      above.value = y
      return y
    row = jax.lax.dynamic_index_in_dim(codes, at.i, 1, keepdims=False)
    mine = before(row, at.j, half, 1)
    seen = left[-1][jnp.arange(half), jnp.maximum(mine, 0)]  # [B, half, width]
    y = jnp.sum(jnp.where(mine[..., None] < 0, 0, seen), 1)[:, None, None]
    return y + jax.lax.dynamic_slice_in_dim(above.value, at.j, 1, 2)


def before(x: Array, place: Array, count: int, axis: int) -> Array:
  """The `count` entries before a place, -1 where there are none."""
  places = place - count + jnp.arange(count)
  where = jnp.expand_dims(places >= 0, range(1, x.ndim - axis))
  return jnp.where(where, jnp.take(x, jnp.maximum(places, 0), axis), -1)


class GatedBlock(nn.Module):
  """ELU, conv, ELU, dropout, conv, gate; plus the input.

  Attributes:
    hidden: Channels between the convolutions.
    side: Of both.
    causal: They look back alone.
    labels: Number of labels that move the gate, in causal blocks; 0: none.
    dropout: Share, where keys are given.
    dtype: Of the computation.
  """

  hidden: int
  side: int = 1
  causal: bool = False
  labels: int = 0
  dropout: float = 0.1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Array,
    at: At | None = None,
    key: Array | None = None,
    aux: Array | None = None,
    cond: Array | None = None,
    y: Array | None = None,
  ) -> Array:
    """x [B, h, w, C]; `aux` goes to the first conv, `cond` and labels to the gate."""

    def conv(width, name, x, plus=0.0):
      if self.causal:
        return CausalConv(width, self.side, self.dtype, name=name)(x, at, plus)
      return NormedConv(width, self.side, dtype=self.dtype, name=name)(x)

    plus, width = 0.0, 2 * x.shape[-1]
    if cond is not None:
      plus += NormedConv(width, use_bias=False, dtype=self.dtype, name="cond")(cond)
    if self.labels and (at is None or at.j is None):
      bias = LabelEmbed(self.labels, width, nn.initializers.zeros, name="label")(y)
      plus += bias.astype(self.dtype)[:, None, None]
    h = conv(self.hidden, "conv_1", nn.elu(x))
    if aux is not None:
      h += NormedConv(self.hidden, dtype=self.dtype, name="aux")(nn.elu(aux))
    h = conv(width, "conv_2", Dropout(self.dropout)(nn.elu(h), key), plus)
    value, gate = jnp.split(h, 2, -1)
    return value * nn.sigmoid(gate) + x


class CausalAttention(nn.Module):
  """Attention to all pixels before one's own; the first gets zeros.

  Attributes:
    width: Channels of queries, keys and values.
    shape: Of the map, (height, width).
    heads: Their number.
    dropout: Of weights, where keys are given.
    dtype: Of the products; weights are float32.
  """

  width: int
  shape: tuple[int, int]
  heads: int = 8
  dropout: float = 0.1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, q: Array, x: Array, at: At | None = None, key: Array | None = None) -> Array:
    """What asks and what is asked, [B, h, w, ..] -> [B, h, w, width]."""
    n, h, w, _ = q.shape
    per_head = n, -1, self.heads, self.width // self.heads

    def project(name, x):
      return NormedConv(self.width, dtype=self.dtype, name=name)(x).reshape(per_head)

    q, k, v = project("query", q), project("key", x), project("value", x)
    places = self.shape[0] * self.shape[1]
    seen = jnp.tril(jnp.ones((places, places), bool), -1)
    if at is not None:
      zeros = functools.partial(jnp.zeros, dtype=self.dtype)
      shape = n, places, *per_head[2:]
      keys = self.variable("cache", "keys", zeros, shape)
      values = self.variable("cache", "values", zeros, shape)
      if at.j is None:
        return zeros((n, h, w, self.width))
      place = at.i * self.shape[1] + at.j
      seen = jnp.arange(places)[None] < place
      for cache, new in ((keys, k), (values, v)):
        cache.value = jax.lax.dynamic_update_slice_in_dim(cache.value, new, place, 1)
      k, v = keys.value, values.value
    logits = jnp.einsum("btnd,bsnd->bnts", q, k, preferred_element_type=jnp.float32)
    weights = nn.softmax(jnp.where(seen, logits * q.shape[-1] ** -0.5, UNSEEN))
    weights = Dropout(self.dropout)(weights * seen.any(-1, keepdims=True), key)
    out = jnp.einsum("bnts,bsnd->btnd", weights.astype(self.dtype), v)
    return out.reshape(n, h, w, self.width)


class PixelBlock(nn.Module):
  """Gated causal blocks, then attention, or a layer that is told the place.

  Attributes:
    shape: Of the map.
    side: Of causal convolutions.
    blocks: Number of gated blocks.
    hidden: Channels within these.
    attention: Whether it attends.
    rest: labels, dropout and dtype of GatedBlock.
  """

  shape: tuple[int, int]
  side: int
  blocks: int
  hidden: int
  attention: bool
  rest: tuple

  @nn.compact
  def __call__(
    self,
    x: Array,
    place: Array,
    at: At | None,
    key: Array | None,
    cond: Array | None,
    y: Array | None,
  ) -> Array:
    """x [B, h, w, C], `place` [B, h, w, 2] as `background` says it."""
    labels, dropout, dtype = self.rest
    width, first = x.shape[-1], x
    for i in range(self.blocks):
      block = GatedBlock(self.hidden, self.side, True, labels, dropout, dtype, name=f"res_{i}")
      x = block(x, at, key, cond=cond, y=y)
    if not self.attention:
      return NormedConv(width, dtype=dtype, name="out")(jnp.concatenate([x, place], -1))
    point = functools.partial(GatedBlock, width, dropout=dropout, dtype=dtype)
    asked = point(name="key")(jnp.concatenate([first, x, place], -1), key=key)
    asks = point(name="query")(jnp.concatenate([x, place], -1), key=key)
    attend = CausalAttention(width // 2, self.shape, 8, dropout, dtype, name="attention")
    return point(name="merge")(x, key=key, aux=attend(asks, asked, at, key))


class Surroundings(nn.Module):
  """Codes of the level above -> features that every block is told.

  Attributes:
    codes: Number of those codes.
    width: Channels.
    blocks: Gated blocks of 3 x 3.
    dropout: See GatedBlock.
    dtype: Of the computation.
  """

  codes: int
  width: int
  blocks: int
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, top: Array, key: Array | None = None) -> Array:
    """int32 [B, h, w] -> [B, 2h, 2w, width]."""
    x = jax.nn.one_hot(top, self.codes, dtype=self.dtype)
    x = NormedConv(self.width, 3, dtype=self.dtype, name="conv")(x)
    for i in range(self.blocks):
      block = GatedBlock(self.width, 3, dropout=self.dropout, dtype=self.dtype, name=f"res_{i}")
      x = block(x, key=key)
    return upsample(x)


def background(shape: tuple[int, int]) -> Array:
  """Row and column of every pixel, [1, H, W, 2], from -1/2 to 1/2."""
  rows, cols = ((jnp.arange(n) - n / 2) / n for n in shape)
  return jnp.stack(jnp.meshgrid(rows, cols, indexing="ij"), -1)[None]


class PixelSNAIL(nn.Module):
  """p(code | codes before it) of maps of codes.

  Attributes:
    shape: Of the map, (height, width).
    codes: Number of codes, of this level and of the one above.
    width: Channels between blocks, a multiple of 16 with attention.
    side: Of causal convolutions, odd.
    blocks: Number of pixel blocks.
    res_blocks: Gated blocks in each.
    hidden: Channels within gated blocks.
    attention: Whether pixel blocks attend: T x T weights for T pixels.
    cond_blocks: Gated blocks that read the level above, a map half as high and
      half as wide; 0: there is none.
    cond_width: Their channels.
    out_blocks: Gated blocks before the last layer.
    labels: Number of labels; 0: none is told. The published code knows none.
    dropout: In all gated blocks, and of attention's weights.
    dtype: Of the computation; logits are float32.
  """

  shape: tuple[int, int] = (32, 32)
  codes: int = 512
  width: int = 256
  side: int = 5
  blocks: int = 4
  res_blocks: int = 4
  hidden: int = 256
  attention: bool = True
  cond_blocks: int = 0
  cond_width: int = 256
  out_blocks: int = 0
  labels: int = 0
  dropout: float = 0.1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    codes: Array,
    top: Array | None = None,
    y: Array | None = None,
    at: tuple[Array, Array | None] | None = None,
    key: Array | None = None,
  ) -> Array:
    """Logits [B, h, w, codes] of all pixels, or in a walk of one, h = w = 1.

    Args:
      codes: int32 [B, H, W]; those at a pixel and after it have no say there.
      top: Those of the level above, int32 [B, H / 2, W / 2].
      y: Labels, int32 [B].
      at: Where a walk is, (i, j), see At.
      key: Of dropout, [B].
    """
    self.check(codes, top)
    at = None if at is None else At(*at)
    rest = self.dropout, self.dtype
    x = Look(self.codes, self.width, self.side, self.dtype, name="look")(codes, at)
    cond, place = None, background(self.shape)
    if self.cond_blocks and (at is None or at.j is None):
      above = Surroundings(self.codes, self.cond_width, self.cond_blocks, *rest, name="cond")
      cond = fixed(self, "cond_features", lambda: above(top, key))
    if at is not None:
      row = lambda x: x if x is None else jax.lax.dynamic_slice_in_dim(x, at.i, 1, 1)
      cond, place = row(cond), row(place)
      place = place if at.j is None else jax.lax.dynamic_slice_in_dim(place, at.j, 1, 2)
    place = jnp.broadcast_to(place.astype(self.dtype), (*x.shape[:-1], 2))
    shape = tuple(self.shape), self.side, self.res_blocks, self.hidden, self.attention
    for i in range(self.blocks):
      block = PixelBlock(*shape, (self.labels, *rest), name=f"block_{i}")
      x = block(x, place, at, key, cond, y)
    for i in range(self.out_blocks):
      block = GatedBlock(self.hidden, dropout=self.dropout, dtype=self.dtype, name=f"out_{i}")
      x = block(x, key=key)
    return NormedConv(self.codes, dtype=self.dtype, name="out")(nn.elu(x)).astype(jnp.float32)

  def check(self, codes: Array, top: Array | None) -> None:
    """ValueError for maps of another shape, or settings that do not go together."""
    if not self.side % 2 or self.side < 3:
      raise ValueError(f"side={self.side}: want an odd number, 3 or more")
    if self.attention and self.width % 16:
      raise ValueError(f"width={self.width}: 8 heads on half of it want a multiple of 16")
    if tuple(codes.shape[1:]) != tuple(self.shape):
      raise ValueError(
        f"codes are {list(codes.shape)}: want [B, {', '.join(map(str, self.shape))}]"
      )
    if not self.cond_blocks:
      return
    height, width = (n // 2 for n in self.shape)
    if top is None or tuple(top.shape[1:]) != (height, width):
      shape = None if top is None else list(top.shape)
      raise ValueError(f"codes of the level above are {shape}: want [B, {height}, {width}]")
