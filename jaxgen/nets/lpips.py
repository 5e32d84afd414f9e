"""AlexNet and VGG16 up to their last convolution, as LPIPS looks at them.

Krizhevsky 2014 ("one weird trick") and Simonyan & Zisserman 2015, without
their heads, with torchvision's weights. Float32, all digits kept.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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


def features(
  trunk: Trunk, params: Sequence[Mapping[str, Array]], x: Array, precision: str | None = "highest"
) -> list[Array]:
  """Images [B, H, W, 3] in [-1, 1] -> [B, h, w, C] of every tap.

  `params` has a "kernel" [k, k, C, C'] and a "bias" [C'] for every layer. All
  digits are kept for a metric; a loss can do with the device's usual ones.
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
      precision=precision,
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


@dataclasses.dataclass(frozen=True)
class LPIPS:
  """LPIPS as a part of a loss. Its weights are {"trunk": .., "linear": ..}.

  Attributes:
    net: "vgg", as losses have it, or "alex".
  """

  net: str = "vgg"

  @property
  def trunk(self) -> Trunk:
    """Its layers."""
    trunks = {"vgg": VGG, "alex": ALEX}
    if self.net not in trunks:
      raise ValueError(f"net={self.net!r}: want vgg or alex")
    return trunks[self.net]

  @property
  def name(self) -> str:
    """Of its metric."""
    return f"lpips@{self.net}"

  def init(self, x: Array | None = None) -> dict[str, Any]:
    """Zeros in the shapes of its weights, for any images.

    The files of a user have others.
    """
    del x
    trunk, linear, channels = {}, {}, 3
    for layer in self.trunk.layers:
      kernel = jnp.zeros((layer.kernel, layer.kernel, channels, layer.width))
      trunk[f"conv_{layer.number}"] = {"kernel": kernel, "bias": jnp.zeros(layer.width)}
      channels = layer.width
      if layer.tap:
        linear[f"lin_{len(linear)}"] = jnp.zeros(layer.width)
    return {"trunk": trunk, "linear": linear}

  def converted(
    self, trunk: Mapping[str, np.ndarray], lin: Mapping[str, np.ndarray]
  ) -> dict[str, Any]:
    """Tensors of the two published files -> its weights.

    Raises:
      KeyError: A tensor is missing.
      ValueError: One has the wrong shape, as if of another network.
    """
    network, layers = converted(trunk)
    if network != self.trunk:
      raise ValueError(f"it is of {network.name}, not {self.net}")
    names = [f"conv_{layer.number}" for layer in network.layers]
    weights = linear(network, lin)
    return {
      "trunk": dict(zip(names, layers, strict=True)),
      "linear": {f"lin_{i}": w for i, w in enumerate(weights)},
    }

  def features(self, params: Mapping[str, Any], x: Array) -> list[Array]:
    """Images [B, H, W, 1 or 3] in [-1, 1] -> [B, h, w, C] of every tap."""
    if min(x.shape[1:3]) < self.trunk.least:
      least = self.trunk.least
      raise ValueError(f"{self.name} looks at images of {least}x{least} or more, not {x.shape[1:]}")
    x = jnp.repeat(x, 3, -1) if x.shape[-1] == 1 else x
    layers = [params["trunk"][f"conv_{layer.number}"] for layer in self.trunk.layers]
    return features(self.trunk, layers, x, precision=None)

  def linear(self, params: Mapping[str, Any]) -> list[Array]:
    """The weights of channels, [C] for every tap."""
    return [params["linear"][f"lin_{i}"] for i in range(len(self.trunk.taps))]
