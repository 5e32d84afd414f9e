"""The Inception network that FID is defined by (inception-2015-12-05).

Szegedy et al. 2015 ("Rethinking the Inception Architecture"), as TensorFlow
published it and Heusel et al. 2017 use it. It is not torchvision's: average
pools do not count their padding, the last block pools by maximum, and there
are 1008 classes. Names are those of pytorch-fid's file of weights.

Batch norms stand folded into the convolutions before them: see `folded`.
Everything is float32, and matrix products keep all of its digits.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
SIZE = 299  # pixels, of the images that it was trained on
EPS = 1e-3  # of its batch norms
TAPS = {
  "64": 64,
  "192": 192,
  "768": 768,
  "pool3": 2048,
  "spatial": 17 * 17 * 7,
  "logits": 1008,
  "logits_unbiased": 1008,
}


class Inception(nn.Module):
  """Images [B, 299, 299, 3] in [-1, 1] -> the outputs that `taps` names.

  - 64, 192 and 768: means over positions, after either max-pool and Mixed_6e.
  - pool3, [B, 2048]: likewise after the last block; what FID compares.
  - spatial, [B, 2023]: the first 7 channels of Mixed_6d at each of 17 x 17
    positions, rows first and channels last; what sFID compares.
  - logits, [B, 1008]; logits_unbiased, without the last layer's bias, as the
    reference Inception score has it.

  Of a program that is compiled, only what `taps` want is computed.
  """

  @nn.compact
  def __call__(self, x: Array, taps: tuple[str, ...] = ("pool3",)) -> dict[str, Array]:
    outputs = {}
    x = conv(x, 32, 3, "Conv2d_1a_3x3", stride=2)
    x = conv(x, 32, 3, "Conv2d_2a_3x3", padding="VALID")
    x = conv(x, 64, 3, "Conv2d_2b_3x3")
    x = shrink(x)
    outputs["64"] = x.mean((1, 2))
    x = conv(x, 80, 1, "Conv2d_3b_1x1")
    x = conv(x, 192, 3, "Conv2d_4a_3x3", padding="VALID")
    x = shrink(x)
    outputs["192"] = x.mean((1, 2))
    for name, pooled in ("5b", 32), ("5c", 64), ("5d", 64):
      x = MixedA(pooled, name=f"Mixed_{name}")(x)
    x = MixedB(name="Mixed_6a")(x)
    for name, width in ("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192):
      x = MixedC(width, name=f"Mixed_{name}")(x)
      if name == "6d":  # whose first channels are its 1 x 1 branch
        outputs["spatial"] = x[..., :7].reshape(len(x), -1)
    outputs["768"] = x.mean((1, 2))
    x = MixedD(name="Mixed_7a")(x)
    x = MixedE(average, name="Mixed_7b")(x)
    x = MixedE(maximum, name="Mixed_7c")(x)
    outputs["pool3"] = x.mean((1, 2))
    dense = nn.Dense(1008, precision="highest", name="fc")
    outputs["logits"] = dense(outputs["pool3"])
    kernel = dense.variables["params"]["kernel"]
    outputs["logits_unbiased"] = jnp.dot(outputs["pool3"], kernel, precision="highest")
    return {name: outputs[name] for name in taps}


class MixedA(nn.Module):
  """At 35 x 35; `pooled` channels come of the pool."""

  pooled: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    a = conv(x, 64, 1, "branch1x1")
    b = conv(x, 48, 1, "branch5x5_1")
    b = conv(b, 64, 5, "branch5x5_2")
    c = conv(x, 64, 1, "branch3x3dbl_1")
    c = conv(c, 96, 3, "branch3x3dbl_2")
    c = conv(c, 96, 3, "branch3x3dbl_3")
    d = conv(average(x), self.pooled, 1, "branch_pool")
    return jnp.concatenate([a, b, c, d], -1)


class MixedB(nn.Module):
  """From 35 x 35 to 17 x 17."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    a = conv(x, 384, 3, "branch3x3", stride=2)
    b = conv(x, 64, 1, "branch3x3dbl_1")
    b = conv(b, 96, 3, "branch3x3dbl_2")
    b = conv(b, 96, 3, "branch3x3dbl_3", stride=2)
    return jnp.concatenate([a, b, shrink(x)], -1)


class MixedC(nn.Module):
  """At 17 x 17, by rows and columns of 7; `width` channels between them."""

  width: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    w = self.width
    a = conv(x, 192, 1, "branch1x1")
    b = conv(x, w, 1, "branch7x7_1")
    b = conv(b, w, (1, 7), "branch7x7_2")
    b = conv(b, 192, (7, 1), "branch7x7_3")
    c = conv(x, w, 1, "branch7x7dbl_1")
    c = conv(c, w, (7, 1), "branch7x7dbl_2")
    c = conv(c, w, (1, 7), "branch7x7dbl_3")
    c = conv(c, w, (7, 1), "branch7x7dbl_4")
    c = conv(c, 192, (1, 7), "branch7x7dbl_5")
    d = conv(average(x), 192, 1, "branch_pool")
    return jnp.concatenate([a, b, c, d], -1)


class MixedD(nn.Module):
  """From 17 x 17 to 8 x 8."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    a = conv(x, 192, 1, "branch3x3_1")
    a = conv(a, 320, 3, "branch3x3_2", stride=2)
    b = conv(x, 192, 1, "branch7x7x3_1")
    b = conv(b, 192, (1, 7), "branch7x7x3_2")
    b = conv(b, 192, (7, 1), "branch7x7x3_3")
    b = conv(b, 192, 3, "branch7x7x3_4", stride=2)
    return jnp.concatenate([a, b, shrink(x)], -1)


class MixedE(nn.Module):
  """At 8 x 8, of two forks. `pool` is another one in the last block."""

  pool: Callable[[Array], Array]

  @nn.compact
  def __call__(self, x: Array) -> Array:
    a = conv(x, 320, 1, "branch1x1")
    b = conv(x, 384, 1, "branch3x3_1")
    b = [conv(b, 384, (1, 3), "branch3x3_2a"), conv(b, 384, (3, 1), "branch3x3_2b")]
    c = conv(x, 448, 1, "branch3x3dbl_1")
    c = conv(c, 384, 3, "branch3x3dbl_2")
    c = [conv(c, 384, (1, 3), "branch3x3dbl_3a"), conv(c, 384, (3, 1), "branch3x3dbl_3b")]
    d = conv(self.pool(x), 192, 1, "branch_pool")
    return jnp.concatenate([a, *b, *c, d], -1)


def conv(
  x: Array,
  width: int,
  size: int | tuple[int, int],
  name: str,
  stride: int = 1,
  padding: str = "SAME",
) -> Array:
  """Convolution and ReLU; strides leave no room for padding."""
  size = (size, size) if isinstance(size, int) else size
  padding = "VALID" if stride > 1 else padding
  bare = padding == "VALID" and stride == 1
  apply = valid_conv if bare else jax.lax.conv_general_dilated
  layer = nn.Conv(
    width, size, stride, padding, precision="highest", name=name, conv_general_dilated=apply
  )
  return nn.relu(layer(x))


def valid_conv(x: Array, kernel: Array, strides: tuple, padding: str, **kw: Any) -> Array:
  """A convolution by 3 x 3 without padding; on CPUs one with padding, cropped.

  XLA for CPUs has another program for the latter: 2 maps of 149 x 149 x 32 take 9.0 ms
  of it where they took 37.8, and 73 x 73 x 80 35.9 and 40.4 (one thread).
  """

  def by_crop(x, kernel):
    y = jax.lax.conv_general_dilated(x, kernel, strides, "SAME", **kw)
    return jax.lax.optimization_barrier(y)[:, 1:-1, 1:-1]

  return jax.lax.platform_dependent(
    x,
    kernel,
    cpu=by_crop,
    default=lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, strides, padding, **kw),
  )


def shrink(x: Array) -> Array:
  """Maxima of 3 x 3 positions, every other one."""
  return jax.lax.platform_dependent(
    x,
    cpu=lambda x: by_slices(x, jnp.maximum, stride=2),
    default=lambda x: nn.max_pool(x, (3, 3), (2, 2)),
  )


def average(x: Array) -> Array:
  """Means of 3 x 3 positions, of as many as there are at the border."""
  return jax.lax.platform_dependent(
    x,
    cpu=lambda x: by_slices(pad(x, 0.0), jnp.add) * shares(x),
    default=lambda x: nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False),
  )


def maximum(x: Array) -> Array:
  """Maxima of 3 x 3 positions."""
  return jax.lax.platform_dependent(
    x,
    cpu=lambda x: by_slices(pad(x, -jnp.inf), jnp.maximum),
    default=lambda x: nn.max_pool(x, (3, 3), padding="SAME"),
  )


def by_slices(x: Array, combine: Callable[[Array, Array], Array], stride: int = 1) -> Array:
  """Windows of 3 x 3 in one number each, rows first: [B, H, W, C] -> [B, H', W', C].

  XLA for CPUs goes through the windows of `reduce_window` number by number: maxima of
  8 maps of 71 x 71 x 192 took 14.2 ms where slices take 3.9, and sums of 35 x 35 x 288
  13.1 where these take 6.5 (one thread).
  """
  for axis in (1, 2):
    last = x.shape[axis] - 2
    x = functools.reduce(
      combine, (jax.lax.slice_in_dim(x, i, i + last, stride, axis) for i in range(3))
    )
  return x


def pad(x: Array, value: float) -> Array:
  """One more position around, [B, H, W, C] -> [B, H + 2, W + 2, C]."""
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def shares(x: Array) -> Array:
  """1 / how many of the 3 x 3 positions around each there are, [H, W, 1]."""
  rows, columns = (np.convolve(np.ones(n), np.ones(3), "same") for n in x.shape[1:3])
  return jnp.asarray(1 / np.outer(rows, columns), x.dtype)[..., None]


def folded(weights: Mapping[str, np.ndarray]) -> dict[str, dict]:
  """PyTorch's weights by name -> parameters of the module above.

  A convolution without bias and its batch norm with stored statistics are one
  convolution with bias. Folded in float64: what is lost is one rounding.

  Raises:
    KeyError: A tensor is missing.
    ValueError: One has the wrong shape.
  """
  shapes = jax.eval_shape(
    Inception().init, jax.random.key(0), jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32)
  )

  def of(path, leaf):
    *module, kind = (p.key for p in path[1:])
    name = ".".join(module)
    if name == "fc":
      value = weights[f"fc.{'weight' if kind == 'kernel' else 'bias'}"].T
    else:
      norm = {
        k: weights[f"{name}.bn.{k}"].astype(np.float64)
        for k in ("weight", "bias", "running_mean", "running_var")
      }
      gain = norm["weight"] / np.sqrt(norm["running_var"] + EPS)
      kernel = weights[f"{name}.conv.weight"].transpose(2, 3, 1, 0)
      value = kernel * gain if kind == "kernel" else norm["bias"] - gain * norm["running_mean"]
    if value.shape != leaf.shape:
      raise ValueError(f"{name}: {value.shape}, not {leaf.shape}")
    return np.asarray(value, np.float32, order="C")

  return jax.tree_util.tree_map_with_path(of, shapes)["params"]
