"""Plain convolutional nets: a VAE's codec, a classifier, and a GAN's pair.

The pair is after DCGAN (Radford et al. 2016), for any size 2^k.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.layers import GroupNorm, LabelEmbed, TimeRow, times, upsample
from jaxgen.nets.spectral import plain

Array = jax.Array


class Encoder(nn.Module):
  """Images [B, H, W, C] -> vectors [B, out]; halves down to 4 x 4."""

  width: int
  out: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, emb: Array | None = None) -> Array:
    h = nn.Conv(self.width, (3, 3), dtype=self.dtype)(x)
    width = self.width
    while True:
      h = nn.Conv(width, (3, 3), dtype=self.dtype)(nn.silu(GroupNorm()(h)))
      if h.shape[1] <= 4:
        break
      width = min(2 * width, 512)
      h = nn.Conv(width, (3, 3), strides=2, dtype=self.dtype)(h)
    h = nn.silu(GroupNorm()(h)).reshape(len(h), -1)
    if emb is not None:
      h = jnp.concatenate([h, emb], -1)
    h = nn.silu(nn.Dense(4 * self.width, dtype=self.dtype)(h))
    return nn.Dense(self.out)(h.astype(jnp.float32))


class Decoder(nn.Module):
  """Vectors [B, D] -> images [B, size, size, channels], unbounded."""

  size: int
  channels: int
  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Array) -> Array:
    levels = (self.size // 4).bit_length() - 1
    width = lambda i: min(self.width * 2**i, 512)
    h = nn.silu(nn.Dense(4 * self.width, dtype=self.dtype)(z))
    h = nn.Dense(16 * width(levels), dtype=self.dtype)(h)
    h = h.reshape(-1, 4, 4, width(levels))
    for i in reversed(range(levels)):
      h = nn.Conv(width(i), (3, 3), dtype=self.dtype)(upsample(nn.silu(GroupNorm()(h))))
    h = nn.Conv(self.width, (3, 3), dtype=self.dtype)(nn.silu(GroupNorm()(h)))
    h = nn.silu(GroupNorm()(h)).astype(jnp.float32)
    return nn.Conv(self.channels, (3, 3))(h)


class Codec(nn.Module):
  """Encoder and decoder of a VAE: images [B, size, size, C] <-> z [B, Z]."""

  size: int = 32
  channels: int = 3
  z_dim: int = 64
  width: int = 64
  classes: int = 0
  dtype: Any = jnp.float32

  def setup(self):
    self.encoder = Encoder(self.width, 2 * self.z_dim, self.dtype)
    self.decoder = Decoder(self.size, self.channels, self.width, self.dtype)
    self.label = nn.Embed(self.classes, 32) if self.classes else None

  def encode(self, x: Array, y: Array | None = None) -> tuple[Array, Array]:
    """Means and log variances of q(z | x, y), each [B, Z]."""
    emb = self.label(y) if self.classes else None
    return tuple(jnp.split(self.encoder(x, emb), 2, -1))

  def decode(self, z: Array, y: Array | None = None) -> Array:
    """Mean of p(x | z, y), [B, size, size, C]."""
    if self.classes:
      z = jnp.concatenate([z, self.label(y)], -1)
    return self.decoder(z)

  def __call__(self, x: Array, y: Array | None = None) -> Array:
    """The mean's reconstruction."""
    return self.decode(self.encode(x, y)[0], y)


class Classifier(nn.Module):
  """Images [B, H, W, C] -> logits [B, classes]; `features` [B, D] on the way.

  Attributes:
    width: Channels of the first convolution.
    features: Length of the last hidden layer, which judges compare.
    classes: Number of labels.
  """

  width: int = 32
  features: int = 64
  classes: int = 10

  def setup(self):
    self.encoder = Encoder(self.width, self.features)
    self.head = nn.Dense(self.classes)

  def embed(self, x: Array) -> Array:
    """Features [B, D], before the last linear layer."""
    return nn.silu(self.encoder(x))

  def __call__(self, x: Array, key: Array | None = None) -> Array:
    """Logits [B, classes]."""
    del key
    return self.head(self.embed(x))


def maps(net: Classifier, params: Any, x: Array) -> list[Array]:
  """What every norm of a classifier hands on: [B, h, w, C], the largest first.

  From the images' own size down to 4 x 4; perceptual distances compare them.
  """
  _, state = net.apply(
    {"params": params},
    x,
    method="embed",
    mutable=["intermediates"],
    capture_intermediates=lambda module, _: isinstance(module, GroupNorm),
  )
  norms = state["intermediates"]["encoder"]
  order = sorted(norms, key=lambda name: int(name.rpartition("_")[2]))
  return [nn.silu(norms[name]["__call__"][0]) for name in order]


@dataclasses.dataclass(frozen=True)
class JudgeLayers:
  """A judge's perceptual distance as a part of a loss, like `lpips.LPIPS`.

  Where a user has no weights of LPIPS: its layers are those of a classifier that
  was trained here, see configs/judge.py. Nobody has weighed their channels.

  Attributes:
    net: The classifier, as it was trained. Its parameters are the weights.
    weight: Of the distance: of each layer it is between 0 and 4 of them.
  """

  net: Classifier
  weight: float = 1.0

  name = "perceptual@judge"  # of its metric

  def init(self, x: Array) -> dict[str, Any]:
    """Zeros in the shapes of its weights for images like x."""
    shapes = jax.eval_shape(self.net.init, jax.random.key(0), x)["params"]
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

  def features(self, params: Any, x: Array) -> list[Array]:
    """Images [B, H, W, C] in [-1, 1] -> [B, h, w, C'] of every layer."""
    return maps(self.net, params, x)

  def linear(self, params: Any) -> list[Array]:
    """The weight of every channel, [C'] for every layer."""
    encoder = params["encoder"]
    norms = [f"GroupNorm_{i}" for i in range(sum(name.startswith("GroupNorm") for name in encoder))]
    return [jnp.full_like(encoder[name]["scale"], self.weight) for name in norms]


NORMAL = nn.initializers.normal(0.02)  # Radford et al. 2016, Sec. 4


class BatchNorm(nn.Module):
  """Over the global batch in training, running averages when sampling."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    moving = self.is_mutable_collection("batch_stats")
    y = nn.BatchNorm(use_running_average=not moving, momentum=0.95, dtype=jnp.float32)(
      x.astype(jnp.float32)
    )
    return y.astype(x.dtype)


class Generator(nn.Module):
  """z [B, Z], labels -> images [B, size, size, channels] in [-1, 1].

  Attributes:
    size: Height and width, 4 * 2^k.
    channels: Of the image.
    width: Channels at full size; they double with every halving, up to 512.
    classes: Number of labels; 0 means unconditional.
    dtype: Of the computation.
  """

  size: int = 32
  channels: int = 3
  width: int = 64
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Array, y: Array | None = None) -> Array:
    conv = lambda n: nn.Conv(n, (3, 3), dtype=self.dtype, kernel_init=NORMAL)
    levels = (self.size // 4).bit_length() - 1
    width = lambda i: min(self.width * 2**i, 512)
    if self.classes:
      row = LabelEmbed(self.classes, 64, name="Embed_0")(y)
      z = jnp.concatenate([z, row], -1)
    h = nn.Dense(16 * width(levels), dtype=self.dtype, kernel_init=NORMAL)(z)
    h = h.reshape(-1, 4, 4, width(levels))
    h = nn.relu(BatchNorm()(h))
    for i in reversed(range(levels)):
      h = nn.relu(BatchNorm()(conv(width(i))(upsample(h))))
    h = nn.relu(BatchNorm()(conv(self.width)(h)))
    return jnp.tanh(conv(self.channels)(h).astype(jnp.float32))


class Discriminator(nn.Module):
  """Images [B, H, W, C], labels, times t [B] -> logits [B].

  Labels enter by projection (Miyato & Koyama 2018, Eq. 5), and so do times.

  Attributes:
    width: Channels at full size; they double with every halving, up to 512.
    classes: Number of labels; 0 means unconditional.
    norm: What wraps every layer: `nets.spectral.spectral` or `plain`.
    dtype: Of the computation.
    timed: Takes times.
  """

  width: int = 64
  classes: int = 0
  norm: Callable[[nn.Module], nn.Module] = plain
  dtype: Any = jnp.float32
  timed: bool = False

  @nn.compact
  def __call__(self, x: Array, y: Array | None = None, t: Array | None = None) -> Array:
    def conv(n, **kw):
      return self.norm(nn.Conv(n, (3, 3), dtype=self.dtype, **kw))

    h = nn.leaky_relu(conv(self.width)(x), 0.2)
    levels = (x.shape[1] // 4).bit_length() - 1
    for i in range(levels):
      h = nn.leaky_relu(conv(min(self.width * 2**i, 512))(h), 0.2)
      h = nn.leaky_relu(conv(min(self.width * 2 ** (i + 1), 512), strides=2)(h), 0.2)
    h = h.reshape(len(h), -1).astype(jnp.float32)
    h = nn.leaky_relu(self.norm(nn.Dense(4 * self.width))(h), 0.2)
    logit = self.norm(nn.Dense(1))(h)[:, 0]
    if self.classes:
      row = LabelEmbed(self.classes, h.shape[-1], name="Embed_0")(y)
      logit += jnp.sum(row * h, -1) / jnp.sqrt(h.shape[-1])
    if self.timed:
      row = TimeRow(h.shape[-1], name="time")(times(t, x))
      logit += jnp.sum(row * h, -1) / jnp.sqrt(h.shape[-1])
    return logit
