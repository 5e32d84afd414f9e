"""HiFi-GAN: a vocoder's generator and its discriminators (Kong et al. 2020).

Nets and parameters are those of jik876/hifi-gan. Waveforms are [B, L, 1],
spectrograms [B, frames, mels]; a kernel is a direction and a length of its own
(Salimans & Kingma 2016, Eq. 2).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.spectral import spectral
from jaxgen.nets.strided import transposed_conv

Array = jax.Array
LEAK, LAST_LEAK = 0.1, 0.01  # before the last layer the code has PyTorch's default
INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's
STRIDES = (3, 3, 3, 3, 1)  # of a period's discriminator
# Taps and strides of a scale's.
SCALE_LAYERS = ((15, 1), (41, 2), (41, 2), (41, 4), (41, 4), (41, 1), (5, 1))
leaky = functools.partial(nn.leaky_relu, negative_slope=LEAK)


class HiFiGenerator(nn.Module):
  """From a spectrogram to its waveform (Sec. 2.2, App. A.1).

  Attributes:
    width: Channels of the spectrogram's layer; each upsampling halves them.
    rates: Of the upsamplings, whose product is the hop.
    taps: Of their kernels; as many more than the rate as an even number.
    kernels: Taps of the residual blocks, whose outputs are averaged.
    dilations: Of the layers of each.
    paired: Whether another layer, without dilation, follows each: in V1 and V2.
    dtype: Of the convolutions.
  """

  width: int = 512
  rates: Sequence[int] = (8, 8, 2, 2)
  taps: Sequence[int] = (16, 16, 4, 4)
  kernels: Sequence[int] = (3, 7, 11)
  dilations: Sequence[Sequence[int]] = ((1, 3, 5),) * 3
  paired: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, mel: Array) -> Array:
    """[B, frames, mels] -> [B, frames * hop, 1] in [-1, 1]."""
    if any(
      (taps - rate) % 2 or taps < rate for taps, rate in zip(self.taps, self.rates, strict=True)
    ):
      raise ValueError(
        f"taps={tuple(self.taps)}: each must be its rate, of {tuple(self.rates)}, or an even "
        "number more"
      )
    conv = functools.partial(NormedConv, dtype=self.dtype)
    x = conv(self.width, 7, name="in")(mel)
    for i, (rate, taps) in enumerate(zip(self.rates, self.taps, strict=True)):
      width = self.width // 2 ** (i + 1)
      x = NormedUpconv(width, taps, rate, self.dtype, name=f"up_{i}")(leaky(x))
      blocks = [
        ResidualStack(taps, dilations, self.paired, self.dtype, name=f"up_{i}_block_{j}")(x)
        for j, (taps, dilations) in enumerate(zip(self.kernels, self.dilations, strict=True))
      ]
      x = sum(blocks) / len(blocks)
    x = conv(1, 7, name="out")(nn.leaky_relu(x, LAST_LEAK))
    return jnp.tanh(x.astype(jnp.float32))


class ResidualStack(nn.Module):
  """Layers of one kernel's size and several dilations, each around a shortcut.

  Attributes:
    taps: Of the kernels.
    dilations: Of each layer.
    paired: See HiFiGenerator.
    dtype: Likewise.
  """

  taps: int
  dilations: Sequence[int]
  paired: bool
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    conv = functools.partial(NormedConv, x.shape[-1], self.taps, dtype=self.dtype)
    for i, dilation in enumerate(self.dilations):
      h = conv(dilation=dilation, name=f"dilated_{i}")(leaky(x))
      if self.paired:
        h = conv(name=f"plain_{i}")(leaky(h))
      x += h
    return x


class PeriodDiscriminator(nn.Module):
  """Sees every `period`-th sample, each of so many times (Sec. 2.3).

  Attributes:
    period: In samples. What lacks at the end is mirrored.
    widths: Channels.
    dtype: Of the convolutions.
  """

  period: int
  widths: Sequence[int] = (32, 128, 512, 1024, 1024)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, list[Array]]:
    """[B, L, 1] -> logits [B, N], features of all layers, each [B, ...]."""
    b = len(x)
    x = jnp.pad(x[..., 0], ((0, 0), (0, -x.shape[1] % self.period)), mode="reflect")
    x = x.reshape(b, -1, self.period).swapaxes(1, 2).reshape(b * self.period, -1, 1)
    layers = [
      NormedConv(width, 5, stride, dtype=self.dtype, name=f"conv_{i}")
      for i, (width, stride) in enumerate(zip(self.widths, STRIDES, strict=True))
    ]
    logits, features = judge(x, layers, NormedConv(1, 3, dtype=self.dtype, name="out"))
    return logits.reshape(b, -1), [f.reshape(b, -1, f.shape[-1]) for f in features]


class ScaleDiscriminator(nn.Module):
  """Sees the waveform itself, or as it was averaged down (Sec. 2.3).

  Attributes:
    widths: Channels.
    groups: That the channels of each layer fall into.
    normed: Whether kernels have lengths of their own; else their spectral norm
      is 1, which steadies the scale that sees the most.
    dtype: Of the convolutions.
  """

  widths: Sequence[int] = (128, 128, 256, 512, 1024, 1024, 1024)
  groups: Sequence[int] = (1, 4, 16, 16, 16, 16, 1)
  normed: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, list[Array]]:
    """[B, L, 1] -> logits [B, N], features of all layers, each [B, ...]."""
    conv = functools.partial(NormedConv if self.normed else spectral_conv, dtype=self.dtype)
    layers = [
      conv(width, taps, stride, groups=groups, name=f"conv_{i}")
      for i, (width, groups, (taps, stride)) in enumerate(
        zip(self.widths, self.groups, SCALE_LAYERS, strict=True)
      )
    ]
    logits, features = judge(x, layers, conv(1, 3, name="out"))
    return logits.reshape(len(x), -1), features


class HiFiDiscriminator(nn.Module):
  """All discriminators of a waveform.

  Attributes:
    periods: In samples, of each that sees a period; prime, so that they see
      different things.
    period_widths: See PeriodDiscriminator.
    scales: Number of those that see a scale: each half as fine as the last.
    scale_widths: See ScaleDiscriminator.
    scale_groups: Likewise.
    dtype: Of the convolutions.
  """

  periods: Sequence[int] = (2, 3, 5, 7, 11)
  period_widths: Sequence[int] = (32, 128, 512, 1024, 1024)
  scales: int = 3
  scale_widths: Sequence[int] = (128, 128, 256, 512, 1024, 1024, 1024)
  scale_groups: Sequence[int] = (1, 4, 16, 16, 16, 16, 1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> tuple[list[Array], list[list[Array]]]:
    """[B, L, 1] -> logits [B, N_i] and features of each: periods, then scales."""
    verdicts = [
      PeriodDiscriminator(p, self.period_widths, self.dtype, name=f"period_{i}")(x)
      for i, p in enumerate(self.periods)
    ]
    for i in range(self.scales):
      if i:  # zeros beyond the ends count
        x = nn.avg_pool(x, (4,), (2,), [(2, 2)])
      disc = ScaleDiscriminator(
        self.scale_widths, self.scale_groups, i > 0, self.dtype, name=f"scale_{i}"
      )
      verdicts.append(disc(x))
    return [logits for logits, _ in verdicts], [features for _, features in verdicts]


class NormedConv(nn.Module):
  """A convolution over time, with zeros beyond the ends.

  Attributes:
    width: Channels of the output.
    taps: Of the kernel.
    stride: Inputs from one output to the next.
    dilation: Inputs from one tap to the next.
    groups: That channels fall into.
    dtype: Of the products.
  """

  width: int
  taps: int
  stride: int = 1
  dilation: int = 1
  groups: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, L, in] -> [B, L / stride, width]."""
    w = normed_kernel(self, (self.taps, x.shape[-1] // self.groups, self.width), (0, 1))
    bias = self.param("bias", uniform(w.shape[0] * w.shape[1]), (self.width,))
    pad = self.dilation * (self.taps - 1) // 2
    h = jax.lax.conv_general_dilated(
      x.astype(self.dtype),
      w.astype(self.dtype),
      (self.stride,),
      [(pad, pad)],
      rhs_dilation=(self.dilation,),
      feature_group_count=self.groups,
      dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return h + bias.astype(self.dtype)


class NormedUpconv(nn.Module):
  """A transposed convolution over time; a direction of its kernel is an input's.

  Attributes:
    width: Channels of the output.
    taps: Of the kernel.
    rate: Outputs from one input to the next.
    dtype: Of the products.
  """

  width: int
  taps: int
  rate: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, L, in] -> [B, L * rate, width]."""
    w = normed_kernel(self, (self.taps, x.shape[-1], self.width), (0, 2))
    bias = self.param("bias", uniform(self.taps * self.width), (self.width,))
    h = transposed_conv(x.astype(self.dtype), w.astype(self.dtype), self.rate)
    return h + bias.astype(self.dtype)


def normed_kernel(module: nn.Module, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
  """The module's `kernel`, each part along `axes` as long as its `scale` says."""
  init = INIT if axes == (0, 1) else uniform(shape[0] * shape[-1])
  v = module.param("kernel", init, shape)
  norm = jnp.sqrt(jnp.sum(v**2, axes, keepdims=True))
  scale = module.param("scale", lambda _: norm.ravel())
  return v * (scale.reshape(norm.shape) / norm)


def uniform(fan: int) -> Callable[..., Array]:
  """PyTorch's own start: U(-fan^-1/2, fan^-1/2)."""
  side = fan**-0.5
  return lambda key, shape: jax.random.uniform(key, shape, minval=-side, maxval=side)


def spectral_conv(
  width: int, taps: int, stride: int = 1, groups: int = 1, *, name: str, dtype: Any = jnp.float32
) -> nn.Module:
  """As NormedConv, of spectral norm 1."""
  conv = nn.Conv(
    width,
    (taps,),
    stride,
    [(taps // 2, taps // 2)],
    feature_group_count=groups,
    dtype=dtype,
    kernel_init=INIT,
    name=name,
  )
  return spectral(conv, stored=True, eps=1e-12)


def judge(x: Array, layers: Sequence[nn.Module], last: nn.Module) -> tuple[Array, list[Array]]:
  """-> logits [B, N, 1], and what all layers make, these among them."""
  features = []
  for layer in layers:
    x = leaky(layer(x))
    features.append(x)
  x = last(x)
  return x.astype(jnp.float32), [*features, x]
