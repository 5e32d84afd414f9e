"""WaveGAN: a DCGAN of waveforms (Donahue et al. 2019, Sec. 3.2, App. D).

As chrisdonahue/wavegan has it, to the side on which convolutions pad: kernels
of 25 taps, strides of 4. It is unconditional, and nobody published a code with
labels: here they enter as in most conditional GANs, a vector beside z in the
generator and a projection (Miyato & Koyama 2018) in the discriminator.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets.layers import LabelEmbed, Projection
from jaxgen.nets.spectral import plain
from jaxgen.nets.strided import strided_conv, transposed_conv

Array = jax.Array
GLOROT = nn.initializers.glorot_uniform()
STRIDES = (4, 4, 4, 4, 4)  # (.., 2) and (.., 4) after them are the longer ones


class Generator(nn.Module):
  """z [B, Z], labels -> waveforms [B, L, channels] in [-1, 1].

  z is normal, as for any generator here, and made uniform on (-1, 1), which the
  published one starts from.

  Attributes:
    width: Channels before the last layer; twice as many a layer earlier.
    strides: Of the layers. L is `bottom` times their product.
    bottom: Steps of time after the first, dense layer.
    taps: Of the kernels.
    channels: Of the waveforms.
    post: Taps of a filter that is learned, over the whole output (Sec. 3.4,
      512); 0: none. What it makes is not bounded.
    classes: Number of labels; 0: none.
    label_dim: Numbers of a label, which follow those of z.
    dtype: Of the computation.
  """

  width: int = 64
  strides: Sequence[int] = STRIDES
  bottom: int = 16
  taps: int = 25
  channels: int = 1
  post: int = 0
  classes: int = 0
  label_dim: int = 32
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Array, y: Array | None = None, key: Array | None = None) -> Array:
    del key
    z = jax.lax.erf(z / np.sqrt(2))
    if self.classes:
      label = LabelEmbed(self.classes, self.label_dim, nn.initializers.normal(1.0), name="label")
      z = jnp.concatenate([z, label(y)], -1)
    widths = [self.width * 2**i for i in reversed(range(len(self.strides)))]
    h = nn.Dense(self.bottom * widths[0], dtype=self.dtype, kernel_init=GLOROT, name="first")(z)
    h = h.reshape(len(z), self.bottom, widths[0])
    for i, width in enumerate([*widths[1:], self.channels]):
      up = Layer(width, self.taps, self.strides[i], True, self.dtype, name=f"up_{i}")
      h = up(nn.relu(h))
    x = jnp.tanh(h.astype(jnp.float32))
    if self.post:
      x = nn.Conv(self.channels, (self.post,), use_bias=False, kernel_init=GLOROT, name="post")(x)
    return x


class Discriminator(nn.Module):
  """Waveforms [B, L, channels], labels -> logits [B].

  Attributes:
    width: Channels after the first layer; twice as many a layer later.
    strides: Of the layers; their product divides L.
    taps: Of the kernels.
    shuffle: Most samples by which the phase of activations is shifted between
      layers (Sec. 3.3); 0: none.
    shuffled: As many layers, the first ones, are followed by it, but never the
      last: four in the published code, of five layers or six.
    classes: Number of labels; 0: none.
    dtype: Of the convolutions.
  """

  width: int = 64
  strides: Sequence[int] = STRIDES
  taps: int = 25
  shuffle: int = 2
  shuffled: int = 4
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def embed(self, x: Array, y: Array | None = None, key: Array | None = None) -> Array:
    """What the last layer reads, [B, D]."""
    del y
    for i, stride in enumerate(self.strides):
      down = Layer(self.width * 2**i, self.taps, stride, False, self.dtype, name=f"down_{i}")
      x = nn.leaky_relu(down(x), 0.2)
      if key is not None and self.shuffle and i < min(self.shuffled, len(self.strides) - 1):
        x = shuffle_phase(x, jax.vmap(jax.random.fold_in, (0, None))(key, i), self.shuffle)
    return x.reshape(len(x), -1).astype(jnp.float32)

  @nn.compact
  def __call__(self, x: Array, y: Array | None = None, key: Array | None = None) -> Array:
    """Logits [B]; without keys [B] no phase is shifted."""
    return Projection(self.classes, plain, GLOROT, name="head")(self.embed(x, key=key), y)


class Layer(nn.Module):
  """A convolution with a stride, or its transpose: [B, L, in] -> [B, L', width].

  Attributes:
    width: Channels of the result.
    taps: Of the kernel.
    stride: In samples.
    enlarges: Whether it is the transpose.
    dtype: Of the computation.
  """

  width: int
  taps: int
  stride: int
  enlarges: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    w = self.param("kernel", GLOROT, (self.taps, x.shape[-1], self.width))
    bias = self.param("bias", nn.initializers.zeros, (self.width,))
    apply = transposed_conv if self.enlarges else strided_conv
    return apply(x.astype(self.dtype), w.astype(self.dtype), self.stride) + bias.astype(self.dtype)


def shuffle_phase(x: Array, key: Array, most: int) -> Array:
  """Each example later or earlier by up to `most` samples (Sec. 3.3).

  x [B, L, C], keys [B]; uniform over the 2 most + 1 shifts, and what is missing
  at an end is mirrored there. The published code draws one shift for the batch.
  """
  shift = jax.vmap(lambda k: jax.random.randint(k, (), -most, most + 1))(key)
  padded = jnp.pad(x, ((0, 0), (most, most), (0, 0)), mode="reflect")
  # A choice among copies: slices at drawn places have a slow gradient.
  moved = jnp.zeros_like(x)
  for s in range(-most, most + 1):
    copy = padded[:, most - s : most - s + x.shape[1]]
    moved = jnp.where(shift[:, None, None] == s, copy, moved)
  return moved
