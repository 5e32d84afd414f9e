"""EDM2: a U-Net whose activations and weights keep their magnitudes.

Karras et al. 2024, arXiv 2312.02696, config G, as NVlabs/edm2 has it. No layer
has a bias, no group is normalised; instead every operation is scaled such that
inputs of unit variance leave it with unit variance (Sec. 2.4, App. B). Weights
are used as directions: `normalise`d per output whenever they are read, and kept
at unit rms by the optimiser (`optim.adam(unit_rms=True)`). The reference
rewrites its weights before each training step and reads them normalised once
more; ours are rewritten after the update, and drawn normalised, so that at each
step the same weights meet the same gradients. Only an average sees a
difference: of vectors of unit rms here, there of those an update has made a
little longer.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets.attention import attend
from jaxgen.nets.equalised import weights_of
from jaxgen.nets.layers import Dropout, halve, upsample
from jaxgen.nets.unet import gather_patches, spread_patches

Array = jax.Array
EPS = 1e-4  # added to the rms by which is divided
LARGEST = 256.0  # of activations, for float16's sake
BALANCE = 0.3  # share of a branch in a sum
ZERO = nn.initializers.zeros


def normalise(x: Array, axes: int | Sequence[int]) -> Array:
  """x / (rms + 1e-4) along some axes (Eq. 48); the rms in float32."""
  square = jnp.mean(jnp.square(x.astype(jnp.float32)), axes, keepdims=True)
  # The root has no slope at zero; the reference's is taken as zero.
  rms = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
  return x / (rms + EPS).astype(x.dtype)


def mp_silu(x: Array) -> Array:
  """SiLU of N(0, 1), at unit second moment (Eq. 81)."""
  return nn.silu(x) / 0.596


def mp_sum(a: Array, b: Array, t: float = 0.5) -> Array:
  """(1 - t) a + t b, scaled for a and b that are independent (Eq. 88)."""
  return (a + t * (b - a)) / np.sqrt((1 - t) ** 2 + t**2).astype(a.dtype)


def mp_cat(a: Array, b: Array, t: float = 0.5) -> Array:
  """Channels of a, then of b, whose shares of the square are as 1 - t to t (Eq. 103)."""
  n, m = a.shape[-1], b.shape[-1]
  scale = np.sqrt((n + m) / ((1 - t) ** 2 + t**2))
  share = lambda k, t: np.asarray(scale / np.sqrt(k) * t, a.dtype)
  return jnp.concatenate([share(n, 1 - t) * a, share(m, t) * b], -1)


def unit_rms(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
  """N(0, 1), normalised per output: over all axes but the last."""
  z = jax.random.normal(key, shape, dtype)
  return normalise(z, range(len(shape) - 1))


class Fourier(nn.Module):
  """Numbers [B] -> features [B, width] of unit variance, float32 (Eq. 75).

  sqrt(2) cos(f x + phi), f = 2 pi N(0, 1), phi = 2 pi U: drawn once, and no
  parameters.
  """

  width: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    draw = lambda f: lambda: 2 * np.pi * f(self.make_rng("params"), (self.width,))
    freqs = self.variable("buffers", "freqs", draw(jax.random.normal)).value
    phases = self.variable("buffers", "phases", draw(jax.random.uniform)).value
    return np.float32(np.sqrt(2)) * jnp.cos(x.astype(jnp.float32)[:, None] * freqs + phases)


class Layer(nn.Module):
  """x [.., I] -> [.., width]: weights of unit rms, over the root of the fan-in (Eq. 67).

  Attributes:
    width: Numbers or channels that come out.
    size: Of a convolution's kernel; 0: a matrix, of x [B, I].
  """

  width: int
  size: int = 0

  @nn.compact
  def __call__(self, x: Array, gain: Array | float = 1.0) -> Array:
    shape = (*(self.size, self.size)[: 2 * (self.size > 0)], x.shape[-1], self.width)
    kernel = self.param("kernel", unit_rms, shape)
    kernel = normalise(kernel, range(len(shape) - 1)) * (gain / np.sqrt(np.prod(shape[:-1])))
    kernel = kernel.astype(x.dtype)
    if self.size < 2:
      return x @ kernel.reshape(shape[-2:])
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class Block(nn.Module):
  """A residual block, and attention (Karras et al. 2024, Fig. 21).

  Attributes:
    width: Channels that come out.
    encodes: Pixels are normalised before the branch, which the skip is part of;
      else neither.
    resample: Of x, first; None: it stays.
    heads: Of attention; 0: none.
    dropout: Before the last convolution, where keys are given.
  """

  width: int
  encodes: bool
  resample: Callable[[Array], Array] | None = None
  heads: int = 0
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: Array, emb: Array, key: Array | None = None) -> Array:
    """x [B, H, W, C], the condition [B, E] float32, keys [B] or None."""
    x = self.resample(x) if self.resample else x
    skip = Layer(self.width, 1, name="conv_skip") if x.shape[-1] != self.width else lambda x: x
    if self.encodes:
      x = normalise(skip(x), -1)
    y = Layer(self.width, 3, name="conv_res0")(mp_silu(x))
    gain = self.param("emb_gain", ZERO, ())
    scale = 1 + Layer(self.width, name="emb_linear")(emb, gain)[:, None, None]
    y = Dropout(self.dropout)(mp_silu(y * scale.astype(y.dtype)), key)
    y = Layer(self.width, 3, name="conv_res1")(y)
    x = mp_sum(x if self.encodes else skip(x), y, BALANCE)
    if self.heads:
      x = mp_sum(x, self.attention(x), BALANCE)
    return jnp.clip(x, -LARGEST, LARGEST)

  def attention(self, x: Array) -> Array:
    """Of all positions; q, k and v are of unit rms, for every head."""
    qkv = Layer(3 * self.width, 1, name="attn_qkv")(x)
    # The reference has channels of a head as (channel, q k v).
    qkv = qkv.reshape(len(x), -1, self.heads, self.width // self.heads, 3)
    y = attend(*jnp.moveaxis(normalise(qkv, 3), -1, 0)).reshape(x.shape)
    return Layer(self.width, 1, name="attn_proj")(y)


class EDM2(nn.Module):
  """F(x, c_noise, y), shaped like x [B, H, W, C]; zero before the first update.

  Attributes:
    width: Channels of the first level.
    mults: Of all levels, each half as high as the one before.
    blocks: Of every level on the way down; on the way up there is one more.
    attend: Heights at which blocks have attention; the middle one always has.
    head: Channels of a head, which those of such levels are multiples of.
    labels: Classes, weights of which are y [B, labels], or y [B] one of them;
      0: there are none.
    patch: So many pixels along a side are seen as one; 1 as published.
    dropout: In all blocks, where keys are given.
    features: Of noise levels, that the `uncertainty` is linear in.
    remat: Blocks are computed again for the gradient, which saves memory.
    dtype: Of the activations; weights, their norms and the condition are float32.
  """

  width: int = 128
  mults: Sequence[int] = (1, 2, 3, 4)
  blocks: int = 3
  attend: Sequence[int] = (16, 8)
  head: int = 64
  labels: int = 0
  patch: int = 1
  dropout: float = 0.0
  features: int = 128
  remat: bool = False
  dtype: Any = jnp.float32

  def setup(self):
    self.logvar_fourier, self.logvar_linear = Fourier(self.features), Layer(1)

  def heights(self, height: int) -> tuple[int, ...]:
    """Of the maps of images of such height."""
    return tuple(height // self.patch >> i for i in range(len(self.mults)))

  @nn.compact
  def __call__(
    self, x: Array, c_noise: Array, y: Array | None = None, key: Array | None = None
  ) -> Array:
    halvings, height = len(self.mults) - 1, x.shape[1] // self.patch
    if any(n % (self.patch << halvings) for n in x.shape[1:3]):
      raise ValueError(
        f"images of {x.shape[1]}x{x.shape[2]} cannot be halved {halvings} times"
        + f" in patches of {self.patch}" * (self.patch > 1)
      )
    if self.is_initializing():
      self.uncertainty(c_noise)
    emb, dtype = self.condition(c_noise, y), x.dtype
    x = gather_patches(x, self.patch).astype(self.dtype)
    channels = x.shape[-1]
    x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1)  # in the place of biases
    x, skips = self.encode(x, emb, key, height)
    x = self.decode(x, skips, emb, key, height)
    gain = self.param("out_gain", ZERO, ())
    F = Layer(channels, 3, name="out_conv")(x, gain).astype(dtype)
    return spread_patches(F, self.patch)

  def uncertainty(self, c_noise: Array) -> Array:
    """c_noise [B] -> u [B]: log of the error to expect there (Eq. 21).

    Linear in features of the noise level. Losses read it, and sampling does not.
    """
    return self.logvar_linear(self.logvar_fourier(c_noise))[:, 0]

  def condition(self, c_noise: Array, y: Array | None) -> Array:
    """Of noise level and label, [B, E]."""
    wide = self.width * max(self.mults)
    emb = Layer(wide, name="emb_noise")(Fourier(self.width, name="emb_fourier")(c_noise))
    if self.labels:
      if y is None:
        raise ValueError("this net has labels: give it y")
      rows = weights_of(y, self.labels) * np.float32(np.sqrt(self.labels))
      emb = mp_sum(emb, Layer(wide, name="emb_label")(rows))
    return mp_silu(emb)

  def block(self, level: int, name: str, height: int, middle: bool = False, **kw) -> nn.Module:
    """One block; `height` of the first level."""
    width = self.width * self.mults[level]
    plain = kw.get("resample") is None
    attends = middle or plain and not name.endswith("in1") and height >> level in self.attend
    if attends and width % self.head:
      raise ValueError(f"{width} channels cannot be split into heads of {self.head}")
    heads = width // self.head if attends else 0
    make = nn.remat(Block) if self.remat else Block
    return make(kw.pop("width", width), heads=heads, dropout=self.dropout, name=name, **kw)

  def encode(
    self, x: Array, emb: Array, key: Array | None, height: int
  ) -> tuple[Array, list[Array]]:
    """-> the lowest map, and all on the way."""
    x = Layer(self.width, 3, name="enc_0_conv")(x)
    skips, block = [x], functools.partial(self.block, height=height, encodes=True)
    for level in range(len(self.mults)):
      if level:
        down = block(level, f"enc_{level}_down", resample=halve, width=x.shape[-1])
        x = down(x, emb, key)
        skips.append(x)
      for i in range(self.blocks):
        x = block(level, f"enc_{level}_block{i}")(x, emb, key)
        skips.append(x)
    return x, skips

  def decode(
    self, x: Array, skips: list[Array], emb: Array, key: Array | None, height: int
  ) -> Array:
    """The way up, which takes the maps of the way down."""
    block = functools.partial(self.block, height=height, encodes=False)
    last = len(self.mults) - 1
    x = block(last, f"dec_{last}_in0", middle=True)(x, emb, key)
    x = block(last, f"dec_{last}_in1")(x, emb, key)
    for level in reversed(range(len(self.mults))):
      if level < last:
        up = block(level, f"dec_{level}_up", resample=upsample, width=x.shape[-1])
        x = up(x, emb, key)
      for i in range(self.blocks + 1):
        x = mp_cat(x, skips.pop())
        x = block(level, f"dec_{level}_block{i}")(x, emb, key)
    return x
