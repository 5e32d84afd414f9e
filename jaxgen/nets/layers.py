"""Layers that several nets share. Keys are [B]: one per example.

Group norm and conditional batch norm, labels as vectors (of one class, or of
several by weight), minibatch discrimination (Salimans et al. 2016, Sec. 3.2).
"""

import zlib
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class Dropout(nn.Module):
  """Zeroes a share `rate` of the entries of x [B, ...]; off without keys.

  Every example draws from its own key, folded with this layer's path: masks do
  not depend on the rest of the batch.
  """

  rate: float

  @nn.compact
  def __call__(self, x: Array, key: Array | None = None) -> Array:
    if key is None or self.rate == 0:
      return x
    salt = zlib.crc32("/".join(self.path).encode()) & 0x7FFFFFFF

    def mask(k):
      k = jax.random.fold_in(k, salt)
      return jax.random.bernoulli(k, 1 - self.rate, x.shape[1:])

    # Behind a barrier, or XLA for TPUs draws the bits anew for every tile of
    # the convolution that follows.
    mask = jax.lax.optimization_barrier(jax.vmap(mask)(key))
    return jnp.where(mask, x / (1 - self.rate), 0)


class GroupNorm(nn.Module):
  """Group norm with statistics in float32.

  Of `groups` groups, or fewer: equal parts, of at least `least` channels each.
  """

  groups: int = 32
  eps: float = 1e-5
  least: int = 4

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (channels,))
    bias = self.param("bias", nn.initializers.zeros, (channels,))
    groups = divisor(channels, min(self.groups, channels // self.least))
    return group_norm(x, scale, bias, groups, self.eps)


def group_norm(x: Array, scale: Array, bias: Array, groups: int, eps: float) -> Array:
  """x [B, ..., C], normalised over positions and the channels of a group; in float32.

  Moments are taken by channel first, which a vector unit adds up side by side, and
  then of the group's few; so what is left is one product and sum for each number.
  On one thread of a CPU this and a SiLU take 0.5 to 0.9 of the time with Flax's
  norm, which sums over C / groups neighbours, and their gradient 0.6 to 0.8.

  Args:
    x: Of any float dtype, that of the result.
    scale: [C], or [B, C] of every example; multiplied with what is normalised ...
    bias: ... and added to it.
    groups: Their number, which divides C.
    eps: Added to variances.
  """
  h = x.astype(jnp.float32)
  size, channels = len(x), x.shape[-1]
  positions = tuple(range(1, x.ndim - 1))

  def of_groups(h):  # [B, ..., C] -> [B, C], equal within a group
    mean = jnp.mean(h, positions).reshape(size, groups, -1).mean(-1, keepdims=True)
    return jnp.broadcast_to(mean, (size, groups, channels // groups)).reshape(size, channels)

  mean = of_groups(h)
  var = jnp.maximum(of_groups(h * h) - mean * mean, 0)
  gain = scale * jax.lax.rsqrt(var + eps)
  gain, shift = (jnp.expand_dims(t, positions) for t in (gain, bias - mean * gain))
  return (h * gain + shift).astype(x.dtype)


def divisor(n: int, most: int) -> int:
  """The largest divisor of n that is at most `most`; 1 if there is none."""
  return max((d for d in range(1, most + 1) if n % d == 0), default=1)


def sinusoids(
  t: Array, width: int, period: float = 1e4, sine_first: bool = False, ends: bool = False
) -> Array:
  """Times [B] -> features [B, width] of frequencies from 1 to 1 / period.

  By default ADM's: cosines first, and the frequency 1 / period is just not
  reached. DDPM's and Transformers' have sines first and both ends.
  """
  half = width // 2
  w = jnp.exp(-jnp.log(period) * jnp.arange(half) / (half - ends))
  angle = t.astype(jnp.float32)[:, None] * w
  pair = jnp.cos(angle), jnp.sin(angle)
  return jnp.concatenate(pair[::-1] if sine_first else pair, -1)


class TimeRow(nn.Module):
  """Times t [B] of 0 to 1000 -> rows [B, width], to be projected on."""

  width: int

  @nn.compact
  def __call__(self, t: Array) -> Array:
    return nn.Dense(self.width)(nn.silu(nn.Dense(64)(sinusoids(t, 32))))


def times(t: Array | None, x: Array) -> Array:
  """t [B] as it is; where nobody told any, zeros for x [B, ...]: as clean as data."""
  return jnp.zeros(len(x)) if t is None else t


def upsample(x: Array) -> Array:
  """Nearest neighbour, [B, H, W, C] -> [B, 2H, 2W, C]."""
  return x.repeat(2, 1).repeat(2, 2)


def halve(x: Array) -> Array:
  """Means of 2 x 2 pixels, [B, 2H, 2W, C] -> [B, H, W, C]."""
  return nn.avg_pool(x, (2, 2), (2, 2))


class CondNorm(nn.Module):
  """Class-conditional batch norm (de Vries et al. 2017), in float32.

  In training (where "batch_stats" may change) x is normalised by this batch;
  else by running averages, `mean` and `var`, whose batches' variances are
  unbiased as in PyTorch.

  Attributes:
    linear: (channels, name=) -> a layer that makes gain - 1, and bias, of the
      condition.
    eps: Added to variances.
    momentum: Share of the running averages that a batch leaves.
    tables: Statistics are kept for so many truncations of z, evenly from 0
      to 1, as in DeepMind's published generators; 0: one for all.
  """

  linear: Callable[..., nn.Module]
  eps: float = 1e-5
  momentum: float = 0.9
  tables: int = 0

  @nn.compact
  def __call__(self, x: Array, cond: Array | None = None, truncation: Array | float = 1.0) -> Array:
    """x [B, H, W, C], condition [B, ...] or None: a gain and bias for all."""
    channels = x.shape[-1]
    mean, var = self.statistics(x.astype(jnp.float32), truncation)
    if cond is None:
      gain = self.param("gain", nn.initializers.ones, (channels,))
      bias = self.param("bias", nn.initializers.zeros, (channels,))
    else:
      gain, bias = (
        self.linear(channels, name=name)(cond)[:, None, None] for name in ("gain", "bias")
      )
      gain = 1 + gain
    scale = gain * jax.lax.rsqrt(var + self.eps)
    return ((x - mean) * scale + bias).astype(x.dtype)

  def statistics(self, x: Array, truncation: Array | float) -> tuple[Array, Array]:
    """Mean and variance [C] of this batch, or the stored ones."""
    shape = (self.tables, x.shape[-1])[not self.tables :]
    stored = [
      self.variable("batch_stats", "mean", jnp.zeros, shape),
      self.variable("batch_stats", "var", jnp.ones, shape),
    ]
    if not self.is_mutable_collection("batch_stats"):
      return tuple(self.interpolate(s.value, truncation) for s in stored)
    mean = jnp.mean(x, (0, 1, 2))  # both in one pass: one message on a pod
    var = jnp.maximum(jnp.mean(x * x, (0, 1, 2)) - mean * mean, 0)
    if not self.is_initializing():
      n = x.size / x.shape[-1]
      for s, new in zip(stored, (mean, var * n / max(n - 1, 1)), strict=True):
        s.value = self.momentum * s.value + (1 - self.momentum) * new
    return mean, var

  def interpolate(self, values: Array, truncation: Array | float) -> Array:
    """The table's rows at a truncation, from the nearest two, linearly."""
    if not self.tables:
      return values
    place = jnp.clip(truncation, 0, 1) * (self.tables - 1)
    i = jnp.clip(jnp.int32(place), 0, self.tables - 2)
    return values[i] + (place - i) * (values[i + 1] - values[i])


USUAL = nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)


class LabelEmbed(nn.Module):
  """Labels -> vectors [B, width], rows of a table.

  Labels are int32 [B], or float32 [B, classes]: weights of the rows, by which
  one walks from class to class.
  """

  classes: int
  width: int
  embedding_init: Callable[..., Array] = USUAL

  @nn.compact
  def __call__(self, y: Array) -> Array:
    table = self.param("embedding", self.embedding_init, (self.classes, self.width))
    if jnp.issubdtype(y.dtype, jnp.integer):
      return jnp.take(table, y, axis=0)
    return jnp.dot(y, table, precision=jax.lax.Precision.HIGHEST)


class Projection(nn.Module):
  """Features [B, D], labels -> logits [B] (Miyato & Koyama 2018, Eq. 5).

  Attributes:
    classes: Number of labels; 0: features alone decide.
    norm: What wraps each layer, such as nets.spectral.spectral.
    kernel_init: Of both layers.
  """

  classes: int
  norm: Callable[[nn.Module], nn.Module]
  kernel_init: Callable[..., Array] = nn.initializers.orthogonal()

  @nn.compact
  def __call__(self, h: Array, y: Array | None = None) -> Array:
    logit = self.norm(nn.Dense(1, kernel_init=self.kernel_init, name="linear"))(h)
    if not self.classes:
      return logit[:, 0]
    row = self.norm(LabelEmbed(self.classes, h.shape[-1], self.kernel_init, name="label"))(y)
    return logit[:, 0] + jnp.sum(row * h, -1)


class Discrimination(nn.Module):
  """Features [B, A] -> [B, A + kernels]: how near others in the batch are.

  M_i = f(x_i) T and o_ib = sum_{j != i} exp(-|M_ib - M_jb|_1); a generator that
  says the same thing over and over is found out by it. Needs memory for
  B^2 kernels dims numbers.

  Attributes:
    kernels: B of the paper, numbers that are appended; 100 in its code.
    dims: C of the paper, the length of what is compared; 5 in its code.
  """

  kernels: int = 100
  dims: int = 5

  @nn.compact
  def __call__(self, f: Array) -> Array:
    m = nn.DenseGeneral(
      (self.kernels, self.dims), use_bias=False, kernel_init=nn.initializers.normal(0.05), name="T"
    )(f)
    gap = jnp.abs(m[:, None] - m[None]).sum(-1)  # [B, B, kernels]
    near = jnp.exp(-gap).sum(1) - 1  # without the example itself
    return jnp.concatenate([f, near], -1)
