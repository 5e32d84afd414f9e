"""Palette's net: a U-Net that reads an image beside the noisy one (Saharia et al. 2022)."""

import jax

from jaxgen.nets.unet import UNet

Array = jax.Array


class SourceUNet(UNet):
  """F(x, c_noise, source=), shaped like x [B, H, W, C]; the source is [B, H, W, C'].

  Both are one input, along channels: x first, and in published weights the source
  first, which `interop` knows.
  """

  def __call__(
    self,
    x: Array,
    c_noise: Array,
    y: Array | None = None,
    key: Array | None = None,
    source: Array | None = None,
  ) -> Array:
    return super().__call__(x, c_noise, y, key, low_res=source)
