"""VAE (Kingma & Welling 2014). Its net is also a codec for latent models."""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.keys import fold, normal


@dataclasses.dataclass(frozen=True)
class VAE:
  """p(x | z) = N(decode(z), sigma^2), p(z) = N(0, 1).

  Attributes:
    net: Methods encode(x, y) -> mean, logvar [B, Z]; decode(z, y) -> x.
    beta: Weight of the KL term (Higgins et al. 2017, Eq. 4).
    sigma: Standard deviation of the decoder, in units of x.
    classes: Number of labels that the net takes; 0 for none.
  """

  net: nn.Module
  beta: float = 1.0
  sigma: float = 0.3
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
    return {"net": variables.pop("params")}, {"net": variables}

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """The negative evidence bound in nats, up to a constant (Eq. 10)."""
    x, conditions = batch["x"], self.conditions(batch)
    net = lambda *a, **kw: self.net.apply(state.variables("net"), *a, **conditions, **kw)
    mean, logvar = net(x, method="encode")
    z = mean + jnp.exp(logvar / 2) * normal(key, mean.shape[1:])
    x_hat = net(z, method="decode")
    recon = jnp.sum((x_hat - x) ** 2) / (2 * self.sigma**2 * len(x))
    kl = jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar) / (2 * len(x))
    return recon + self.beta * kl, (state.stats, {"recon": recon, "kl": kl})

  def sample(
    self,
    state: State,
    batch: Batch,
    key: Key,
    *,
    temperature: Array | float = 1.0,
    noise: Array | float = 0.0,
  ) -> Array:
    """Keys [B] -> x, shaped and conditioned like `batch`."""
    z = temperature * normal(fold(key, 0), (self.net.z_dim,))
    x = self.net.apply(state.variables("net"), z, **self.conditions(batch), method="decode")
    return x + noise * self.sigma * normal(fold(key, 1), x.shape[1:])

  def nfe(self, **knobs) -> int:
    """One pass of the decoder."""
    del knobs
    return 1

  def conditions(self, batch: Batch) -> dict[str, Array]:
    """The label, where the net takes one."""
    return {"y": batch["y"]} if self.classes else {}
