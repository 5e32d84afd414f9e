"""Latent diffusion's autoencoders (Rombach et al. 2022, Sec. 3.1, App. G.1).

One game of two players for both kinds of latents, Gaussian and quantised.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.adversarial.losses import hinge
from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.keys import normal
from jaxgen.metrics.perceptual_distance import distance
from jaxgen.models import codebook

Net = Callable[..., Any]  # a net's `apply`, with its weights
MOST = 1e4  # weight of the adversarial term, at most


@dataclasses.dataclass(frozen=True)
class KL:
  """Latents z ~ q(z | x), held near N(0, 1).

  Attributes:
    weight: Of the divergence, in nats for each image.
  """

  weight: float = 1e-6
  mean = False  # what is said of pixels is summed over an image
  knobs = {"temperature": 1.0}

  def train(self, net: Net, x: Array, key: Key) -> tuple[Array, Array, Metrics]:
    """Images, keys [B] -> a sample of q, its part of the loss, metrics."""
    mean, logvar = net(x, method="encode")
    kl = jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar) / (2 * len(x))
    return spread(mean, logvar, key), self.weight * kl, {"kl": kl}

  def encode(self, net: Net, x: Array, key: Key | None) -> Array:
    """The mean, or with keys [B] a sample."""
    mean, logvar = net(x, method="encode")
    return mean if key is None else spread(mean, logvar, key)

  def moments(self, net: Net, x: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of q(z | x)."""
    mean, logvar = net(x, method="encode")
    return mean, jnp.exp(logvar / 2)

  def decodable(self, net: Net, z: Array) -> Array:
    """z as the decoder reads it."""
    del net
    return z

  def occupancy(self, net: Net, z: Array) -> dict[str, Array]:
    """There are no codes."""
    del net, z
    return {}

  def draw(
    self, net: Net, key: Key, shape: tuple[int, ...], temperature: Array | float = 1.0
  ) -> Array:
    """Keys [B] -> z ~ N(0, temperature^2), [B, *shape]."""
    del net
    return temperature * normal(key, shape)


@dataclasses.dataclass(frozen=True)
class VQ:
  """Latents of which the decoder sees the nearest codes.

  The codes are weights of the net. A model of latents learns z before that
  (Rombach et al. 2022, App. D.1), and its samples are quantised in `decode`.

  Attributes:
    weight: Of codes to latents and of latents to codes together.
    beta: Of codes to latents, in it. As the published code has it: the paper
      of van den Oord et al. 2017, Eq. 3, has it on the other one.
  """

  weight: float = 1.0
  beta: float = 0.25
  mean = True  # over pixels, of what is said of them
  knobs = {}
  moments = None  # z is not drawn

  def train(self, net: Net, x: Array, key: Key) -> tuple[Array, Array, Metrics]:
    """Images -> codes with the gradient of z, the loss of codes, metrics."""
    del key
    z, codes = net(x, method="encode"), net(method="table")
    index = codebook.nearest(z, codes)
    code, fixed = codes[index], jax.lax.stop_gradient
    loss = jnp.mean((fixed(code) - z) ** 2) + self.beta * jnp.mean((code - fixed(z)) ** 2)
    use = codebook.use(codebook.occupancy(index, len(codes)))
    return codebook.straight_through(z, code), self.weight * loss, {"codes": loss} | use

  def encode(self, net: Net, x: Array, key: Key | None) -> Array:
    """z before it is quantised."""
    del key
    return net(x, method="encode")

  def decodable(self, net: Net, z: Array) -> Array:
    """The nearest codes."""
    codes = net(method="table")
    return codes[codebook.nearest(z, codes)]

  def occupancy(self, net: Net, z: Array) -> dict[str, Array]:
    """How often each code is the nearest, {"codes": [K]}."""
    codes = net(method="table")
    return {"codes": codebook.occupancy(codebook.nearest(z, codes), len(codes))}

  def draw(self, net: Net, key: Key, shape: tuple[int, ...]) -> Array:
    """Keys [B] -> codes [B, *shape], each drawn alone, all alike probable."""
    codes = net(method="table")
    return codes[codebook.prior(key, shape[:-1], jnp.ones(len(codes)))]


def spread(mean: Array, logvar: Array, key: Key) -> Array:
  """A sample of N(mean, exp(logvar)), keys [B]."""
  return mean + jnp.exp(logvar / 2) * normal(key, mean.shape[1:])


@dataclasses.dataclass(frozen=True)
class Autoencoder:
  """An autoencoder that a discriminator of patches keeps sharp.

  L = |x - x'| + d(x, x') + w G(x') + the latents' part, where G = -mean
  D(x') and w = |dL_rec| / |dG| at the decoder's last layer, times `disc_weight`
  (Esser et al. 2021, Eqs. 6 and 7). Both w G and the discriminator's hinge loss
  count nothing before step `start`; w is logged from the first. Where a batch is
  differentiated in parts, w and the discriminator's batch norm are of each part.

  Attributes:
    net: `nets.autoencoder.KLNet` or VQNet.
    latents: KL or VQ, as the net.
    disc: x -> logits of patches, [B, h, w]; None: no second player.
    perceptual: What makes d, whose weights are a frozen group, read before the
      first step: `nets.lpips.LPIPS`, of the user's files, or, where there are
      none, `nets.convs.JudgeLayers`, of a workdir; None: pixels alone.
    disc_weight: Of the adversarial term, beside w's ratio.
    start: The step, of batches, at which the discriminator begins.
    logvar: ln of the variance by which |x - x'| is divided, where pixels are
      summed. It is a parameter of the published code, but in no optimiser.
    judge_workdir: Where the classifier of JudgeLayers was trained.
  """

  net: nn.Module
  latents: Any
  disc: nn.Module | None = None
  perceptual: Any = None
  disc_weight: float = 0.5
  start: int = 50_001
  logvar: float = 0.0
  judge_workdir: str = ""

  sampled = ("net",)
  wants_prior = True

  @property
  def players(self) -> Sequence[Player]:
    """The autoencoder, then the discriminator on what it makes by now."""
    disc = Player("disc", "disc", self.disc_loss)
    return (Player("net", "net", self.net_loss), *([disc] if self.disc else ()))

  @property
  def knobs(self) -> dict[str, float]:
    """`temperature` scales z, where z is a Gaussian's."""
    return self.latents.knobs

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats. Perceptual weights are zeros for now."""
    k_net, k_disc = jax.random.split(key)
    params = {"net": self.net.init(k_net, batch["x"])["params"]}
    if self.disc:
      params["disc"] = self.disc.init(k_disc, batch["x"])["params"]
    if self.perceptual:
      params["perceptual"] = self.perceptual.init(batch["x"])
    return params, {}

  def net_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """How far reconstructions are from images, in all three ways."""
    x, net = batch["x"], self.of(state)
    z, penalty, info = self.latents.train(net, x, key)
    h = net(z, method="features")
    x_hat = net(h, method="head")
    fixed = jax.lax.stop_gradient
    value, slope, judged = self.judge(state, x, *fixed((x_hat, h)))
    # The slopes at x_hat are there already: nothing else of `judge` is
    # differentiated again. The difference is zero.
    loss = value + jnp.sum(slope * (x_hat - fixed(x_hat))) + penalty
    return loss, (state.stats, info | judged)

  def judge(self, state: State, x: Array, x_hat: Array, h: Array) -> tuple[Array, Array, Metrics]:
    """Of reconstructions x_hat = head(h): loss [], its slope at x_hat, metrics."""
    state = jax.lax.stop_gradient(state)
    (rec, info), slope = jax.value_and_grad(self.reconstruction, 2, has_aux=True)(state, x, x_hat)
    if not self.disc:
      return rec, slope, info
    fool = lambda x_hat: hinge().g_loss(self.D(state, x_hat))
    G, slope_of_G = jax.value_and_grad(fool)(x_hat)
    weight = self.disc_weight * self.ratio(state, h, slope, slope_of_G)
    w = self.is_on(state) * weight
    return rec + w * G, slope + w * slope_of_G, info | {"fool": G, "disc_weight": weight}

  def reconstruction(self, state: State, x: Array, x_hat: Array) -> tuple[Array, Metrics]:
    """|x - x'| + d, a sum over an image's pixels, or a mean; and metrics."""
    pixels = jnp.mean(jnp.abs(x - x_hat))
    info, rec = {"l1": pixels}, pixels
    if self.perceptual:
      looks = info[self.perceptual.name] = jnp.mean(self.look(state, x, x_hat))
      rec += looks
    if not self.latents.mean:
      rec = x[0].size * (rec / jnp.exp(self.logvar) + self.logvar)
    return rec, info | {"rec": rec}

  def look(self, state: State, x: Array, x_hat: Array) -> Array:
    """Perceptual distances, [B]."""
    params = state.params["perceptual"]
    seen = (self.perceptual.features(params, i) for i in (x, x_hat))
    return distance(*seen, self.perceptual.linear(params))

  def ratio(self, state: State, h: Array, *slopes: Array) -> Array:
    """|dL_rec| / |dG| at the decoder's last kernel, by their slopes at its output."""
    rest = dict(state.params["net"])
    last = rest.pop("last")
    head = lambda w: self.net.apply(
      {"params": rest | {"last": last | {"kernel": w}}}, h, method="head"
    )
    _, pull = jax.vjp(head, last["kernel"])
    rec, fool = (jnp.sqrt(jnp.sum(pull(slope)[0] ** 2)) for slope in slopes)
    return jnp.clip(rec / (fool + 1e-4), 0.0, MOST)

  def disc_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """How badly real and reconstructed patches are told apart."""
    x, net = batch["x"], self.of(state)
    z, _, _ = self.latents.train(net, x, key)
    x_hat = jax.lax.stop_gradient(net(z, method="decode"))
    real, fake = self.D(state, x), self.D(state, x_hat)  # batch norm: apart
    loss = self.is_on(state) * hinge().d_loss(real, fake) / 2
    info = {"real": jnp.mean(real), "fake": jnp.mean(fake), "accuracy": jnp.mean(real > fake)}
    return loss, (state.stats, info)

  def is_on(self, state: State) -> Array:
    """1.0 if the discriminator has begun, else 0.0."""
    return jnp.where(state.step >= self.start, 1.0, 0.0)

  def D(self, state: State, x: Array) -> Array:
    """Logits of patches, [B, h, w]."""
    return self.disc.apply(state.variables("disc"), x)

  def of(self, state: State) -> Net:
    """The net with its weights: (*args, method=) -> its answer."""
    return lambda *args, method: self.net.apply(state.variables("net"), *args, method=method)

  def encode(self, state: State, x: Array, key: Key | None = None, y: Array | None = None) -> Array:
    """Images -> z [B, H / f, W / f, dim], see the latents; no label is read."""
    del y
    return self.latents.encode(self.of(state), x, key)

  @property
  def moments(self) -> Callable | None:
    """f(state, x, y) -> mean and standard deviation of q(z | x), if it is a Gaussian."""
    if self.latents.moments is None:
      return None
    return lambda state, x, y=None: self.latents.moments(self.of(state), x)

  def decode(self, state: State, z: Array, y: Array | None = None) -> Array:
    """z -> images, by the nearest codes where there are codes."""
    del y
    net = self.of(state)
    return net(self.latents.decodable(net, z), method="decode")

  def occupancy(self, state: State, z: Array) -> dict[str, Array]:
    """How often latents choose each code, where there are codes: {name: [K]}."""
    return self.latents.occupancy(self.of(state), z)

  def sample(self, state: State, batch: Batch, key: Key, **knobs: Array | float) -> Array:
    """Keys [B] -> x, of latents that are drawn one by one.

    Images want a model of latents: what q(z | x) has of N(0, 1) is little. Where z
    is a Gaussian's, "noise" of the batch, shaped like it, takes its place.
    """
    height, width = (n // self.net.factor for n in batch["x"].shape[1:3])
    net = self.of(state)
    if "noise" in batch:
      z = knobs.get("temperature", 1.0) * batch["noise"]
    else:
      z = self.latents.draw(net, key, (height, width, self.net.dim), **knobs)
    return net(z, method="decode")

  def nfe(self, **knobs) -> int:
    """One pass of the decoder."""
    del knobs
    return 1
