"""AlexNet and VGG16 up to their last convolution, as LPIPS looks at them.

Krizhevsky 2014 ("one weird trick") and Simonyan & Zisserman 2015, without
their heads, with torchvision's weights. Float32, all digits kept.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
# What LPIPS takes from images in [-1, 1], and divides them by (Zhang et al.
# 2018, version 0.1): about ImageNet's means and standard deviations.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class Layer(NamedTuple):
  """A convolution and its ReLU.

  Attributes:
    number: In torchvision's `features`.
    width: Channels that come out.
    kernel: Side of the kernel.
    stride: Of it.
    pad: Zeros around the image.
    pooled: Whether max-pooling comes before.
    tap: Whether LPIPS reads its output.
  """

  number: int
  width: int
  kernel: int = 3
  stride: int = 1
  pad: int = 1
  pooled: bool = False
  tap: bool = True


class Trunk(NamedTuple):
  """A chain of such layers.

  Attributes:
    name: "alex" or "vgg", as LPIPS says.
    pool: Side of the windows whose maximum is taken, 2 apart.
    least: Side of the smallest images from which something comes out.
    layers: In order.
  """

  name: str
  pool: int
  least: int
  layers: tuple[Layer, ...]

  @property
  def taps(self) -> list[Layer]:
    """The layers whose outputs LPIPS reads."""
    return [layer for layer in self.layers if layer.tap]


ALEX = Trunk(
  "alex",
  3,
  31,
  (
    Layer(0, 64, 11, 4, 2),
    Layer(3, 192, 5, 1, 2, pooled=True),
    Layer(6, 384, pooled=True),
    Layer(8, 256),
    Layer(10, 256),
  ),
)
VGG = Trunk(
  "vgg",
  2,
  16,
  (
    Layer(0, 64, tap=False),
    Layer(2, 64),
    Layer(5, 128, pooled=True, tap=False),
    Layer(7, 128),
    Layer(10, 256, pooled=True, tap=False),
    Layer(12, 256, tap=False),
    Layer(14, 256),
    Layer(17, 512, pooled=True, tap=False),
    Layer(19, 512, tap=False),
    Layer(21, 512),
    Layer(24, 512, pooled=True, tap=False),
    Layer(26, 512, tap=False),
    Layer(28, 512),
  ),
)


def features(trunk: Trunk, params: Sequence[Mapping[str, Array]], x: Array) -> list[Array]:
  """Images [B, H, W, 3] in [-1, 1] -> [B, h, w, C] of every tap.

  `params` has a "kernel" [k, k, C, C'] and a "bias" [C'] for every layer.
  """
  x, taps = (x - jnp.array(SHIFT)) / jnp.array(SCALE), []
  for layer, p in zip(trunk.layers, params, strict=True):
    if layer.pooled:
      x = nn.max_pool(x, (trunk.pool,) * 2, (2, 2))
    x = jax.lax.conv_general_dilated(
      x,
      p["kernel"],
      (layer.stride,) * 2,
      [(layer.pad,) * 2] * 2,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      precision="highest",
    )
    x = nn.relu(x + p["bias"])
    if layer.tap:
      taps.append(x)
  return taps


def converted(weights: Mapping[str, np.ndarray]) -> tuple[Trunk, list[dict[str, np.ndarray]]]:
  """torchvision's weights by name -> its network, and `params`.

  Of the whole network or of its `features` alone.

  Raises:
    KeyError: A tensor is missing.
    ValueError: One has the wrong shape.
  """
  first = "features.0.weight"
  trunk = ALEX if np.shape(weights[first])[2:] == (11, 11) else VGG
  params, channels = [], 3
  for layer in trunk.layers:
    shape = layer.width, channels, layer.kernel, layer.kernel
    kernel = of(weights, f"features.{layer.number}.weight", shape)
    bias = of(weights, f"features.{layer.number}.bias", shape[:1])
    params.append({"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias})
    channels = layer.width
  return trunk, params


def linear(trunk: Trunk, weights: Mapping[str, np.ndarray]) -> list[np.ndarray]:
  """The weights of channels that LPIPS learnt, [C] for every tap.

  Raises:
    KeyError: A tensor is missing.
    ValueError: One has the wrong shape, as if of another network.
  """
  return [
    of(weights, f"lin{i}.model.1.weight", (1, layer.width, 1, 1)).ravel()
    for i, layer in enumerate(trunk.taps)
  ]


def of(weights: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
  """A tensor as float32; ValueError for another shape."""
  value = np.asarray(weights[name], np.float32)
  if value.shape != shape:
    raise ValueError(f"{name} has shape {list(value.shape)}, not {list(shape)}")
  return value
