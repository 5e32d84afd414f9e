"""PatchGAN: a discriminator of patches (Isola et al. 2017, Sec. 3.2.2)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
NORMAL = nn.initializers.normal(0.02)


def near_one(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
  """N(1, 0.02^2), with which gains begin."""
  return 1 + NORMAL(key, shape, dtype)


class BatchStatNorm(nn.Module):
  """Batch norm by this batch alone, in float32: nobody asks D after training."""

  eps: float = 1e-5

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param("scale", near_one, (x.shape[-1],))
    bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
    h = x.astype(jnp.float32)
    mean = jnp.mean(h, (0, 1, 2))
    var = jnp.mean((h - mean) ** 2, (0, 1, 2))
    return ((h - mean) * (scale * jax.lax.rsqrt(var + self.eps)) + bias).astype(x.dtype)


class InstanceNorm(nn.Module):
  """Each image by its own statistics, in float32; nothing is learned."""

  eps: float = 1e-5

  @nn.compact
  def __call__(self, x: Array) -> Array:
    h = x.astype(jnp.float32)
    mean = jnp.mean(h, (1, 2), keepdims=True)
    var = jnp.mean((h - mean) ** 2, (1, 2), keepdims=True)
    return ((h - mean) * jax.lax.rsqrt(var + self.eps)).astype(x.dtype)


class NoNorm(nn.Module):
  """x as it is."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return x


NORMS = {"batch": BatchStatNorm, "instance": InstanceNorm, "none": NoNorm}


def norm_named(kind: str) -> type[nn.Module]:
  """One of NORMS; ValueError for another name."""
  if kind not in NORMS:
    raise ValueError(f"norm={kind!r}: want one of {', '.join(NORMS)}")
  return NORMS[kind]


class PatchGAN(nn.Module):
  """Images [B, H, W, C] -> logits [B, h, w], one for each patch.

  Attributes:
    width: Channels of the first layer; they double up to eight times as many.
    layers: Of stride 2; with 3 a logit sees 70 x 70 pixels.
    norm: "batch" (by this batch alone), "instance", which gives all layers a bias,
      or "none".
    dtype: Of the convolutions but the last.
  """

  width: int = 64
  layers: int = 3
  norm: str = "batch"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    least = 3 * 2**self.layers
    if min(x.shape[1:3]) < least:
      raise ValueError(
        f"images of {x.shape[1]}x{x.shape[2]} are too small for {self.layers} layers of stride 2: "
        f"want {least} pixels or more"
      )

    def conv(i, width, stride, **kw):
      kw = dict(dtype=self.dtype) | kw
      pad = [(1, 1), (1, 1)]
      return nn.Conv(width, (4, 4), stride, pad, kernel_init=NORMAL, name=f"conv_{i}", **kw)

    h = nn.leaky_relu(conv(0, self.width, 2)(x), 0.2)
    for i in range(1, self.layers + 1):
      width, stride = self.width * min(2**i, 8), 2 if i < self.layers else 1
      h = conv(i, width, stride, use_bias=self.norm == "instance")(h)
      h = nn.leaky_relu(norm_named(self.norm)(name=f"norm_{i}")(h), 0.2)
    return conv(self.layers + 1, 1, 1, dtype=jnp.float32)(h)[..., 0]


class PixelGAN(nn.Module):
  """Images [B, H, W, C] -> logits [B, H, W]: pixels by themselves (Isola et al. 2017, Sec. 4.4).

  Attributes:
    width: Channels of the first layer.
    norm: As PatchGAN's; with "instance" all layers have a bias, else the first.
    dtype: Of the convolutions but the last.
  """

  width: int = 64
  norm: str = "batch"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    def conv(i, width, dtype, bias):
      return nn.Conv(width, (1, 1), 1, use_bias=bias, dtype=dtype, kernel_init=NORMAL,
                     name=f"conv_{i}")  # fmt: skip

    bias = self.norm == "instance"
    h = nn.leaky_relu(conv(0, self.width, self.dtype, True)(x), 0.2)
    h = conv(1, 2 * self.width, self.dtype, bias)(h)
    h = nn.leaky_relu(norm_named(self.norm)(name="norm_1")(h), 0.2)
    return conv(2, 1, jnp.float32, bias)(h)[..., 0]
