"""pix2pix' generator: a U-Net of strided convolutions (Isola et al. 2017, App. 6.1.1)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.translator_layers import ImageNorm, ScaledDropout, check_norm, conv, enlarge, leaky

Array = jax.Array


class TranslatorUNet(nn.Module):
  """Images [B, H, W, C] -> images [B, H, W, channels] in [-1, 1].

  As junyanz/pytorch-CycleGAN-and-pix2pix has it: 4x4 kernels, no norm after the
  first and the last convolution on the way down, a bias in the last layer and,
  with instance norm, in all.

  Attributes:
    width: Channels of the first layer; they double up to eight times as many.
    downs: Halvings: H and W are multiples of 2^downs. 8 is U-Net-256, 7 U-Net-128.
    channels: Of what comes out.
    norm: "batch", "instance" or "none".
    dropout: Share of the inner blocks' activations that is dropped, where keys
      are: of blocks 4 to downs - 2, so that nets of 5 halvings have none.
    dtype: Of the convolutions; norms and the last layer are float32.
  """

  width: int = 64
  downs: int = 8
  channels: int = 3
  norm: str = "batch"
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    source: Array,
    key: Array | None = None,
    own: Array | float | None = None,
    drop: Array | float = 1.0,
  ) -> Array:
    """`own`: see ImageNorm; None: as in training. `drop` scales dropout's share."""
    check_norm(self.norm)
    check_multiple(source.shape, 2**self.downs)
    bias, last = self.norm == "instance", self.downs - 1
    widths = self.widths
    kw = dict(use_bias=bias, dtype=self.dtype)
    h = conv(widths[0], 4, "down_0", 2, 1, **kw)(source)
    skips = [h]
    for i in range(1, self.downs):
      h = conv(widths[i], 4, f"down_{i}", 2, 1, **kw)(leaky(h))
      if i < last:
        h = ImageNorm(self.norm, name=f"down_{i}_norm")(h, own)
      skips.append(h)
    for i in range(last, 0, -1):
      h = h if i == last else jnp.concatenate([skips[i], h], -1)
      h = enlarge(widths[i - 1], 4, f"up_{i}", **kw)(nn.relu(h))
      h = ImageNorm(self.norm, name=f"up_{i}_norm")(h, own)
      if 4 <= i < last:
        h = ScaledDropout(self.dropout, name=f"up_{i}_dropout")(h, key, drop)
    h = jnp.concatenate([skips[0], h], -1)
    return jnp.tanh(enlarge(self.channels, 4, "up_0", dtype=jnp.float32)(nn.relu(h)))

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of the maps on the way down."""
    return tuple(self.width * min(2**i, 8) for i in range(self.downs))


def check_multiple(shape: Sequence[int], least: int) -> None:
  """ValueError for images whose sides are no multiples of `least`."""
  if shape[1] % least or shape[2] % least:
    raise ValueError(f"images of {shape[1]}x{shape[2]}: want multiples of {least} pixels")
