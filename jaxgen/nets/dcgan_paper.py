"""DCGAN as published: Radford et al. 2016, Sec. 3; any size 4 * 2^k.

Layers are those of the PyTorch port (pytorch/examples, dcgan): convolutions of
four by four where the paper's are five by five, so that every output pixel sees
as many inputs as any other; no biases. 3,576,704 parameters in the generator
and 2,765,568 in the discriminator for 64x64, z of 100 numbers.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.layers import CondNorm, LabelEmbed
from jaxgen.nets.transposed import ConvTranspose

Array = jax.Array
NORMAL = nn.initializers.normal(0.02)  # Sec. 4


class Generator(nn.Module):
  """z [B, Z], labels -> images [B, size, size, channels] in [-1, 1].

  Attributes:
    size: Height and width, bottom * 2^k.
    channels: Of the image.
    width: Channels before the last layer; twice as many a layer earlier.
    bottom: Height and width after the first layer.
    classes: Number of labels, appended to z as so many numbers; 0: none.
    dtype: Of the convolutions.
  """

  size: int = 64
  channels: int = 3
  width: int = 64
  bottom: int = 4
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Array, y: Array | None = None, key: Array | None = None) -> Array:
    del key
    grow = lambda n, k, stride, pad, name: ConvTranspose(
      n,
      (k, k),
      (stride, stride),
      [(pad, pad)] * 2,
      use_bias=False,
      kernel_init=NORMAL,
      dtype=self.dtype,
      name=name,
    )
    if self.classes:
      label = LabelEmbed(self.classes, self.classes, nn.initializers.normal(1.0), name="label")(y)
      z = jnp.concatenate([z, label], -1)
    levels = (self.size // self.bottom).bit_length() - 1
    h = grow(self.width * 2 ** (levels - 1), self.bottom, 1, self.bottom - 1, "conv_0")(
      z[:, None, None]
    )
    for i in range(1, levels):
      h = nn.relu(CondNorm(None, name=f"norm_{i - 1}")(h))
      h = grow(self.width * 2 ** (levels - 1 - i), 4, 2, 2, f"conv_{i}")(h)
    h = nn.relu(CondNorm(None, name=f"norm_{levels - 1}")(h))
    h = grow(self.channels, 4, 2, 2, f"conv_{levels}")(h)
    return jnp.tanh(h.astype(jnp.float32))


class Discriminator(nn.Module):
  """Images [B, H, W, C], labels -> logits [B]. Labels enter by projection.

  Attributes:
    width: Channels after the first layer; twice as many a layer later.
    bottom: Height and width before the last layer.
    classes: Number of labels; 0: none.
    compare: Of the features before the last layer, one of all examples, as
      `nets.layers.Discrimination` does; None: no.
    dtype: Of the convolutions.
  """

  width: int = 64
  bottom: int = 4
  classes: int = 0
  compare: nn.Module | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def embed(self, x: Array, y: Array | None = None) -> Array:
    """What the last layer reads, [B, D]."""
    del y
    levels = (x.shape[1] // self.bottom).bit_length() - 1
    for i in range(levels):
      x = nn.Conv(
        self.width * 2**i,
        (4, 4),
        strides=(2, 2),
        padding=[(1, 1), (1, 1)],
        use_bias=False,
        kernel_init=NORMAL,
        dtype=self.dtype,
        name=f"conv_{i}",
      )(x)
      x = nn.leaky_relu(CondNorm(None, name=f"norm_{i}")(x) if i else x, 0.2)
    x = x.reshape(len(x), -1).astype(jnp.float32)
    return self.compare(x) if self.compare else x

  @nn.compact
  def __call__(self, x: Array, y: Array | None = None, key: Array | None = None) -> Array:
    del key
    h = self.embed(x)
    logit = nn.Dense(1, use_bias=False, kernel_init=NORMAL, name="logit")(h)
    if self.classes:
      row = LabelEmbed(self.classes, h.shape[-1], NORMAL, name="label")(y)
      logit += jnp.sum(row * h, -1, keepdims=True)
    return logit[:, 0]
