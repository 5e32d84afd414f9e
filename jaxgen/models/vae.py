"""VAE (Kingma & Welling 2014). Its net is also a codec for latent models."""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.keys import fold, normal

# Of a sigma that follows the data: where it begins (about as far as images are
# spread), how far it goes to the error of a batch, and the least: half a step of
# bytes, in which no likelihood of bytes means anything.
FIRST, PACE, LEAST = 0.5, 0.1, 0.5 / 127.5


@dataclasses.dataclass(frozen=True)
class VAE:
  """p(x | z) = N(decode(z), sigma^2), p(z) = N(0, 1).

  Attributes:
    net: Methods encode(x, y) -> mean, logvar [B, Z]; decode(z, y) -> x.
    beta: Weight of the KL term (Higgins et al. 2017, Eq. 4).
    sigma: Standard deviation of the decoder, in units of x. None: it follows
      the data, as the root of the mean squared error of late, where the bound
      is best (Rybkin et al. 2021, "optimal sigma-VAE").
    classes: Number of labels that the net takes; 0 for none.
  """

  net: nn.Module
  beta: float = 1.0
  sigma: float | None = 0.3
  classes: int = 0

  sampled = ("net",)

  @property
  def players(self) -> Sequence[Player]:
    """One: encoder and decoder together."""
    return (Player("net", "net", self.loss),)

  @property
  def knobs(self) -> dict[str, float]:
    """`temperature` scales z; `noise` how much of sigma is added to means."""
    return {"temperature": 1.0, "noise": 0.0}

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    variables = dict(self.net.init(key, batch["x"], **self.conditions(batch)))
    params, stats = {"net": variables.pop("params")}, {"net": variables}
    if self.sigma is None:
      stats["net"] |= {"decoder": begin()}
    return params, stats

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """The negative evidence bound in nats, up to a constant (Eq. 10)."""
    x, conditions = batch["x"], self.conditions(batch)
    net = lambda *a, **kw: self.net.apply(state.variables("net"), *a, **conditions, **kw)
    mean, logvar = net(x, method="encode")
    z = mean + jnp.exp(logvar / 2) * normal(key, mean.shape[1:])
    x_hat = net(z, method="decode")
    sigma, stats = self.sigma, state.stats
    if follows := sigma is None:
      decoder = catch_up(stats["net"]["decoder"], state.step)
      sigma = root(decoder)
    recon = jnp.sum((x_hat - x) ** 2) / (2 * sigma**2 * len(x))
    kl = jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar) / (2 * len(x))
    loss, info = recon + self.beta * kl, {"recon": recon, "kl": kl}
    if follows:
      loss, info["sigma"] = loss + x[0].size * jnp.log(sigma), sigma
      stats = stats | {"net": stats["net"] | {"decoder": remember(decoder, x_hat - x)}}
    return loss, (stats, info)

  def scale(self, state: State) -> Array | float:
    """Sigma, fixed or as it is by now."""
    return root(state.stats["net"]["decoder"]) if self.sigma is None else self.sigma

  def sample(
    self,
    state: State,
    batch: Batch,
    key: Key,
    *,
    temperature: Array | float = 1.0,
    noise: Array | float = 0.0,
  ) -> Array:
    """Keys [B] -> x, shaped and conditioned like `batch`.

    A batch with "noise" [B, Z] ~ N(0, 1) has it in the place of z's.
    """
    own = "noise" in batch
    z = temperature * (batch["noise"] if own else normal(fold(key, 0), (self.net.z_dim,)))
    x = self.decode(state, z, batch.get("y"))
    return x + noise * self.scale(state) * normal(fold(key, 1), x.shape[1:])

  def encode(self, state: State, x: Array, key: Key | None = None, y: Array | None = None) -> Array:
    """x -> z [B, Z]: q's mean, or with keys [B] a sample of q."""
    mean, std = self.moments(state, x, y)
    return mean if key is None else mean + std * normal(key, mean.shape[1:])

  def moments(self, state: State, x: Array, y: Array | None = None) -> tuple[Array, Array]:
    """x -> mean and standard deviation of q(z | x), [B, Z] each."""
    y = self.conditions({"y": y})
    mean, logvar = self.net.apply(state.variables("net"), x, **y, method="encode")
    return mean, jnp.exp(logvar / 2)

  def decode(self, state: State, z: Array, y: Array | None = None) -> Array:
    """z [B, Z] -> mean of p(x | z)."""
    y = self.conditions({"y": y})
    return self.net.apply(state.variables("net"), z, **y, method="decode")

  def nfe(self, **knobs) -> int:
    """One pass of the decoder."""
    del knobs
    return 1

  def conditions(self, batch: Batch) -> dict[str, Array]:
    """The label, where the net takes one."""
    return {"y": batch["y"]} if self.classes else {}


def begin() -> Groups:
  """What a sigma that follows remembers: its square, and errors since; all []."""
  zero = jnp.float32(0)
  return {"square": zero + FIRST**2, "errors": zero, "seen": zero, "step": jnp.int32(0)}


def root(decoder: Groups) -> Array:
  """Sigma, []."""
  return jnp.sqrt(jnp.maximum(decoder["square"], LEAST**2))


def catch_up(decoder: Groups, step: Array) -> Groups:
  """The same where the step is the last one's, else moved by its errors.

  So all parts of a batch that is differentiated in parts have one sigma.
  """
  error = decoder["errors"] / jnp.maximum(decoder["seen"], 1)
  square = decoder["square"] + PACE * (error - decoder["square"])
  new = (step != decoder["step"]) & (decoder["seen"] > 0)
  fresh = begin() | {"square": square, "step": step}
  return jax.tree.map(lambda a, b: jnp.where(new, a, b), fresh, decoder | {"step": step})


def remember(decoder: Groups, error: Array) -> Groups:
  """Adds one batch's error of reconstructions, or that of a part of it."""
  square = jax.lax.stop_gradient(jnp.mean(error**2))
  return decoder | {"errors": decoder["errors"] + square, "seen": decoder["seen"] + 1}
