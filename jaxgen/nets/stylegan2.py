"""StyleGAN2's pair of nets (Karras et al. 2020a), as StyleGAN2-ADA has it (2020b).

A mapping network makes w of z; an affine layer before every convolution turns w
into scales of its input channels, and the output is brought back to unit
variance (Sec. 2.2). Names of parameters are those of the reference code.
"""

import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets import fir
from jaxgen.nets.equalised import NORMAL, Conv, Dense, Mapping, clip, lrelu, weights_of
from jaxgen.nets.layers import divisor, times

Array = jax.Array
HALF = np.sqrt(0.5)  # of two summands, so that variance stays


class Generator(nn.Module):
  """z [B, Z], labels -> images [B, size, size, channels] in about [-1, 1].

  Attributes:
    size: Height and width, a power of two.
    channels: Of the image.
    base: A layer at height h has base / h channels ...
    most: ... or this many, if that is less.
    w_dim: Length of w.
    layers: Of the mapping network.
    classes: Number of labels; 0: none.
    arch: How layers become an image: "skip" sums up images of all resolutions,
      "resnet" has residual blocks, "orig" neither (Sec. 4.1).
    noise: Layers add noise to what they make.
    clamp: Bound of what layers make.
    w_beta: Of the average of w, which moves when it is mutable.
    taps: Of the filters where the resolution changes.
    dtype: Of the `fine` highest resolutions; the others are float32. Height 4
      is float32 always.
    fine: See there.
    mapper: Makes another mapping network, z [B, Z], labels -> w [B, w_dim], such
      as `nets.split_mapping.split`; `layers` is then of no account.
  """

  size: int = 256
  channels: int = 3
  base: int = 16384
  most: int = 512
  w_dim: int = 512
  layers: int = 8
  classes: int = 0
  arch: str = "skip"
  noise: bool = True
  clamp: float | None = None
  w_beta: float = 0.995
  taps: Sequence[float] = fir.TAPS
  dtype: Any = jnp.float32
  fine: int = 4
  mapper: Callable[[], nn.Module] | None = None

  # Truncation, below: by how much, and of how many of the first layers.
  knobs: ClassVar[dict[str, float]] = {"psi": 1.0, "cutoff": float("inf")}

  def setup(self):
    mapper = self.mapper or functools.partial(Mapping, self.w_dim, self.layers, self.classes)
    self.mapping = mapper()
    self.w_avg = self.variable("average", "w_avg", jnp.zeros, (self.w_dim,))
    blocks = {}
    for size in heights(self.size):
      half = size >= max(2 * self.size >> self.fine, 8)
      blocks[f"b{size}"] = Block(
        size,
        min(self.base // size, self.most),
        self.channels,
        self.arch,
        size == self.size,
        self.noise,
        self.clamp,
        self.taps,
        self.dtype if half else jnp.float32,
      )
    self.synthesis = blocks

  @property
  def num_ws(self) -> int:
    """How many layers take a w: L."""
    return 2 * len(heights(self.size))

  def map(
    self,
    z: Array,
    y: Array | None = None,
    psi: Array | float = 1.0,
    cutoff: Array | float | None = None,
  ) -> Array:
    """z [B, Z] -> w for every layer, [B, L, W].

    Truncation (Karras et al. 2019, App. B): w_avg + psi (w - w_avg), for the
    first `cutoff` layers or, with None, all.
    """
    w = self.mapping(z, y)
    if self.is_mutable_collection("average") and not self.is_initializing():
      mean = jax.lax.stop_gradient(jnp.mean(w, 0))
      self.w_avg.value = mean + self.w_beta * (self.w_avg.value - mean)
    ws = jnp.repeat(w[:, None], self.num_ws, 1)
    short = ws + (1 - psi) * (self.w_avg.value - ws)
    if cutoff is None:
      return short
    return jnp.where(jnp.arange(self.num_ws)[:, None] < cutoff, short, ws)

  def synthesize(self, ws: Array, key: Array | None = None) -> Array:
    """w for every layer [B, L, W] -> x; constant noise, or by keys [B]."""
    h = x = None
    for i, block in enumerate(self.synthesis.values()):
      # A block's last w is the next one's first.
      h, x = block(h, x, ws[:, max(2 * i - 1, 0) : 2 * i + 2], key)
    return x

  def __call__(
    self,
    z: Array,
    y: Array | None = None,
    key: Array | None = None,
    psi: Array | float = 1.0,
    cutoff: Array | float | None = None,
  ) -> Array:
    return self.synthesize(self.map(z, y, psi, cutoff), key)


def heights(size: int) -> list[int]:
  """4, 8 .. size."""
  if size < 4 or size & size - 1:
    raise ValueError(f"images of height {size}: want a power of two, 4 or more")
  return [1 << i for i in range(2, size.bit_length())]


class Block(nn.Module):
  """One resolution: features h and image x at half the height -> both here.

  Attributes:
    height: Of what comes out; the block of height 4 begins with a constant.
    width: Channels of h.
    channels: Of x.
    arch: See `Generator`, as are the others.
    last: Makes an image whatever the architecture.
  """

  height: int
  width: int
  channels: int
  arch: str
  last: bool
  noise: bool
  clamp: float | None
  taps: Sequence[float]
  dtype: Any

  @nn.compact
  def __call__(
    self, h: Array | None, x: Array | None, ws: Array, key: Array | None
  ) -> tuple[Array, Array | None]:
    def layer(name, up=False):
      return Layer(self.width, self.height, up, self.noise, self.clamp, self.taps, name=name)

    residual = self.arch == "resnet" and h is not None
    gain = HALF if residual else 1.0
    if h is None:
      const = self.param("const", NORMAL(1.0), (self.height, self.height, self.width))
      h = jnp.broadcast_to(const, (len(ws), *const.shape)).astype(self.dtype)
      h = layer("conv1")(h, ws[:, 0], key)
    else:
      before = h = h.astype(self.dtype)
      h = layer("conv0", up=True)(h, ws[:, 0], key)
      h = layer("conv1")(h, ws[:, 1], key, gain)
    if residual:
      h += Conv(self.width, 1, up=True, act=False, taps=self.taps, name="skip")(before, gain)
    if x is not None:
      x = fir.upsample(x, self.taps)
    if self.last or self.arch == "skip":
      rgb = ToRGB(self.channels, self.clamp, name="torgb")(h, ws[:, -1])
      rgb = rgb.astype(jnp.float32)
      x = rgb if x is None else x + rgb
    return h, x


class Layer(nn.Module):
  """Convolution modulated by w [B, W], noise, bias, leaky ReLU.

  Attributes:
    width: Channels that come out.
    height: Of what comes out.
    up: Doubles H and W.
    noise: Adds noise of a learned strength (Karras et al. 2019, Sec. 2).
    clamp: Bound of what comes out.
    taps: Of the filter.
  """

  width: int
  height: int
  up: bool = False
  noise: bool = True
  clamp: float | None = None
  taps: Sequence[float] = fir.TAPS

  @nn.compact
  def __call__(self, x: Array, w: Array, key: Array | None = None, gain: float = 1.0) -> Array:
    style = Dense(x.shape[-1], bias=1.0, name="affine")(w)
    kernel = self.param("kernel", NORMAL(1.0), (3, 3, x.shape[-1], self.width))
    y = modulated_conv(x, kernel, style, self.up, self.taps)
    if self.noise:
      y += self.sample_noise(key).astype(x.dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.width,))
    y = lrelu(y + bias.astype(x.dtype)) * gain
    return clip(y, self.clamp and self.clamp * gain)

  def sample_noise(self, key: Array | None) -> Array:
    """Noise [1 or B, H, W, 1]: one constant, or drawn by keys [B]."""
    shape = (self.height, self.height)
    strength = self.param("noise_strength", nn.initializers.zeros, ())
    const = self.variable(
      "noise", "noise_const", lambda: jax.random.normal(self.make_rng("params"), shape)
    ).value
    if key is None:
      return (strength * const)[None, ..., None]
    salt = zlib.crc32("/".join(self.path).encode()) & 0x7FFFFFFF
    draw = lambda k: jax.random.normal(jax.random.fold_in(k, salt), shape)
    return strength * jax.vmap(draw)(key)[..., None]


class ToRGB(nn.Module):
  """Features and w [B, W] -> an image's summand; not demodulated."""

  channels: int
  clamp: float | None = None

  @nn.compact
  def __call__(self, x: Array, w: Array) -> Array:
    width = x.shape[-1]
    style = Dense(width, bias=1.0, name="affine")(w) / np.sqrt(width)
    kernel = self.param("kernel", NORMAL(1.0), (1, 1, width, self.channels))
    bias = self.param("bias", nn.initializers.zeros, (self.channels,))
    y = modulated_conv(x, kernel, style, demodulate=False)
    return clip(y + bias.astype(x.dtype), self.clamp)


def modulated_conv(
  x: Array,
  kernel: Array,
  style: Array,
  up: bool = False,
  taps: Sequence[float] = fir.TAPS,
  demodulate: bool = True,
) -> Array:
  """A convolution by another kernel for each example.

  Karras et al. 2020a, Eqs. 1-3: input channels are scaled by the style; then
  outputs, to the variance that they had. Scaling x and y, not the kernel, makes
  one convolution of many.

  Args:
    x: [B, H, W, I]; its dtype is that of the convolution.
    kernel: [k, k, I, O], float32.
    style: [B, I], float32.
    up: Doubles H and W.
    taps: Of the filter, then.
    demodulate: Scales the outputs.
  """
  if demodulate and x.dtype != jnp.float32:
    # Sizes that cancel below are taken off before they can overflow.
    kernel /= jnp.max(jnp.abs(kernel), (0, 1, 2)) * np.sqrt(np.prod(kernel.shape[:3]))
    style /= jnp.max(jnp.abs(style), -1, keepdims=True)
  y = x * style.astype(x.dtype)[:, None, None]
  y = fir.conv(y, kernel.astype(x.dtype), taps, up)
  if not demodulate:
    return y
  square = jnp.matmul(style**2, jnp.sum(kernel**2, (0, 1)), precision="highest")
  scale = jax.lax.rsqrt(square + 1e-8).astype(x.dtype)
  return y * scale[:, None, None]


class Discriminator(nn.Module):
  """Images [B, H, H, C], labels, times t [B] -> logits [B].

  Attributes:
    base: A layer at height h has base / h channels ...
    most: ... or this many, if that is less.
    classes: Number of labels; 0: none. They enter by projection of what a
      mapping network makes of them.
    layers: Of the mapping network.
    mapped: Length of what it makes; None: channels at height 4.
    arch: "resnet": residual blocks; "skip": every resolution reads the image;
      "orig": neither.
    group: Examples whose standard deviation is a feature (Karras et al. 2018,
      Sec. 3); None: the whole batch.
    features: Number of such features; 0: none.
    clamp: Bound of what layers make.
    taps: Of the filters where the resolution changes.
    dtype: Of the `fine` highest resolutions; the others are float32. Height 4
      is float32 always.
    fine: See there.
    timed: Takes times: a number beside the label's, as it is (Wang et al. 2022).
  """

  base: int = 16384
  most: int = 512
  classes: int = 0
  layers: int = 8
  mapped: int | None = None
  arch: str = "resnet"
  group: int | None = 4
  features: int = 1
  clamp: float | None = None
  taps: Sequence[float] = fir.TAPS
  dtype: Any = jnp.float32
  fine: int = 4
  timed: bool = False

  @nn.compact
  def __call__(
    self,
    x: Array,
    y: Array | None = None,
    key: Array | None = None,
    t: Array | None = None,
    embed: bool = False,
  ) -> Array:
    del key
    inputs = self.classes + self.timed  # of the mapping network
    size, width = x.shape[1], lambda h: min(self.base // h, self.most)
    if x.shape[2] != size:
      raise ValueError(f"images of {size}x{x.shape[2]}: want squares")
    h = None
    for height in reversed(heights(size)[1:]):
      half = height >= max(2 * size >> self.fine, 8)
      h, x = DiscBlock(
        width(height),
        width(height // 2),
        self.arch,
        self.clamp,
        self.taps,
        self.dtype if half else jnp.float32,
        name=f"b{height}",
      )(h, x)
    mapped = self.mapped or width(4)
    h, out = Epilogue(
      width(4), mapped if inputs else 1, self.arch, self.group, self.features, self.clamp, name="b4"
    )(h, x)
    if embed:
      return h
    if not inputs:
      return out[:, 0]
    if self.timed:
      y = self.with_time(y, times(t, out))
    row = Mapping(mapped, self.layers, inputs, name="mapping")(None, y)
    return jnp.sum(out * row, -1) / np.sqrt(mapped)

  def with_time(self, y: Array | None, t: Array) -> Array:
    """Labels' weights and t, [B, classes + 1]."""
    t = t.astype(jnp.float32)[:, None]
    if not self.classes:
      return t
    if y is None:
      raise ValueError("this net has labels: give it y")
    return jnp.concatenate([weights_of(y, self.classes), t], -1)

  def embed(self, x: Array, y: Array | None = None, t: Array | None = None) -> Array:
    """What the last layer reads, [B, D]."""
    return self(x, y, t=t, embed=True)


class DiscBlock(nn.Module):
  """One resolution: features h (or none) and image x -> both at half of it.

  Attributes:
    width: Channels of h that come in.
    out: That go out.
    arch: See `Discriminator`, as are the others.
  """

  width: int
  out: int
  arch: str
  clamp: float | None
  taps: Sequence[float]
  dtype: Any

  @nn.compact
  def __call__(self, h: Array | None, x: Array | None) -> tuple[Array, Array | None]:
    if h is not None:
      h = h.astype(self.dtype)
    if h is None or self.arch == "skip":
      x = x.astype(self.dtype)
      rgb = Conv(self.width, 1, clamp=self.clamp, name="fromrgb")(x)
      h = rgb if h is None else h + rgb
      x = fir.downsample(x, self.taps) if self.arch == "skip" else None
    before, gain = h, HALF if self.arch == "resnet" else 1.0
    h = Conv(self.width, clamp=self.clamp, name="conv0")(h)
    h = Conv(self.out, down=True, clamp=self.clamp, taps=self.taps, name="conv1")(h, gain)
    if self.arch == "resnet":
      h += Conv(self.out, 1, down=True, act=False, taps=self.taps, name="skip")(before, gain)
    return h, x


class Epilogue(nn.Module):
  """The last resolution: -> features [B, width], and `out` numbers, [B, out].

  In float32. The attributes are those of `Discriminator`.
  """

  width: int
  out: int
  arch: str
  group: int | None
  features: int
  clamp: float | None

  @nn.compact
  def __call__(self, h: Array | None, x: Array | None) -> tuple[Array, Array]:
    if h is not None:
      h = h.astype(jnp.float32)
    if self.arch == "skip":
      h += Conv(self.width, 1, name="fromrgb")(x.astype(jnp.float32))
    if self.features:
      h = jnp.concatenate([h, minibatch_stddev(h, self.group, self.features)], -1)
    h = Conv(self.width, clamp=self.clamp, name="conv")(h)
    h = jnp.moveaxis(h, -1, 1).reshape(len(h), -1)  # as PyTorch has it
    h = Dense(self.width, act=True, name="fc")(h)
    return h, Dense(self.out, name="out")(h)


def minibatch_stddev(x: Array, group: int | None, features: int = 1) -> Array:
  """How much examples of a group differ, [B, H, W, features].

  Standard deviation over the group, averaged over positions and channels of
  each feature (Karras et al. 2018, Sec. 3). A group is every n-th of the B
  examples: it is the same if a batch is split into every k-th example.
  """
  b, h, w, c = x.shape
  size = divisor(b, min(group or b, b))
  y = x.reshape(size, b // size, h, w, features, c // features)
  y = jnp.sqrt(jnp.var(y, 0) + 1e-8).mean((1, 2, 4))
  return jnp.tile(y[:, None, None], (size, h, w, 1))
