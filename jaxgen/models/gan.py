"""GANs: DCGAN, WGAN-GP, SNGAN, BigGAN: other nets, rules and penalties."""
import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import (
    Array,
    Batch,
    Groups,
    Key,
    Metrics,
    Player,
    State,
    fold,
    normal,
)


@dataclasses.dataclass(frozen=True)
class GAN:
  """A generator and a discriminator against each other.

  Attributes:
    gen: (z [B, Z], y=) -> x.
    disc: (x, y=) -> logits [B].
    rule: () -> (d_loss(real, fake), g_loss(fake)).
    penalty: (D, real, fake, key) -> [], added to the discriminator's loss.
    penalty_every: 1: in every loss. k > 1: a move of its own on every k-th
      batch, weighted by k (lazy regularisation: Karras et al. 2020, Sec. 3.1).
    gen_every: Batches per move of the generator (n_critic).
    z_dim: Length of z.
    classes: Number of labels that both nets take; 0 for none.
  """
  gen: nn.Module
  disc: nn.Module
  rule: Callable
  penalty: Callable | None = None
  penalty_every: int = 1
  gen_every: int = 1
  z_dim: int = 128
  classes: int = 0

  sampled = ("gen",)

  @property
  def players(self) -> Sequence[Player]:
    """Discriminator, its lazy penalty if it has one, generator."""
    lazy = (Player("penalty", "disc", self.penalty_loss, self.penalty_every),)
    return (Player("disc", "disc", self.disc_loss),
            *(lazy if self.penalty and self.penalty_every > 1 else ()),
            Player("gen", "gen", self.gen_loss, self.gen_every))

  @property
  def knobs(self) -> dict[str, float]:
    """`temperature` scales z."""
    return {"temperature": 1.}

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    k_gen, k_disc = jax.random.split(key)
    x, y = batch["x"], self.given(batch)
    gen = dict(self.gen.init(k_gen, jnp.zeros((len(x), self.z_dim)), **y))
    disc = dict(self.disc.init(k_disc, x, **y))
    params = {"gen": gen.pop("params"), "disc": disc.pop("params")}
    return params, {"gen": gen, "disc": disc}

  def disc_loss(self, state: State, batch: Batch, key: Key
                ) -> tuple[Array, tuple[Groups, Metrics]]:
    """How badly real and fake are told apart, and how steep D is."""
    real, y = batch["x"], self.given(batch)
    fake, _ = self.generate(state, batch, fold(key, 0))
    both = jnp.concatenate([real, fake])
    logits, stats = train(
        self.disc, state, "disc", both,
        **jax.tree.map(lambda y: jnp.concatenate([y, y]), y))
    on_real, on_fake = jnp.split(logits, 2)
    loss, info = self.rule().d_loss(on_real, on_fake), {}
    if self.penalty and self.penalty_every == 1:
      info["penalty"] = self.slope_penalty(state, batch, fake, key)
      loss += info["penalty"]
    # Share of pairs ranked rightly: 1/2 cannot tell, 1 is saturated. Unlike
    # the sign of a logit it means the same under every rule.
    info["accuracy"] = jnp.mean(on_real[:, None] > on_fake)
    return loss, (stats, info)

  def penalty_loss(self, state: State, batch: Batch, key: Key
                   ) -> tuple[Array, tuple[Groups, Metrics]]:
    """The penalty as a move of its own."""
    fake, _ = self.generate(state, batch, fold(key, 0))
    loss = self.slope_penalty(state, batch, fake, key)
    return self.penalty_every * loss, (state.stats, {})

  def slope_penalty(self, state: State, batch: Batch, fake: Array, key: Key
                    ) -> Array:
    """The configured penalty, with running statistics held fixed."""
    D = lambda x: self.disc.apply(
        state.variables("disc"), x, **self.given(batch))
    return self.penalty(D, batch["x"], fake, fold(key, 1))

  def gen_loss(self, state: State, batch: Batch, key: Key
               ) -> tuple[Array, tuple[Groups, Metrics]]:
    """How badly D is fooled."""
    fake, stats = self.generate(state, batch, fold(key, 0))
    logits = self.disc.apply(
        state.variables("disc"), fake, **self.given(batch))
    spread = lambda x: jnp.mean(jnp.abs(x - jnp.roll(x, 1, 0)))
    diversity = spread(fake) / (spread(batch["x"]) + 1e-8)
    return self.rule().g_loss(logits), (stats, {"diversity": diversity})

  def generate(self, state: State, batch: Batch, key: Key
               ) -> tuple[Array, Groups]:
    """Fakes as in training: norms see this batch. -> x, stats."""
    z = normal(key, (self.z_dim,))
    return train(self.gen, state, "gen", z, **self.given(batch))

  def sample(self, state: State, batch: Batch, key: Key, *,
             temperature: Array | float = 1.) -> Array:
    """Keys [B] -> x, shaped and conditioned like `batch`."""
    z = temperature * normal(key, (self.z_dim,))
    return self.gen.apply(state.variables("gen"), z, **self.given(batch))

  def nfe(self, **knobs) -> int:
    """One pass of the generator."""
    del knobs
    return 1

  def given(self, batch: Batch) -> dict[str, Array]:
    """The label, where the nets take one."""
    return {"y": batch["y"]} if self.classes else {}


def train(net: nn.Module, state: State, group: str, *args, **kw
          ) -> tuple[Array, Groups]:
  """Applies a net whose statistics may move -> output, all stats."""
  carried = state.stats.get(group, {})
  out, moved = net.apply(
      state.variables(group), *args, mutable=list(carried), **kw)
  return out, state.stats | {group: dict(moved)}
