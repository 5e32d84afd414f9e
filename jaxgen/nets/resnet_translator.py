"""CycleGAN's generator: residual blocks between two halvings (Zhu et al. 2017, App. 7.2)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.pix2pix_unet import check_multiple
from jaxgen.nets.translator_layers import (
  ImageNorm,
  ScaledDropout,
  check_norm,
  conv,
  enlarge,
  pad_border,
)

Array = jax.Array


class TranslatorResNet(nn.Module):
  """Images [B, H, W, C] -> images [B, H, W, channels] in [-1, 1].

  As junyanz/pytorch-CycleGAN-and-pix2pix has it (after Johnson et al. 2016).

  Attributes:
    width: Channels of the first layer; each halving doubles them.
    blocks: 9 for images of 256 pixels, 6 for those of 128.
    downs: Halvings; published: 2.
    channels: Of what comes out.
    norm: "instance", "batch" or "none"; with instance norm all layers have biases,
      else the last one alone.
    dropout: Share of the blocks' activations that is dropped, where keys are.
    padding: Of the borders: "reflect", "replicate" or "zero".
    dtype: Of the convolutions; norms and the last layer are float32.
  """

  width: int = 64
  blocks: int = 9
  downs: int = 2
  channels: int = 3
  norm: str = "instance"
  dropout: float = 0.0
  padding: str = "reflect"
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
    kw = dict(use_bias=self.norm == "instance", dtype=self.dtype)
    act = lambda h, name: nn.relu(ImageNorm(self.norm, name=f"{name}_norm")(h, own))
    h = act(conv(self.width, 7, "in", **kw)(pad_border(source, 3)), "in")
    for i in range(self.downs):
      h = act(conv(self.width * 2 ** (i + 1), 3, f"down_{i}", 2, 1, **kw)(h), f"down_{i}")
    for i in range(self.blocks):
      f = conv(h.shape[-1], 3, f"block_{i}_0", **kw)(pad_border(h, 1, self.padding))
      f = ScaledDropout(self.dropout, name=f"block_{i}_dropout")(act(f, f"block_{i}_0"), key, drop)
      f = conv(h.shape[-1], 3, f"block_{i}_1", **kw)(pad_border(f, 1, self.padding))
      h += ImageNorm(self.norm, name=f"block_{i}_1_norm")(f, own)
    for i in reversed(range(self.downs)):
      h = act(enlarge(self.width * 2**i, 3, f"up_{i}", **kw)(h), f"up_{i}")
    return jnp.tanh(conv(self.channels, 7, "out", dtype=jnp.float32)(pad_border(h, 3)))
