"""Norms and convolutions of the nets that make images of images.

All are those of junyanz/pytorch-CycleGAN-and-pix2pix: weights begin as
N(0, 0.02^2), gains of batch norm as N(1, 0.02^2), biases as zero.
"""

import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.patchgan import NORMAL, near_one
from jaxgen.nets.transposed import ConvTranspose

Array = jax.Array
NORMS = ("batch", "instance", "none")


class ImageNorm(nn.Module):
  """Batch norm or instance norm of x [B, H, W, C], statistics in float32.

  Batch norm normalises by the batch where `own` is None, and leaves 0.1 of its
  mean and unbiased variance in the running averages, where these may change. Else
  by `own` of the image's own statistics, and for the rest by running averages. So
  1 is what PyTorch's batch norm does to a batch of one in training mode.

  Attributes:
    kind: One of NORMS. Instance norm has no gains, biases or averages.
    eps: Added to variances.
  """

  kind: str = "batch"
  eps: float = 1e-5

  @nn.compact
  def __call__(self, x: Array, own: Array | float | None = None) -> Array:
    if self.kind == "none":
      return x
    h = x.astype(jnp.float32)
    if self.kind == "instance":
      return standardise(h, *moments(h, (1, 2)), self.eps).astype(x.dtype)
    channels = x.shape[-1:]
    scale = self.param("scale", near_one, channels)
    bias = self.param("bias", nn.initializers.zeros, channels)
    mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
    var = self.variable("batch_stats", "var", jnp.ones, channels)
    if own is None:
      m, v = moments(h, (0, 1, 2))
      if self.is_mutable_collection("batch_stats") and not self.is_initializing():
        count = h.size // h.shape[-1]
        mean.value = 0.9 * mean.value + 0.1 * m
        var.value = 0.9 * var.value + 0.1 * v * (count / max(count - 1, 1))
    else:
      m, v = moments(h, (1, 2))
      m, v = own * m + (1 - own) * mean.value, own * v + (1 - own) * var.value
    return (standardise(h, m, v, self.eps) * scale + bias).astype(x.dtype)


def moments(h: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
  """Mean and biased variance over these axes, which stay if one is an image's."""
  keep = 0 not in axes
  mean = jnp.mean(h, axes, keepdims=True)
  var = jnp.mean((h - mean) ** 2, axes, keepdims=True)
  return (mean, var) if keep else (mean.reshape(-1), var.reshape(-1))


def standardise(h: Array, mean: Array, var: Array, eps: float) -> Array:
  """Zero mean and unit variance."""
  return (h - mean) * jax.lax.rsqrt(var + eps)


class ScaledDropout(nn.Module):
  """Zeroes a share `rate` of x [B, ...]; nothing without keys.

  `scale` in [0, 1], which may be traced, is multiplied with the rate. Every
  example draws from its own key, folded with this layer's path.
  """

  rate: float = 0.5

  @nn.compact
  def __call__(self, x: Array, key: Array | None = None, scale: Array | float = 1.0) -> Array:
    if key is None or not self.rate:
      return x
    salt = zlib.crc32("/".join(self.path).encode()) & 0x7FFFFFFF
    left = 1 - self.rate * scale
    draw = lambda k: jax.random.uniform(jax.random.fold_in(k, salt), x.shape[1:]) < left
    mask = jax.lax.optimization_barrier(jax.vmap(draw)(key))
    return jnp.where(mask, x / left, 0).astype(x.dtype)


def check_norm(kind: str) -> None:
  """ValueError for a norm that is none of NORMS."""
  if kind not in NORMS:
    raise ValueError(f"norm={kind!r}: want one of {', '.join(NORMS)}")


def conv(width: int, size: int, name: str, stride: int = 1, pad: int = 0, **kw: Any) -> nn.Conv:
  """A convolution with `pad` zeros on every side."""
  pads = [(pad, pad)] * 2
  return nn.Conv(width, (size, size), stride, pads, kernel_init=NORMAL, name=name, **kw)


def enlarge(width: int, size: int, name: str, **kw: Any) -> ConvTranspose:
  """A transposed convolution of stride 2 that doubles H and W exactly.

  Of size 4, PyTorch's with padding 1; of size 3, with output_padding 1 as well.
  The kernel is [h, w, out, in], and not turned around.
  """
  pads = [(size - 2, 2)] * 2
  kw |= dict(transpose_kernel=True, kernel_init=NORMAL, name=name)
  return ConvTranspose(width, (size, size), (2, 2), pads, **kw)


def pad_border(x: Array, n: int, how: str = "reflect") -> Array:
  """x with n pixels more on every side: mirrored, copies of the edge, or zeros."""
  modes = {"reflect": "reflect", "replicate": "edge", "zero": "constant"}
  if how not in modes:
    raise ValueError(f"padding={how!r}: want one of {', '.join(modes)}")
  if how == "reflect" and min(x.shape[1:3]) <= n:
    raise ValueError(f"maps of {x.shape[1]}x{x.shape[2]} are too small to mirror {n} pixels")
  return jnp.pad(x, ((0, 0), (n, n), (n, n), (0, 0)), modes[how])


def leaky(x: Array) -> Array:
  """Leaky ReLU of slope 0.2."""
  return nn.leaky_relu(x, 0.2)
