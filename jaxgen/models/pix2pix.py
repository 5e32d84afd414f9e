"""pix2pix: images of images, learned from pairs (Isola et al. 2017)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.keys import fold
from jaxgen.models.translation import apart, from_data, source_of, wants_of


@dataclasses.dataclass(frozen=True)
class Pix2Pix:
  """A generator of x from a source, against a discriminator of pairs (source, x).

  As junyanz/pytorch-CycleGAN-and-pix2pix trains it: the discriminator moves first,
  on the fakes of the weights before the step. Each player draws dropout of its own;
  without dropout all losses of a step are the published ones.

  Sampling is in that code's default mode, which is training's: batch norm by the
  image's own statistics (its batches are of one), dropout on. Both are knobs. Nets
  that were trained on larger batches want running averages: `image_stats=0`.

  Attributes:
    gen: (source [B, H, W, C'], key=, own=, drop=) -> x [B, H, W, C] in [-1, 1]; see
      `nets.pix2pix_unet` and `nets.resnet_translator`.
    disc: (source and x, one after the other along channels) -> logits [B, ...].
    rule: () -> adversarial.losses.Rule, such as `adversarial.patch_rules`'.
    cond: {"source": f(x) that makes it where the data bring none}.
    l1_weight: Of mean |x - G(source)| (Eq. 4).
    sees_source: Whether the discriminator is conditioned (Sec. 4.1); else it is
      shown x alone.
    penalty: On the discriminator, see `adversarial.penalties`.
    image_stats: Of the knob of that name, unless sampling says another.
  """

  gen: nn.Module
  disc: nn.Module
  rule: Callable
  cond: Mapping[str, Callable] = dataclasses.field(default_factory=lambda: {"source": from_data})
  l1_weight: float = 100.0
  sees_source: bool = True
  penalty: Callable | None = None
  image_stats: float = 1.0

  sampled = ("gen",)
  classes = 0

  @property
  def wants(self) -> tuple[str, ...]:
    """Conditions that the data must bring."""
    return wants_of(self.cond)

  @property
  def players(self) -> Sequence[Player]:
    """Discriminator, generator."""
    return Player("disc", "disc", self.disc_loss), Player("gen", "gen", self.gen_loss)

  @property
  def knobs(self) -> dict[str, float]:
    """`image_stats`: share of an image's own statistics in batch norm, the rest being
    running averages (0 is the published code's --eval); `dropout`: 1 on, 0 off.
    """
    own = {"image_stats": self.image_stats} if vars(self.gen).get("norm") == "batch" else {}
    return own | ({"dropout": 1.0} if vars(self.gen).get("dropout") else {})

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    k_gen, k_disc = jax.random.split(key)
    source = source_of(batch, self.cond)
    gen = dict(self.gen.init(k_gen, source))
    disc = self.disc.init(k_disc, self.pair(source, batch["x"]))
    return {"gen": gen.pop("params"), "disc": disc["params"]}, {"gen": gen, "disc": {}}

  def disc_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """Half of how badly true and made pairs are told apart."""
    x, source = batch["x"], source_of(batch, self.cond)
    fake, _ = self.generate(state, source, fold(key, 0))
    D, rule = self.D(state), self.rule()
    real, fake = self.pair(source, x), self.pair(source, fake)
    on_real, on_fake = D(real), D(fake)
    loss = rule.d_loss(on_real, on_fake)
    info = {"real": jnp.mean(on_real), "fake": jnp.mean(on_fake)}
    if self.penalty:
      info["penalty"] = self.penalty(D, real, fake, fold(key, 1))
      loss += info["penalty"]
    return loss, (state.stats, info)

  def gen_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """How badly D is fooled, and how far x is off (Eq. 4)."""
    x, source = batch["x"], source_of(batch, self.cond)
    fake, stats = self.generate(state, source, fold(key, 0))
    info = {"fooled": self.rule().g_loss(self.D(state)(self.pair(source, fake)))}
    info["l1"] = apart(fake, x)
    return info["fooled"] + self.l1_weight * info["l1"], (stats, info)

  def generate(self, state: State, source: Array, key: Key) -> tuple[Array, Groups]:
    """Fakes as in training: norms see this batch. -> x, stats."""
    moving = list(state.stats["gen"])
    fake, gen = self.gen.apply(state.variables("gen"), source, key, mutable=moving)
    return fake, state.stats | {"gen": dict(gen)}

  def D(self, state: State) -> Callable[[Array], Array]:
    """Pairs -> logits [B, ...]."""
    return lambda pair: self.disc.apply({"params": state.params["disc"]}, pair)

  def pair(self, source: Array, x: Array) -> Array:
    """What the discriminator is shown, the source first."""
    return jnp.concatenate([source, x], -1) if self.sees_source else x

  def sample(
    self,
    state: State,
    batch: Batch,
    key: Key,
    *,
    image_stats: Array | float | None = None,
    dropout: Array | float = 1.0,
  ) -> Array:
    """Sources, or those of "x" -> x; keys [B] are of dropout."""
    source = source_of(batch, self.cond)
    own = self.image_stats if image_stats is None else image_stats
    return self.gen.apply(state.variables("gen"), source, key, own=own, drop=dropout)

  def nfe(self, **knobs) -> int:
    """One pass of the generator."""
    del knobs
    return 1
