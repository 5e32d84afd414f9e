"""U-Nets of diffusion models, and the noisy classifier that guides them.

One module is ADM's (Dhariwal & Nichol 2021), DDPM's (Ho et al. 2020) and SR3's
network; which, is for configs to say. Names of parameters carry the numbers of
ADM's published checkpoints: in_4_res is `input_blocks.4.0`.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.attention import attend
from jaxgen.nets.layers import Dropout, GroupNorm, divisor, halve, sinusoids, upsample

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
  dropout: float = 0.0
  norm: Callable[..., nn.Module] = GroupNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, emb: Array, key: Array | None = None) -> Array:
    h = nn.silu(self.norm(name="norm_1")(x))
    if self.resample:
      h, x = self.resample(h), self.resample(x)
    h = conv(self.width, self.dtype, "conv_1")(h)
    emb = nn.Dense(self.width * (1 + self.affine), kernel_init=TORCH, name="emb")(emb).astype(
      h.dtype
    )[:, None, None]
    if self.affine:
      scale, shift = jnp.split(emb, 2, -1)
      h = self.norm(name="norm_2")(h) * (1 + scale) + shift
    else:
      h = self.norm(name="norm_2")(h + emb)
    h = Dropout(self.dropout)(nn.silu(h), key)
    h = conv(self.width, self.dtype, "conv_2", init=ZERO)(h)
    if x.shape[-1] != self.width:
      x = nn.Dense(self.width, dtype=self.dtype, kernel_init=TORCH, name="skip")(x)
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
    qkv = nn.Dense(3 * c, self.bias, dtype=self.dtype, kernel_init=TORCH, name="qkv")(
      self.norm(name="norm")(x)
    )
    q, k, v = split_heads(qkv.reshape(b, h * w, 3 * c), heads, self.split_first)
    y = attend(q, k, v).reshape(b, h, w, c)
    return x + nn.Dense(c, dtype=self.dtype, kernel_init=ZERO, name="proj")(y)


def split_heads(qkv: Array, heads: int, split_first: bool) -> tuple[Array, ...]:
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
    return conv(x.shape[-1], self.dtype, "conv", strides=2, padding=[self.pad, self.pad])(x)


class Up(nn.Module):
  """Doubles H and W: nearest neighbours, then a convolution."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return conv(x.shape[-1], self.dtype, "conv")(upsample(x))


def conv(width: int, dtype: Any, name: str, init: Callable = TORCH, **kw) -> nn.Conv:
  """Three by three."""
  return nn.Conv(width, (3, 3), dtype=dtype, kernel_init=init, name=name, **kw)


def time_and_label(
  c_noise: Array,
  y: Array | None,
  width: int,
  labels: int,
  features: Callable = sinusoids,
  level: Array | None = None,
) -> Array:
  """The embedding of time and label that every block reads, [B, 4 width], float32."""
  dense = functools.partial(nn.Dense, 4 * width, kernel_init=TORCH)
  emb = dense(name="time_0")(features(c_noise, width))
  emb = dense(name="time_2")(nn.silu(emb))
  if labels:
    emb += nn.Embed(labels, 4 * width, name="label", embedding_init=nn.initializers.normal(1.0))(y)
  if level is not None:
    emb += level_embedding(level, width, 4 * width)
  return nn.silu(emb)


def noise_level(
  c_noise: Array, y: Array | None, width: int, labels: int, level: Array | None = None
) -> Array:
  """SR3's: the noise level in (0, 1] itself, [B, width]; no labels."""
  dense = functools.partial(nn.Dense, kernel_init=TORCH)
  emb = sinusoids(c_noise, width, sine_first=True)
  emb = nn.silu(dense(4 * width, name="time_0")(emb))
  emb = dense(width, name="time_2")(emb)
  return emb if level is None else emb + level_embedding(level, width, width)


def level_and_label(
  c_noise: Array, y: Array | None, width: int, labels: int, level: Array | None = None
) -> Array:
  """As `time_and_label`, of a noise level in (0, 1] in place of the time."""
  return time_and_label(1000 * c_noise, y, width, labels, level=level)


def level_embedding(level: Array, width: int, out: int) -> Array:
  """Embeds a level of augmentation [B] in [0, 1] as times are: [B, out]."""
  emb = nn.Dense(4 * width, kernel_init=TORCH, name="level_0")(sinusoids(1000 * level, width))
  return nn.Dense(out, kernel_init=TORCH, name="level_2")(nn.silu(emb))


class Trunk(nn.Module):
  """The way down and the middle, which U-Net and classifier share.

  Attributes:
    width: Channels of the first level, before multipliers.
    mults: Channel multipliers, one per level; each level halves H and W.
    blocks: Residual blocks per level.
    attend: Resolutions (heights) with self-attention.
    heads: Attention heads; None: as many as have `head` channels.
    head: Channels per attention head; more where heads would be unequal.
    split_first: Order of channels in attention, see `Attention`.
    bias: Attention's `qkv` has one.
    labels: Rows of the label embedding; 0: no labels. A "none" is one of them.
    affine: Adaptive group norm, see `ResBlock`.
    updown: Residual blocks change the resolution, not convolutions.
    pad: Of strided convolutions, see `Down`.
    dropout: Share of activations dropped when keys are given.
    groups: Of the norms.
    least: Channels that a norm's group has at least.
    eps: Of the norms.
    embedding: (c_noise, y, width, labels) -> what blocks read, [B, E].
    transformer: Makes what stands in the place of `Attention` and also reads a
      context, see `nets.spatial_transformer`; None: `Attention` itself.
    remat: Heights of what comes into blocks that do not keep what they compute
      for the gradient but make it again: the same numbers to rounding, for more
      work and less memory, of which the largest heights take most.
    dtype: Of the computation; parameters, norms, softmax, the embedding and
      the last layer are float32.
  """

  width: int = 128
  mults: Sequence[float] = (1, 2, 2, 2)
  blocks: int = 2
  attend: Sequence[int] = (16,)
  heads: int | None = None
  head: int = 64
  split_first: bool = False
  bias: bool = True
  labels: int = 0
  affine: bool = True
  updown: bool = False
  pad: Sequence[int] = (1, 1)
  dropout: float = 0.0
  groups: int = 32
  least: int = 1
  eps: float = 1e-5
  embedding: Callable = time_and_label
  transformer: Callable[..., nn.Module] | None = None
  remat: Sequence[int] = ()
  dtype: Any = jnp.float32

  @property
  def norm(self) -> Callable[..., nn.Module]:
    """Makes group norms."""
    return functools.partial(GroupNorm, self.groups, eps=self.eps, least=self.least)

  def heights(self, height: int) -> tuple[int, ...]:
    """Those of the levels, for images of `height`."""
    halved = lambda h, _: h // 2 if self.updown else -(-h // 2)
    return tuple(itertools.accumulate(self.mults[1:], halved, initial=height))

  def block_for(self, block: type[nn.Module], h: Array) -> type[nn.Module]:
    """A block for h, whose activations are kept or made again."""
    return nn.remat(block) if h.shape[1] in self.remat else block

  def res(
    self,
    h: Array,
    emb: Array,
    key: Array | None,
    name: str,
    width: int | None = None,
    resample: Callable | None = None,
  ) -> Array:
    """A residual block of `width` channels, or as many as h has."""
    return self.block_for(ResBlock, h)(
      width or h.shape[-1], resample, self.affine, self.dropout, self.norm, self.dtype, name=name
    )(h, emb, key)

  def attention(
    self, h: Array, name: str, heads: int | None = None, context: Array | None = None
  ) -> Array:
    """Attention of `heads`, or as many as elsewhere."""
    heads = heads or self.heads
    if self.transformer:
      call = lambda block, h, context: block(h, context)
      call = nn.remat(call) if h.shape[1] in self.remat else call
      return call(self.transformer(heads, self.head, self.norm, self.dtype, name), h, context)
    if context is not None:
      raise ValueError("this net's attention reads no context: give it a transformer")
    return self.block_for(Attention, h)(
      heads, self.head, self.split_first, self.bias, self.norm, self.dtype, name=name
    )(h)

  def level(
    self,
    h: Array,
    emb: Array,
    key: Array | None,
    name: str,
    mult: float,
    heads: int | None = None,
    context: Array | None = None,
  ) -> Array:
    """A residual block, with attention at the heights that have it."""
    h = self.res(h, emb, key, f"{name}_res", int(self.width * mult))
    return self.attention(h, f"{name}_attn", heads, context) if h.shape[1] in self.attend else h

  def encode(
    self, x: Array, emb: Array, key: Array | None, context: Array | None = None
  ) -> tuple[Array, list[Array]]:
    """-> what comes out of the middle, and of every block before it."""
    least = 2 ** (len(self.mults) - 1)
    if self.updown and (x.shape[1] % least or x.shape[2] % least):
      raise ValueError(
        f"images of {x.shape[1]}x{x.shape[2]} cannot be halved "
        f"{len(self.mults) - 1} times: want multiples of {least}"
      )
    skips = [conv(int(self.width * self.mults[0]), self.dtype, "in_0")(x)]
    for i, mult in enumerate(self.mults):
      if i:
        name, h = f"in_{len(skips)}_down", skips[-1]
        skips.append(
          self.res(h, emb, key, name, resample=halve)
          if self.updown
          else Down(tuple(self.pad), self.dtype, name=name)(h)
        )
      for _ in range(self.blocks):
        name = f"in_{len(skips)}"
        skips.append(self.level(skips[-1], emb, key, name, mult, context=context))
    heights = sorted({skip.shape[1] for skip in skips}, reverse=True)
    if unknown := set(self.remat) - set(heights):
      raise ValueError(
        f"remat={self.remat}: no block gets {unknown.pop()}, they get "
        f"heights of {', '.join(map(str, heights))}"
      )
    h = self.res(skips[-1], emb, key, "mid_0")
    h = self.res(self.attention(h, "mid_1", context=context), emb, key, "mid_2")
    return h, skips


class UNet(Trunk):
  """Predicts F(x, c_noise, y), shaped like x [B, H, W, C].

  With `learned`, [B, H, W, 2C]: F and, in about [-1, 1], where the
  variance lies between its bounds (Nichol & Dhariwal 2021, Sec. 3.1). With `low_res` [B, h, w, C'],
  images of any smaller size, it also reads these, enlarged (bilinearly; Dhariwal
  & Nichol 2021, Sec. 5; SR3 does it bicubically). With `level` [B] in [0, 1],
  how much noise is on them (Ho et al. 2022, Sec. 4.2), which joins the
  embedding as the time does. Attention on the way up has `heads_up` heads, if
  not None (improved-diffusion's num_heads_upsample). The net works on squares of
  `patch` x `patch` pixels, whose channels are one position's (Hoogeboom et al.
  2023, Sec. 3.3): less work and memory, for what is finest in an image.

  With a `transformer` it also reads `context` [B, T, D], any number of tokens. A
  label is such a token, of `token` channels, where that is positive (Rombach et
  al. 2022, App. C); else labels join the embedding.
  """

  learned: bool = False
  enlarge: str = "bilinear"
  heads_up: int | None = None
  patch: int = 1
  token: int = 0

  def heights(self, height: int) -> tuple[int, ...]:
    """Those of the levels, for images of `height`."""
    return super().heights(height // self.patch)

  @nn.compact
  def __call__(
    self,
    x: Array,
    c_noise: Array,
    y: Array | None = None,
    key: Array | None = None,
    low_res: Array | None = None,
    level: Array | None = None,
    context: Array | None = None,
  ) -> Array:
    if self.token:
      begin = nn.initializers.normal(1.0)
      table = nn.Embed(self.labels, self.token, name="token", embedding_init=begin)
      y, context = None, table(y)[:, None]
    emb = self.embedding(c_noise, y, self.width, 0 if self.token else self.labels, level=level)
    channels = x.shape[-1]
    if low_res is not None:
      large = (*x.shape[:-1], low_res.shape[-1])
      x = jnp.concatenate([x, jax.image.resize(low_res, large, self.enlarge)], -1)
    h, skips = self.encode(gather_patches(x, self.patch), emb, key, context)
    index = 0
    for i, mult in reversed(list(enumerate(self.mults))):
      for j in range(self.blocks + 1):
        h = jnp.concatenate([h, skips.pop()], -1)
        h = self.level(h, emb, key, f"out_{index}", mult, self.heads_up, context)
        if i and j == self.blocks:
          h = self.upsample(h, emb, key, f"out_{index}_up", skips[-1])
        index += 1
    h = nn.silu(self.norm(name="head_norm")(h.astype(jnp.float32)))
    width = self.patch**2 * channels * (1 + self.learned)
    return spread_patches(conv(width, jnp.float32, "head_conv", init=ZERO)(h), self.patch)

  def upsample(self, h: Array, emb: Array, key: Array | None, name: str, like: Array) -> Array:
    """Doubles H and W, to those of `like` where these are odd."""
    if self.updown:
      return self.res(h, emb, key, name, resample=upsample)
    _, height, width, _ = like.shape
    return Up(self.dtype, name=name)(h)[:, :height, :width]


def gather_patches(x: Array, patch: int) -> Array:
  """[B, H, W, C] -> [B, H / patch, W / patch, patch^2 C], row by row."""
  b, h, w, c = x.shape
  if h % patch or w % patch:
    raise ValueError(f"images of {h}x{w} are not made of patches of {patch}x{patch}")
  x = x.reshape(b, h // patch, patch, w // patch, patch, c)
  return x.swapaxes(2, 3).reshape(b, h // patch, w // patch, -1)


def spread_patches(x: Array, patch: int) -> Array:
  """The inverse of `gather_patches`."""
  b, h, w, _ = x.shape
  x = x.reshape(b, h, w, patch, patch, -1).swapaxes(2, 3)
  return x.reshape(b, h * patch, w * patch, -1)


class Classifier(Trunk):
  """Logits [B, classes] of noisy images: ADM's half U-Net, attention-pooled.

  Dhariwal & Nichol 2021, Sec. 4 and App. I, Table 12.
  """

  classes: int = 1000

  @nn.compact
  def __call__(
    self, x: Array, c_noise: Array, key: Array | None = None, features: bool = False
  ) -> Array:
    emb = self.embedding(c_noise, None, self.width, self.labels)
    h, _ = self.encode(x, emb, key)
    h = nn.silu(self.norm(name="head_norm")(h.astype(jnp.float32)))
    h, logits = Pool(self.classes, self.head, name="pool")(h)
    return h if features else logits

  def embed(self, x: Array, c_noise: Array) -> Array:
    """What the last layer reads, [B, D]."""
    return self(x, c_noise, features=True)


class Pool(nn.Module):
  """Attention of the mean over all positions (Radford et al. 2021, CLIP).

  [B, H, W, C] -> [B, C] and, by a linear layer, [B, out].
  """

  out: int
  head: int = 64

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    b, h, w, c = x.shape
    x = x.reshape(b, h * w, c)
    x = jnp.concatenate([x.mean(1, keepdims=True), x], 1)
    x += self.param("positional", nn.initializers.normal(c**-0.5), (c, h * w + 1)).T
    qkv = nn.Dense(3 * c, kernel_init=TORCH, name="qkv")(x)
    heads = divisor(c, max(c // self.head, 1))
    q, k, v = split_heads(qkv, heads, split_first=True)
    y = attend(q[:, :1], k, v).reshape(b, c)
    return y, nn.Dense(self.out, kernel_init=TORCH, name="proj")(y)
