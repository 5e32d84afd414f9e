"""Denoising diffusion GANs: a GAN that undoes each of a few large steps of noise.

Xiao et al. 2022, "Tackling the generative learning trilemma with denoising
diffusion GANs". Where steps are large, q(x_t | x_{t+1}) is far from Gaussian: a
generator with a latent z guesses x_0, the guess becomes x_t by the posterior,
and a discriminator that sees x_{t+1}, too, compares it with the true x_t.
"""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.adversarial import penalties
from jaxgen.adversarial.diagnostics import overfitting
from jaxgen.adversarial.prior import truncated_normal
from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.diffusion.denoising_chain import DenoisingChain
from jaxgen.keys import fold, normal
from jaxgen.models.diffusion import count

INF = float("inf")


@dataclasses.dataclass(frozen=True)
class DenoisingGAN:
  """A generator that denoises in `chain.steps` steps, and its discriminator.

  Attributes:
    gen: (x_{t+1}, t [B], z [B, Z], y=) -> guess of x_0.
    disc: (x_t, t [B], x_{t+1}, y=) -> logits [B].
    chain: The noise.
    rule: () -> adversarial.losses.Rule; published: nonsaturating.
    gamma: Weight of R1, gamma / 2 |d D / d x_t|^2 at true pairs, x_{t+1} held.
    lazy: Batches from one R1 to the next. Unlike StyleGAN2's it is a part of
      that batch's loss, and not multiplied by the interval.
    z_dim: Length of z.
    classes: Number of labels that both nets take; 0 for none.
  """

  gen: nn.Module
  disc: nn.Module
  chain: DenoisingChain
  rule: Callable
  gamma: float = 0.05
  lazy: int = 15
  z_dim: int = 100
  classes: int = 0

  sampled = ("gen",)

  @property
  def players(self) -> Sequence[Player]:
    """Discriminator, generator; for each its own t, pair and z."""
    return Player("disc", "disc", self.disc_loss), Player("gen", "gen", self.gen_loss)

  @property
  def knobs(self) -> dict[str, float]:
    """`steps` of the chain that are run; `temperature` scales z, `truncation` bounds it."""
    return {"steps": self.chain.steps, "temperature": 1.0, "truncation": INF}

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    k_gen, k_disc = jax.random.split(key)
    x, y = batch["x"], self.conditions(batch)
    t = jnp.zeros(len(x), jnp.int32)
    gen = self.gen.init(k_gen, x, t, jnp.zeros((len(x), self.z_dim)), **y)
    disc = self.disc.init(k_disc, x, t, x, **y)
    return {"gen": gen["params"], "disc": disc["params"]}, {"gen": {}, "disc": {}}

  def disc_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """How badly true and made x_t are told apart, and now and then how steep D is."""
    t, x_t, x_next = self.true_pair(batch, fold(key, 0))
    fake, _ = self.fake_pair(state, batch, t, x_next, fold(key, 1))
    D = self.D(state, batch, t, x_next)
    # Two batches, not one: the minibatch's deviation compares.
    on_real, on_fake = D(x_t), D(fake)
    loss = self.rule().d_loss(on_real, on_fake)
    info = {"real": jnp.mean(on_real), "fake": jnp.mean(on_fake)}
    info["accuracy"] = jnp.mean(on_real[:, None] > on_fake)
    slope = lambda x_t: penalties.r1(D, x_t, x_t, key, self.gamma)
    if self.lazy > 1:  # a branch: no other update may come between D's
      due = state.step % self.lazy == 0
      loss += jax.lax.cond(due, slope, lambda x_t: jnp.float32(0), x_t)
    else:
      info["r1"] = slope(x_t)
      loss += info["r1"]
    return loss, (state.stats, info)

  def gen_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """How badly D is fooled."""
    t, _, x_next = self.true_pair(batch, fold(key, 0))
    fake, x_0 = self.fake_pair(state, batch, t, x_next, fold(key, 1))
    loss = self.rule().g_loss(self.D(state, batch, t, x_next)(fake))
    apart = lambda x: jnp.mean(jnp.abs(x - jnp.roll(x, 1, 0)))
    info = {"diversity": apart(x_0) / (apart(batch["x"]) + 1e-8)}
    return loss, (state.stats, info)

  def true_pair(self, batch: Batch, key: Key) -> tuple[Array, Array, Array]:
    """t [B], x_t and x_{t+1} of the data."""
    x_0, t = batch["x"], self.chain.draw_t(fold(key, 0))
    eps_next, eps = (normal(fold(key, i), x_0.shape[1:]) for i in (1, 2))
    return t, *self.chain.pair(x_0, t, eps, eps_next)

  def fake_pair(
    self, state: State, batch: Batch, t: Array, x_next: Array, key: Key
  ) -> tuple[Array, Array]:
    """x_t as the generator has it, and its guess of x_0."""
    z = normal(fold(key, 0), (self.z_dim,))
    x_0 = self.G(state, batch)(x_next, t, z)
    return self.chain.posterior(x_0, x_next, t, normal(fold(key, 1), x_0.shape[1:])), x_0

  def G(self, state: State, batch: Batch) -> Callable[[Array, Array, Array], Array]:
    """(x_{t+1}, t [B], z) -> guess of x_0."""
    y = self.conditions(batch)
    return lambda x_next, t, z: self.gen.apply(state.variables("gen"), x_next, t, z, **y)

  def D(self, state: State, batch: Batch, t: Array, x_next: Array) -> Callable[[Array], Array]:
    """x_t -> logits [B], of pairs with x_next."""
    y = self.conditions(batch)
    return lambda x_t: self.disc.apply(state.variables("disc"), x_t, t, x_next, **y)

  def sample(
    self,
    state: State,
    batch: Batch,
    key: Key,
    *,
    steps: Array | float | None = None,
    temperature: Array | float = 1.0,
    truncation: Array | float = INF,
  ) -> Array:
    """Keys [B] -> x, shaped and conditioned like `batch`.

    With fewer `steps` than the chain has: the guess of x_0 after so many, from
    the noisiest on. A batch with "noise" ~ N(0, 1) begins there.
    """
    T, shape = self.chain.steps, batch["x"].shape[1:]
    n = count(T if steps is None else steps, T)
    x_T = batch["noise"] if "noise" in batch else normal(fold(key, 0), shape)
    G = self.G(state, batch)

    def predict(x: Array, t: Array, i: Array) -> Array:
      z = truncated_normal(fold(key, 1 + 2 * i), self.z_dim, truncation)
      return G(x, jnp.broadcast_to(t, (len(x),)), temperature * z)

    return self.chain.run(predict, x_T, n, lambda i: normal(fold(key, 2 + 2 * i), shape))

  def nfe(self, **knobs) -> int:
    """Passes of the generator: the steps."""
    return min(max(int(knobs.get("steps", self.chain.steps)), 1), self.chain.steps)

  def conditions(self, batch: Batch) -> dict[str, Array]:
    """The label, where the nets take one."""
    return {"y": batch["y"]} if self.classes else {}

  def probe(self, state: State, batch: Batch, held: Batch, key: Key) -> Metrics:
    """Does D know its data by heart?

    Args:
      state: Of training: D's weights, and those of G to judge.
      batch: Of training data, [B]; floats, as losses see them.
      held: As many real examples that are not trained on.
      key: [B].

    Returns:
      What `overfitting` says of logits of pairs.
    """
    logits = []
    for data in (batch, held):
      t, x_t, x_next = self.true_pair(data, fold(key, 0))
      logits.append(self.D(state, data, t, x_next)(x_t))
    t, _, x_next = self.true_pair(batch, fold(key, 0))
    fake, _ = self.fake_pair(state, batch, t, x_next, fold(key, 1))
    return overfitting(*logits, self.D(state, batch, t, x_next)(fake))
