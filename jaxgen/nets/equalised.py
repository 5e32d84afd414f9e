"""Layers with an equalised learning rate, and StyleGAN2's mapping network.

Weights are drawn from N(0, 1) and scaled when they are used, so that Adam moves
all of them at the same relative speed (Karras et al. 2018, Sec. 4.1). `lr`
makes a layer learn slower: its weights are stored that much larger.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets import fir

Array = jax.Array
NORMAL = nn.initializers.normal


def lrelu(x: Array) -> Array:
  """Leaky ReLU that keeps the variance, more or less: slope 0.2, gain 2^1/2."""
  return nn.leaky_relu(x, 0.2) * np.sqrt(2).astype(x.dtype)


def clip(x: Array, bound: float | None) -> Array:
  """Keeps x within [-bound, bound]; float16 overflows otherwise."""
  return x if bound is None else jnp.clip(x, -bound, bound)


class Dense(nn.Module):
  """x [B, I] -> [B, width], in float32.

  Attributes:
    width: Numbers that come out.
    lr: Multiplier of the learning rate.
    bias: What the bias begins with.
    act: A leaky ReLU follows.
  """

  width: int
  lr: float = 1.0
  bias: float = 0.0
  act: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    n = x.shape[-1]
    kernel = self.param("kernel", NORMAL(1 / self.lr), (n, self.width))
    bias = self.param("bias", nn.initializers.constant(self.bias), (self.width,))
    y = x @ (kernel * (self.lr / np.sqrt(n))) + bias * self.lr
    return lrelu(y) if self.act else y


class Conv(nn.Module):
  """x [B, H, W, I] -> [B, H', W', width], in the dtype of x.

  Attributes:
    width: Channels that come out.
    size: Of the kernel.
    up: Doubles H and W.
    down: Halves them.
    act: There is a bias, and a leaky ReLU; else neither.
    clamp: Bound of what comes out.
    taps: Of the filter, see `nets.fir`.
  """

  width: int
  size: int = 3
  up: bool = False
  down: bool = False
  act: bool = True
  clamp: float | None = None
  taps: Sequence[float] = fir.TAPS

  @nn.compact
  def __call__(self, x: Array, gain: float = 1.0) -> Array:
    shape = (self.size, self.size, x.shape[-1], self.width)
    kernel = self.param("kernel", NORMAL(1.0), shape)
    kernel = (kernel / np.sqrt(np.prod(shape[:3]))).astype(x.dtype)
    y = fir.conv(x, kernel, self.taps, self.up, self.down)
    if self.act:
      bias = self.param("bias", nn.initializers.zeros, (self.width,))
      y = lrelu(y + bias.astype(x.dtype))
    return clip(gain * y, self.clamp and self.clamp * gain)


class Mapping(nn.Module):
  """z [B, Z] and labels -> w [B, width] (Karras et al. 2019, Sec. 2).

  Attributes:
    width: Of what comes out, and of all layers.
    layers: Their number.
    classes: Number of labels; 0: none.
    lr: Multiplier of the learning rate.
  """

  width: int = 512
  layers: int = 8
  classes: int = 0
  lr: float = 0.01

  @nn.compact
  def __call__(self, z: Array | None, y: Array | None = None) -> Array:
    parts = [] if z is None else [unit(z)]
    if self.classes:
      if y is None:
        raise ValueError("this net has labels: give it y")
      parts.append(unit(Dense(self.width, name="embed")(weights_of(y, self.classes))))
    w = jnp.concatenate(parts, -1)
    for i in range(self.layers):
      w = Dense(self.width, self.lr, act=True, name=f"fc{i}")(w)
    return w


def unit(x: Array) -> Array:
  """Scaled to a mean square of 1, for each example."""
  return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-8)


def weights_of(y: Array, classes: int) -> Array:
  """Labels [B], or weights of all of them [B, classes] -> such weights."""
  return y if y.ndim == 2 else jax.nn.one_hot(y, classes)
