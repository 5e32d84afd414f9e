"""Discriminators of denoising diffusion GANs: is x_t the true one, given x_{t+1}?

Xiao et al. 2022, App. C.1: residual blocks with leaky ReLUs, which FIR filters
halve; time is added between their convolutions. Published in two sizes,

  small (32 pixels): mults=(2, 4, 8, 8), halve_first=False, zero_last=True
  large (256 pixels): mults=(4, 8, 8, 8, 8, 8)
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets import fir
from jaxgen.nets.layers import LabelEmbed, sinusoids
from jaxgen.nets.ncsnpp import HALF, USUAL, ZERO, conv
from jaxgen.nets.stylegan2 import minibatch_stddev
from jaxgen.nets.unet import gather_patches

Array = jax.Array


def act(x: Array) -> Array:
  """Leaky ReLU of slope 0.2."""
  return nn.leaky_relu(x, 0.2)


class PairBlock(nn.Module):
  """Conv, time, conv, plus the input; half as large where `halve`."""

  width: int
  halve: bool = True
  taps: Sequence[float] = fir.TAPS
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, time: Array) -> Array:
    """x [B, H, W, C], time [B, E]."""
    h = conv(self.width, self.dtype, "conv_1")(act(x))
    h += nn.Dense(self.width, kernel_init=USUAL, name="time")(time).astype(h.dtype)[:, None, None]
    h = act(h)
    if self.halve:
      h, x = fir.downsample(h, self.taps), fir.downsample(x, self.taps)
    h = conv(self.width, self.dtype, "conv_2", ZERO)(h)
    skip = nn.Dense(self.width, False, dtype=self.dtype, kernel_init=USUAL, name="skip")
    return HALF * (h + skip(x))


class PairDiscriminator(nn.Module):
  """(x_t, t, x_{t+1}, y) -> logits [B].

  Attributes:
    width: Channels, before multipliers; the first layer has twice as many.
    mults: Of the blocks.
    halve_first: The first block halves H and W, too; all others do.
    zero_last: The last convolution is zero at the beginning.
    t_width: Length of the embedding of t.
    taps: Of the filters that halve.
    group: Examples whose standard deviation is a feature.
    classes: Labels, which are projected (Miyato & Koyama 2018); 0: none, as
      published.
    patch: Squares of patch x patch pixels are positions, see `unet.UNet`.
    dtype: Of the blocks.
  """

  width: int = 64
  mults: Sequence[int] = (4, 8, 8, 8, 8, 8)
  halve_first: bool = True
  zero_last: bool = False
  t_width: int = 256
  taps: Sequence[float] = fir.TAPS
  group: int = 4
  classes: int = 0
  patch: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, t: Array, x_next: Array, y: Array | None = None) -> Array:
    time = sinusoids(t, self.t_width, sine_first=True, ends=True)
    for name in ("time_0", "time_2"):
      time = act(nn.Dense(self.t_width, kernel_init=USUAL, name=name)(time))
    h = jnp.concatenate([gather_patches(part, self.patch) for part in (x, x_next)], -1)
    h = nn.Dense(2 * self.width, dtype=self.dtype, kernel_init=USUAL, name="in")(h)
    for i, mult in enumerate(self.mults):
      halve = i > 0 or self.halve_first
      h = PairBlock(mult * self.width, halve, self.taps, self.dtype, name=f"block_{i}")(h, time)
    h = h.astype(jnp.float32)
    h = jnp.concatenate([h, minibatch_stddev(h, self.group)], -1)
    last = ZERO if self.zero_last else USUAL
    h = act(conv(self.mults[-1] * self.width, jnp.float32, "last", last)(h)).sum((1, 2))
    logit = nn.Dense(1, kernel_init=USUAL, name="out")(h)[:, 0]
    if self.classes:
      logit += jnp.sum(LabelEmbed(self.classes, h.shape[-1], name="label")(y) * h, -1)
    return logit
