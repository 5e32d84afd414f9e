"""VQ-VAE-2: two levels of codes (Razavi et al. 2019, Fig. 2a).

As in rosinality/vq-vae-2-pytorch, whose FFHQ model is public. The codebooks are
no weights: a model carries them along, see `models.vqvae`.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.transposed import ConvTranspose
from jaxgen.nets.unet import TORCH

Array = jax.Array


def conv(width: int, side: int, dtype: Any, name: str, strides: int = 1) -> nn.Conv:
  """Padded so that strides alone change the size."""
  pad = (side - 1) // 2
  return nn.Conv(
    width, (side, side), strides, [(pad, pad)] * 2, dtype=dtype, kernel_init=TORCH, name=name
  )


def double(width: int, dtype: Any, name: str) -> ConvTranspose:
  """Transposed 4 x 4 convolution of stride 2: [B, H, W, C] -> [B, 2H, 2W, width]."""
  return ConvTranspose(
    width,
    (4, 4),
    (2, 2),
    [(2, 2), (2, 2)],
    transpose_kernel=True,
    dtype=dtype,
    kernel_init=TORCH_TRANSPOSED,
    name=name,
  )


# PyTorch takes its kernel's second axis, our output channels, for the fan-in.
TORCH_TRANSPOSED = nn.initializers.variance_scaling(
  1 / 3, "fan_in", "uniform", in_axis=-2, out_axis=-1
)


class Residuals(nn.Module):
  """Blocks of ReLU, 3 x 3, ReLU, 1 x 1, each plus its input; then ReLU.

  Attributes:
    blocks: Their number.
    hidden: Channels between the two convolutions.
    dtype: Of the computation.
  """

  blocks: int
  hidden: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i in range(self.blocks):
      h = conv(self.hidden, 3, self.dtype, f"conv_{i}_1")(nn.relu(x))
      x = x + conv(x.shape[-1], 1, self.dtype, f"conv_{i}_2")(nn.relu(h))
    return nn.relu(x)


class Encode(nn.Module):
  """[B, H, W, C] -> [B, H / 2^halvings, W / 2^halvings, width]."""

  width: int
  halvings: int
  blocks: int
  hidden: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i in range(self.halvings):
      width = self.width if i == 1 else self.width // 2
      x = nn.relu(conv(width, 4, self.dtype, f"down_{i}", 2)(x))
    x = conv(self.width, 3, self.dtype, "in")(x)
    return Residuals(self.blocks, self.hidden, self.dtype, name="res")(x)


class Decode(nn.Module):
  """[B, h, w, C] -> [B, 2^doublings h, 2^doublings w, out]."""

  width: int
  out: int
  doublings: int
  blocks: int
  hidden: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = conv(self.width, 3, self.dtype, "in")(x)
    x = Residuals(self.blocks, self.hidden, self.dtype, name="res")(x)
    for i in range(self.doublings - 1):
      x = nn.relu(double(self.width // 2, self.dtype, f"up_{i}")(x))
    return double(self.out, self.dtype, f"up_{self.doublings - 1}")(x)


class TwoLevels(nn.Module):
  """Images [B, H, W, C] <-> latents of two levels, which others quantise.

  The bottom one has a quarter of the image's height, the top one half of that.

  Attributes:
    channels: Of the images.
    width: Channels of the convolutions.
    blocks: Residual blocks of each part.
    hidden: Channels within them.
    dim: Channels of latents.
    dtype: Of the computation; latents and images are float32.
    halvings: From the image's height to the bottom level's.
  """

  channels: int = 3
  width: int = 128
  blocks: int = 2
  hidden: int = 32
  dim: int = 64
  dtype: Any = jnp.float32
  halvings: int = 2

  def setup(self):
    rest = self.blocks, self.hidden, self.dtype
    self.encode_bottom = Encode(self.width, self.halvings, *rest)
    self.encode_top = Encode(self.width, 1, *rest)
    self.decode_top = Decode(self.width, self.dim, 1, *rest)
    self.decode_all = Decode(self.width, self.channels, self.halvings, *rest)
    self.upsample_top = double(self.dim, self.dtype, None)
    self.to_top = conv(self.dim, 1, jnp.float32, None)
    self.to_bottom = conv(self.dim, 1, jnp.float32, None)

  def look(self, x: Array) -> tuple[Array, Array]:
    """Images -> features [B, H / 4, W / 4, width], and z of the top level."""
    f = 2 ** (self.halvings + 1)
    if x.shape[1] % f or x.shape[2] % f:
      raise ValueError(
        f"images of {x.shape[1]}x{x.shape[2]} cannot be halved {self.halvings + 1} times: want "
        f"multiples of {f}"
      )
    h = self.encode_bottom(x)
    return h, self.to_top(self.encode_top(h))

  def look_again(self, h: Array, top: Array) -> Array:
    """Features and the top level's codes -> z of the bottom level."""
    return self.to_bottom(jnp.concatenate([self.decode_top(top), h], -1))

  def decode(self, top: Array, bottom: Array) -> Array:
    """Codes of both levels -> images, unbounded."""
    both = jnp.concatenate([self.upsample_top(top), bottom], -1)
    return self.decode_all(both).astype(jnp.float32)

  def encode(self, x: Array, quantise: Callable[[str, Array], Array]) -> tuple[Array, Array]:
    """Images -> what `quantise`(level, z) makes of z at "top", and "bottom"."""
    h, z = self.look(x)
    top = quantise("top", z)
    return top, quantise("bottom", self.look_again(h, top))

  def __call__(self, x: Array) -> Array:
    """A reconstruction without codes: all layers are visited."""
    return self.decode(*self.encode(x, lambda level, z: z))
