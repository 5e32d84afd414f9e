"""NCSN++ with a latent: the generator of denoising diffusion GANs.

Song et al. 2021, App. H, as Xiao et al. 2022, App. C.1, change it: a U-Net of
BigGAN's residual blocks, resampled by FIR filters, on whose way down the image
itself comes in again at every level. Time is added between convolutions; z
makes gain and bias of every norm in a block. Names of parameters carry the
numbers of the published checkpoints: res_4 is `all_modules.4`.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets import fir
from jaxgen.nets.attention import attend
from jaxgen.nets.layers import GroupNorm, LabelEmbed, divisor, group_norm, sinusoids
from jaxgen.nets.unet import gather_patches, spread_patches

Array = jax.Array
USUAL = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
ZERO = nn.initializers.zeros
HALF = 0.5**0.5  # a sum of two keeps its variance
EARLIEST = 1e-3  # whose logarithm stands for that of t = 0


class LatentNorm(nn.Module):
  """Group norm whose gain and bias are linear in the latent [B, Z], in float32."""

  @nn.compact
  def __call__(self, x: Array, latent: Array) -> Array:
    c = x.shape[-1]
    begin = lambda key, shape, dtype: jnp.repeat(jnp.array([1, 0], dtype), shape[0] // 2)
    style = nn.Dense(2 * c, kernel_init=USUAL, bias_init=begin, name="style")(latent)
    gain, bias = jnp.split(style, 2, -1)
    return group_norm(x, gain, bias, divisor(c, min(max(c // 4, 1), 32)), 1e-6)


class LatentBlock(nn.Module):
  """Norm, conv, time, norm, conv; plus the input, as a mean of two.

  Attributes:
    width: Channels that come out.
    resample: Of h and x between the first norm and convolution; None: neither.
    dtype: Of the convolutions.
  """

  width: int
  resample: Callable[[Array], Array] | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, time: Array, latent: Array) -> Array:
    """x [B, H, W, C], time [B, E] and latent [B, Z], both embedded."""
    h = nn.silu(LatentNorm(name="norm_1")(x, latent))
    if self.resample:
      h, x = self.resample(h), self.resample(x)
    h = conv(self.width, self.dtype, "conv_1")(h)
    h += nn.Dense(self.width, kernel_init=USUAL, name="time")(time).astype(h.dtype)[:, None, None]
    h = nn.silu(LatentNorm(name="norm_2")(h, latent))
    h = conv(self.width, self.dtype, "conv_2", init=ZERO)(h)
    if self.resample or x.shape[-1] != self.width:
      x = nn.Dense(self.width, dtype=self.dtype, kernel_init=USUAL, name="skip")(x)
    return HALF * (x + h)


class OneHead(nn.Module):
  """Self-attention of one head over positions, [B, H, W, C]; a mean with the input."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, height, w, c = x.shape
    dense = functools.partial(nn.Dense, c, dtype=self.dtype)
    h = GroupNorm(eps=1e-6, name="norm")(x).reshape(b, height * w, 1, c)
    q, k, v = (dense(kernel_init=USUAL, name=name)(h) for name in "qkv")
    h = dense(kernel_init=ZERO, name="out")(attend(q, k, v))
    return HALF * (x + h.reshape(x.shape))


class Shrink(nn.Module):
  """Filter and convolution that halve H and W."""

  width: int
  taps: Sequence[float] = fir.TAPS

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param("kernel", USUAL, (3, 3, x.shape[-1], self.width))
    bias = self.param("bias", ZERO, (self.width,))
    return fir.conv(x, kernel.astype(x.dtype), self.taps, down=True) + bias.astype(x.dtype)


def conv(width: int, dtype: Any, name: str, init: Callable = USUAL) -> nn.Conv:
  """Three by three."""
  return nn.Conv(width, (3, 3), dtype=dtype, kernel_init=init, name=name)


class NCSNpp(nn.Module):
  """(x_{t+1}, t, z, y) -> guess of x_0 in [-1, 1], shaped like x.

  Attributes:
    width: Channels of the first level, before multipliers.
    mults: Channel multipliers, one per level; each level halves H and W.
    blocks: Residual blocks per level.
    attend: Resolutions (heights) with self-attention; the middle always has it.
    z_width: Length of the latent that z is mapped to.
    z_layers: Layers of that mapping after its first.
    embedding: Of t: "positional", DDPM's sinusoids of it; or "fourier", of its
      logarithm at random frequencies that stay as they are.
    fourier_scale: Their standard deviation.
    taps: Of the filters that resample; (1, 1): means and nearest neighbours.
    pyramid: The image comes in again at every level ("residual" of NCSN++).
    tanh: Bounds what comes out.
    classes: Labels, whose vectors are added to the latent; 0: none, as
      published.
    patch: The net works on squares of patch x patch pixels, see `unet.UNet`.
    dtype: Of convolutions and attention; norms, embeddings and the last layer
      are float32.
  """

  width: int = 128
  mults: Sequence[int] = (1, 2, 2, 2)
  blocks: int = 2
  attend: Sequence[int] = (16,)
  z_width: int = 256
  z_layers: int = 4
  embedding: str = "positional"
  fourier_scale: float = 16.0
  taps: Sequence[float] = fir.TAPS
  pyramid: bool = True
  tanh: bool = True
  classes: int = 0
  patch: int = 1
  dtype: Any = jnp.float32

  def heights(self, height: int) -> tuple[int, ...]:
    """Those of the levels, for images of `height`."""
    return tuple(height // self.patch // 2**i for i in range(len(self.mults)))

  @nn.compact
  def __call__(self, x: Array, t: Array, z: Array, y: Array | None = None) -> Array:
    number = itertools.count()
    time, latent = self.embed(t, number), self.map(z, y)

    def block(h, width, resample=None):
      name = f"res_{next(number)}"
      return LatentBlock(width, resample, self.dtype, name=name)(h, time, latent)

    def attended(h, everywhere=False):
      if not everywhere and h.shape[1] not in self.attend:
        return h
      return OneHead(self.dtype, name=f"attn_{next(number)}")(h)

    down, up = (functools.partial(f, taps=self.taps) for f in (fir.downsample, fir.upsample))
    image = gather_patches(x, self.patch).astype(self.dtype)
    channels, last = image.shape[-1], len(self.mults) - 1
    h = conv(self.width, self.dtype, f"in_{next(number)}")(image)
    skips = [h]
    for level, mult in enumerate(self.mults):
      for _ in range(self.blocks):
        h = attended(block(h, self.width * mult))
        skips.append(h)
      if level < last:
        h = block(h, h.shape[-1], down)
        if self.pyramid:
          shrink = Shrink(h.shape[-1], self.taps, name=f"shrink_{next(number)}")
          h = image = HALF * (shrink(image) + h)
        skips.append(h)
    h = attended(block(h, h.shape[-1]), everywhere=True)
    h = block(h, h.shape[-1])
    for level, mult in reversed(list(enumerate(self.mults))):
      for _ in range(self.blocks + 1):
        h = block(jnp.concatenate([h, skips.pop()], -1), self.width * mult)
      h = attended(h)
      if level:
        h = block(h, h.shape[-1], up)
    h = nn.silu(GroupNorm(eps=1e-6, name=f"norm_{next(number)}")(h.astype(jnp.float32)))
    h = spread_patches(conv(channels, jnp.float32, f"out_{next(number)}", ZERO)(h), self.patch)
    return jnp.tanh(h) if self.tanh else h

  def embed(self, t: Array, number: Iterator[int]) -> Array:
    """Times [B] as every block reads them, [B, 4 width]."""
    if self.embedding == "fourier":
      begin = nn.initializers.normal(self.fourier_scale)
      w = self.param(f"fourier_{next(number)}", begin, (self.width,))
      angle = jnp.log(jnp.maximum(t, EARLIEST))[:, None] * jax.lax.stop_gradient(w) * 2 * jnp.pi
      emb = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
    else:
      emb = sinusoids(t, self.width, sine_first=True, ends=True)
    for _ in range(2):
      emb = nn.Dense(4 * self.width, kernel_init=USUAL, name=f"time_{next(number)}")(emb)
      emb = nn.silu(emb)
    return emb

  def map(self, z: Array, y: Array | None) -> Array:
    """z [B, Z], made one long, and the label -> latent [B, z_width]."""
    h = z * jax.lax.rsqrt(jnp.mean(z**2, -1, keepdims=True) + 1e-8)
    for i in range(1 + self.z_layers):
      h = nn.silu(nn.Dense(self.z_width, kernel_init=USUAL, name=f"z_{i}")(h))
    if self.classes:
      h += LabelEmbed(self.classes, self.z_width, nn.initializers.normal(0.5), name="label")(y)
    return h
