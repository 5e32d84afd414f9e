"""f-AnoGAN's encoder: where in a trained GAN's latent space an image lies.

Schlegl et al. 2019. A GAN that learned what is normal makes nothing else: what
its nearest image lacks of an image is strange. AnoGAN looks for the latent by
gradient descent, f-AnoGAN learns the way there, by a game of one player over
generator and discriminator that stay as they are.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State, trait
from jaxgen.errors import UserError
from jaxgen.keys import example_keys
from jaxgen.models.gan import GAN, noise_keys


@dataclasses.dataclass(frozen=True)
class AnoGANEncoder:
  """Learns E so that G(E(x)) is x, to the eye and to D: "izi" with features.

  Attributes:
    net: x -> z [B, Z].
    gan: What was trained on normal images, without labels. Its generator and
      discriminator are frozen groups, and see running statistics alone.
    gan_workdir: Where it was trained; both are read there before the first step.
    kappa: Weight of the features (Schlegl et al. 2019, Eq. 4).
  """

  net: nn.Module
  gan: GAN
  gan_workdir: str = ""
  kappa: float = 1.0

  sampled = ("net", "gen", "disc")

  def __post_init__(self):
    if self.gan.classes:
      raise UserError(
        "config.model.gan.classes: an encoder knows no labels, so train the GAN without them "
        "(--config.data.classes=0)"
      )

  @property
  def players(self) -> Sequence[Player]:
    """One: the encoder."""
    return (Player("net", "net", self.loss),)

  @property
  def knobs(self) -> dict[str, float]:
    """Those of the GAN, which makes the samples."""
    return self.gan.knobs

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats. The GAN is as before its own training."""
    k_net, k_gan = jax.random.split(key)
    variables = dict(self.net.init(k_net, batch["x"]))
    params, stats = self.gan.init(batch, k_gan)
    own = {g: stats[g] for g in ("gen", "disc")}
    return params | {"net": variables.pop("params")}, own | {"net": variables}

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """Mean squares of pixels' errors, and kappa times those of features."""
    x = batch["x"]
    again = generated(self.gan, state, self.encode(state, x), key)
    pixels, features = errors(critic(self.gan, state), x, again, jnp.square)
    loss = jnp.mean(pixels + self.kappa * features)
    return loss, (state.stats, {"pixels": jnp.mean(pixels), "features": jnp.mean(features)})

  def encode(self, state: State, x: Array, key: Key | None = None, y: Array | None = None) -> Array:
    """x -> z [B, Z]."""
    del key, y
    return self.net.apply(state.variables("net"), x)

  def decode(self, state: State, z: Array, y: Array | None = None) -> Array:
    """z [B, Z] -> G(z); where G also draws noise, always the same."""
    del y
    return generated(self.gan, state, z)

  def sample(self, state: State, batch: Batch, key: Key, **knobs: Array | float) -> Array:
    """Keys [B] -> x: the GAN's own samples, shaped like `batch`."""
    return self.gan.sample(state, batch, key, **knobs)

  def nfe(self, **knobs) -> int:
    """One pass of the generator."""
    return self.gan.nfe(**knobs)


def generated(
  gan: GAN, state: State, z: Array, key: Key | None = None, y: Array | None = None
) -> Array:
  """G(z) as it samples: no statistics move. Without keys [B] its noise is fixed."""
  key = example_keys(jax.random.key(0), len(z)) if key is None else key
  kw = gan.conditions({"y": y}) | noise_keys(gan.gen, key)
  return gan.gen.apply(state.variables("gen"), z, **kw)


def critic(gan: GAN, state: State, y: Array | None = None) -> Callable[[Array], Array]:
  """x -> what the discriminator's last layer reads, [B, D]: its features."""
  variables, kw = state.variables("disc"), gan.conditions({"y": y})
  if trait(gan.disc, "embed"):
    return lambda x: gan.disc.apply(variables, x, method="embed", **kw)
  return functools.partial(_last_hidden, gan.disc, variables, kw)


def _last_hidden(disc: nn.Module, variables: Groups, kw: Groups, x: Array) -> Array:
  """What the last dense layer of one number reads, of a net without `embed`."""
  read = []

  def look(call, args, kwargs, context):
    if isinstance(context.module, nn.Dense) and context.module.features == 1:
      read.append(args[0])
    return call(*args, **kwargs)

  with nn.intercept_methods(look):
    disc.apply(variables, x, **kw)
  if not read:
    raise UserError(f"a {type(disc).__name__} has no features that could be compared")
  return read[-1].reshape(len(x), -1)


def errors(
  features: Callable[[Array], Array], x: Array, again: Array, error: Callable[[Array], Array]
) -> tuple[Array, Array]:
  """Mean errors of pixels and of features, [B] each: both compared entry by entry."""
  mean = lambda gap: jnp.mean(error(gap), range(1, gap.ndim))
  return mean(again - x), mean(features(again) - features(x))
