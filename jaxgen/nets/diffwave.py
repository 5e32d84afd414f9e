"""DiffWave: dilated convolutions over a waveform (Kong et al. 2021, Sec. 3).

Two nets, for the two published codes that everybody's weights are of disagree
in the embedding of a step, in the gates and in the last layers:
`DiffWave` is lmnt-com's, `WaveNet` that of the paper's authors' (philsyn) and
of albertfgu's. Waveforms are [B, L, 1]; the condition is a mel spectrogram, a
label, or nothing.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets.materialize import materialize
from jaxgen.nets.transposed import transposed

Array = jax.Array
ZERO = nn.initializers.zeros
HE = nn.initializers.he_normal()
LEAK = 0.4
EMBED, HIDDEN = 128, 512  # widths of a step's embedding, before and after its layers


class DiffWave(nn.Module):
  """lmnt-com/diffwave's net.

  Attributes:
    width: Channels.
    layers: Number of residual layers.
    cycle: Dilations are 1, 2, 4, .. for so many layers, and begin again.
    steps: Of the training's schedule. `t` are places in it, counted
      from 0; between two of them what lies between their embeddings.
    mels: Bands of the spectrogram; 0: no spectrogram.
    strides: Of the layers that upsample it, whose product is its hop.
    labels: Number of labels, of which the last may stand for "none"; 0: no
      labels. One is a bias of every layer (Sec. 3.2), which no code was published
      for.
    label_dim: Numbers of a label.
    dtype: Of the convolutions.
  """

  width: int = 64
  layers: int = 30
  cycle: int = 10
  steps: int = 50
  mels: int = 80
  strides: Sequence[int] = (16, 16)
  labels: int = 0
  label_dim: int = 128
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Array,
    t: Array,
    mel: Array | None = None,
    y: Array | None = None,
    key: Array | None = None,
  ) -> Array:
    """F [B, L, 1].

    Args:
      x: Waveforms [B, L, 1].
      t: Places in the schedule, [B], whole or not.
      mel: Spectrograms [B, frames, mels] of at least L / hop frames.
      y: Labels, int32 [B].
      key: Not read: there is no dropout.
    """
    del key
    emb = between(step_table(self.steps), t)
    for i in (1, 2):
      emb = nn.silu(nn.Dense(HIDDEN, name=f"step_{i}")(emb))
    cond = None
    if self.mels:
      cond = Upsampler(self.strides, name="upsampler")(mel)[:, : x.shape[1]]
    elif self.labels:
      cond = nn.Embed(self.labels, self.label_dim, name="label")(y)[:, None]
    conv = functools.partial(convolution, dtype=self.dtype)
    x = nn.relu(conv(x, self.width, "in"))
    skips = 0.0
    for i in range(self.layers):
      h = x + nn.Dense(self.width, name=f"layer_{i}_step")(emb)[:, None]
      h = conv(h, 2 * self.width, f"layer_{i}_dilated", 3, 2 ** (i % self.cycle))
      if cond is not None:
        h += conv(cond, 2 * self.width, f"layer_{i}_cond")
      gate, signal = jnp.split(h, 2, -1)
      h = conv(nn.sigmoid(gate) * jnp.tanh(signal), 2 * self.width, f"layer_{i}_out")
      residual, skip = jnp.split(h, 2, -1)
      x, skips = materialize((x + residual) / np.sqrt(2)), skips + skip
    h = nn.relu(conv(skips / np.sqrt(self.layers), self.width, "skip"))
    return conv(h, 1, "out", init=ZERO).astype(jnp.float32)


class WaveNet(nn.Module):
  """philsyn/DiffWave-unconditional's and -Vocoder's net, of normed kernels.

  Attributes:
    width: Channels.
    skip: Channels of what layers add up.
    layers: Number of residual layers.
    cycle: See DiffWave.
    embed: Widths of a step's embedding: of sines and cosines, and of the two
      layers after it.
    mels: Bands of the spectrogram; 0: no spectrogram. Each layer upsamples it.
    strides: See DiffWave.
    labels: See DiffWave.
    label_dim: Likewise.
    adds_step: Whether what a layer passes on has the step's embedding in it, as
      philsyn's code adds it in place; albertfgu's does not.
    dtype: Of the convolutions.
  """

  width: int = 256
  skip: int = 256
  layers: int = 36
  cycle: int = 12
  embed: Sequence[int] = (EMBED, HIDDEN, HIDDEN)
  mels: int = 0
  strides: Sequence[int] = (16, 16)
  labels: int = 0
  label_dim: int = 128
  adds_step: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Array,
    t: Array,
    mel: Array | None = None,
    y: Array | None = None,
    key: Array | None = None,
  ) -> Array:
    """F [B, L, 1]; see DiffWave, but `t` are whole steps."""
    del key
    emb = step_waves(t, self.embed[0])
    for i in (1, 2):
      emb = nn.silu(nn.Dense(self.embed[i], name=f"step_{i}")(emb))
    if self.labels:
      label = nn.Embed(self.labels, self.label_dim, name="label")(y)[:, None]
    conv = functools.partial(convolution, dtype=self.dtype, normed=True)
    x = nn.relu(conv(x, self.width, "in"))
    skips = 0.0
    for i in range(self.layers):
      h = x + nn.Dense(self.width, name=f"layer_{i}_step")(emb)[:, None]
      x = h if self.adds_step else x
      h = conv(h, 2 * self.width, f"layer_{i}_dilated", 3, 2 ** (i % self.cycle))
      if self.mels:
        cond = Upsampler(self.strides, normed=True, name=f"layer_{i}_upsampler")(mel)
        h += conv(cond[:, : x.shape[1]], 2 * self.width, f"layer_{i}_cond")
      if self.labels:
        h += conv(label, 2 * self.width, f"layer_{i}_label")
      signal, gate = jnp.split(h, 2, -1)
      h = jnp.tanh(signal) * nn.sigmoid(gate)
      x = materialize((x + conv(h, self.width, f"layer_{i}_res")) * np.sqrt(0.5))
      skips += conv(h, self.skip, f"layer_{i}_skip")
    h = nn.relu(conv(skips * np.sqrt(1 / self.layers), self.skip, "skip"))
    return convolution(h, 1, "out", init=ZERO, dtype=self.dtype).astype(jnp.float32)


class Upsampler(nn.Module):
  """A spectrogram in the rate of the waveform: transposed convolutions.

  They slide over frames and bands, of kernels 3 bands high and two strides wide.

  Attributes:
    strides: Of each, in frames.
    normed: Whether kernels are normed, see Conv.
  """

  strides: Sequence[int]
  normed: bool = False

  @nn.compact
  def __call__(self, mel: Array) -> Array:
    """[B, frames, mels] -> [B, frames * hop, mels]."""
    x = mel[..., None]
    for i, stride in enumerate(self.strides):
      kernel = Kernel((2 * stride, 3, 1, 1), self.normed, name=f"conv_{i}")
      w, bias = kernel()
      side = 2 * stride - 1 - stride // 2
      # Each input is spread by the kernel: a convolution by it turned around.
      x = transposed(x, w[::-1, ::-1], (stride, 1), [(side, side), (1, 1)])
      x = nn.leaky_relu(x + bias, LEAK)
    return x[..., 0]


class Kernel(nn.Module):
  """A kernel [.., in, out] and a bias [out].

  Attributes:
    shape: Of the kernel.
    normed: v scale / |v|, |v| for each output (Salimans & Kingma 2016, Eq. 2).
    init: Of v.
  """

  shape: Sequence[int]
  normed: bool = False
  init: Any = HE

  @nn.compact
  def __call__(self) -> tuple[Array, Array]:
    v = self.param("kernel", self.init, tuple(self.shape))
    bias = self.param("bias", ZERO, tuple(self.shape[-1:]))
    if not self.normed:
      return v, bias
    norm = lambda v: jnp.sqrt(jnp.sum(v**2, tuple(range(v.ndim - 1))))
    scale = self.param("scale", lambda _: norm(v))
    return v * (scale / norm(v)), bias


def convolution(
  x: Array,
  width: int,
  name: str,
  side: int = 1,
  dilation: int = 1,
  normed: bool = False,
  init: Any = HE,
  dtype: Any = jnp.float32,
) -> Array:
  """[B, L, in] -> [B, L, width], with zeros beyond the ends."""
  w, bias = Kernel((side, x.shape[-1], width), normed, init, name=name)()
  pad = dilation * (side // 2)
  h = jax.lax.conv_general_dilated(
    x.astype(dtype),
    w.astype(dtype),
    (1,),
    [(pad, pad)],
    rhs_dilation=(dilation,),
    dimension_numbers=("NWC", "WIO", "NWC"),
  )
  return h + bias.astype(dtype)


@functools.cache
def step_table(steps: int) -> np.ndarray:
  """lmnt's embedding of whole steps, float32 [steps, 128]: sines, cosines.

  Of t 10^(4 i / 63): arguments reach 10^6, so every rounding counts, and it is a
  constant, not computed on a device.
  """
  exponents = np.arange(EMBED // 2, dtype=np.float32) * np.float32(4) / np.float32(63)
  frequencies = np.float32(10 ** np.float64(exponents))
  angle = np.arange(steps, dtype=np.float32)[:, None] * frequencies
  return np.concatenate([np.sin(angle), np.cos(angle)], 1)


def between(table: np.ndarray, t: Array) -> Array:
  """Rows of a table at places t [B]; linear between two of them."""
  t = jnp.clip(t.astype(jnp.float32), 0, len(table) - 1)
  low = jnp.floor(t)
  rows = jnp.asarray(table)
  first, second = rows[low.astype(int)], rows[jnp.ceil(t).astype(int)]
  return first + (second - first) * (t - low)[:, None]


def step_waves(t: Array, width: int) -> Array:
  """philsyn's embedding of steps t [B]: sines, cosines of t 10^(-4 i / (n - 1))."""
  half = width // 2
  angle = t.astype(jnp.float32)[:, None] * 10 ** (-4 * jnp.arange(half) / (half - 1))
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
