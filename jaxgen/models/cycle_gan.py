"""CycleGAN: images of one kind into another and back, without pairs (Zhu et al. 2017)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.adversarial import image_pool
from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.keys import fold
from jaxgen.models.translation import apart, from_data, source_of, wants_of

WAYS = ("ab", "ba")


@dataclasses.dataclass(frozen=True)
class CycleGAN:
  """Two generators, A to B and back, and a discriminator of each kind.

  Images of A come as "source", those of B as "x". As the published step has it, all
  four nets move by gradients at the weights with which the step began: both
  generators as one player, by one loss and one Adam, then the discriminators,
  who meet the fakes of the generators' old weights (`Player.simultaneous`). Fakes
  go to them through a pool of earlier ones, which is part of the state.

  What the published code calls D_A judges images of B, and is `disc_b` here; D_B is
  `disc_a`; G_A is "ab" of the group "gen".

  Attributes:
    gen: (images, key=, own=, drop=) -> images, for both ways; see
      `nets.resnet_translator`.
    disc: images -> logits [B, ...], for both kinds.
    rule: () -> adversarial.losses.Rule; published: `adversarial.patch_rules.squares`.
    cond: {"source": f(x)}; published: two kinds of data, `translation.from_data`.
    cycle: Weights of both cycles, A to B to A first (published: 10 each).
    identity: Weight of G_A(b) = b and G_B(a) = a, as a share of the other weight
      (published: 0.5; 0: none).
    pool: Images of each kind in the pool; 0: none.
  """

  gen: nn.Module
  disc: nn.Module
  rule: Callable
  cond: Mapping[str, Callable] = dataclasses.field(default_factory=lambda: {"source": from_data})
  cycle: Sequence[float] = (10.0, 10.0)
  identity: float = 0.5
  pool: int = 50

  sampled = ("gen",)
  classes = 0

  @property
  def wants(self) -> tuple[str, ...]:
    """Conditions that the data must bring."""
    return wants_of(self.cond)

  @property
  def players(self) -> Sequence[Player]:
    """Both generators, the discriminator of B, that of A."""
    return (
      Player("gen", "gen", self.gen_loss, simultaneous=True),
      Player("disc_b", "disc_b", self.disc_b_loss, simultaneous=True),
      Player("disc_a", "disc_a", self.disc_a_loss, simultaneous=True),
    )

  @property
  def knobs(self) -> dict[str, float]:
    """`backwards`: 0 makes B of sources of A, 1 makes A of sources of B.

    And those of `models.pix2pix`, of nets with batch norm or dropout.
    """
    own = {"image_stats": 1.0} if vars(self.gen).get("norm") == "batch" else {}
    own |= {"dropout": 1.0} if vars(self.gen).get("dropout") else {}
    return {"backwards": 0.0} | own

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    a, b = self.images(batch)
    keys = jax.random.split(key, 4)
    nets = {way: dict(self.gen.init(k, x)) for way, k, x in zip(WAYS, keys, (a, b), strict=False)}
    params = {"gen": {way: net.pop("params") for way, net in nets.items()}}
    for name, k, x in (("disc_a", keys[2], a), ("disc_b", keys[3], b)):
      params[name] = self.disc.init(k, x)["params"]
    pools = {kind: image_pool.init(self.pool, x.shape[1:]) for kind, x in (("a", a), ("b", b))}
    return params, {"gen": nets, "pool": pools}

  def images(self, batch: Batch) -> tuple[Array, Array]:
    """Those of A and of B; ValueError if they have other channels or sizes."""
    a, b = source_of(batch, self.cond), batch["x"]
    if a.shape != b.shape:
      raise ValueError(f"images of A are {a.shape[1:]}, those of B {b.shape[1:]}: want one shape")
    return a, b

  def gen_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """Both adversarial losses, both cycles, both identities (Eq. 3; Sec. 5.2)."""
    a, b = self.images(batch)
    G, run = self.generators(state, key)
    fake_b = G("ab", a, 0)
    rec_a = G("ba", fake_b, 1)
    fake_a = G("ba", b, 2)
    rec_b = G("ab", fake_a, 3)
    fooled = lambda kind, fake: self.rule().g_loss(self.D(state, f"disc_{kind}")(fake))
    info = {
      "fooled_b": fooled("b", fake_b),
      "fooled_a": fooled("a", fake_a),
      "cycle_a": self.cycle[0] * apart(rec_a, a),
      "cycle_b": self.cycle[1] * apart(rec_b, b),
    }
    if self.identity:
      info["identity_b"] = self.identity * self.cycle[1] * apart(G("ab", b, 4), b)
      info["identity_a"] = self.identity * self.cycle[0] * apart(G("ba", a, 5), a)
    return sum(info.values()), (state.stats | {"gen": run}, info)

  def generators(
    self, state: State, key: Key
  ) -> tuple[Callable[[str, Array, int], Array], dict[str, Any]]:
    """(way, images, salt) -> images as in training, and statistics as they move."""
    run = {way: dict(state.stats["gen"][way]) for way in WAYS}

    def G(way: str, x: Array, salt: int) -> Array:
      variables = {"params": state.params["gen"][way]} | run[way]
      y, stats = self.gen.apply(variables, x, fold(key, salt), mutable=list(run[way]))
      run[way] = dict(stats)
      return y

    return G, run

  def disc_b_loss(
    self, state: State, batch: Batch, key: Key
  ) -> tuple[Array, tuple[Groups, Metrics]]:
    """Half of how badly images of B and those of the pool are told apart."""
    a, b = self.images(batch)
    return self.disc_loss("b", state, b, "ab", a, key)

  def disc_a_loss(
    self, state: State, batch: Batch, key: Key
  ) -> tuple[Array, tuple[Groups, Metrics]]:
    """The same of A."""
    a, b = self.images(batch)
    return self.disc_loss("a", state, a, "ba", b, key)

  def disc_loss(
    self, kind: str, state: State, real: Array, way: str, source: Array, key: Key
  ) -> tuple[Array, tuple[Groups, Metrics]]:
    """Of one kind: fakes are made of `source`, and exchanged with its pool."""
    G, _ = self.generators(state, key)
    pools = state.stats["pool"]
    u, places = image_pool.draw(fold(key, 6), self.pool)
    fake, pool = image_pool.query(pools[kind], G(way, source, 0), u, places)
    D = self.D(state, f"disc_{kind}")
    on_real, on_fake = D(real), D(fake)
    stats = state.stats | {"pool": pools | {kind: pool}}
    info = {"real": jnp.mean(on_real), "fake": jnp.mean(on_fake)}
    return self.rule().d_loss(on_real, on_fake), (stats, info)

  def D(self, state: State, name: str) -> Callable[[Array], Array]:
    """Images -> logits [B, ...]."""
    return lambda x: self.disc.apply({"params": state.params[name]}, x)

  def sample(
    self,
    state: State,
    batch: Batch,
    key: Key,
    *,
    backwards: Array | float = 0.0,
    image_stats: Array | float = 1.0,
    dropout: Array | float = 1.0,
  ) -> Array:
    """Sources -> images of the other kind; keys [B] are of dropout."""
    source = source_of(batch, self.cond)

    def G(way: str) -> Callable[[Array], Array]:
      variables = {"params": state.params["gen"][way]} | state.stats["gen"][way]
      return lambda x: self.gen.apply(variables, x, key, own=image_stats, drop=dropout)

    return jax.lax.cond(jnp.asarray(backwards) > 0.5, G("ba"), G("ab"), source)

  def nfe(self, **knobs) -> int:
    """One pass of a generator."""
    del knobs
    return 1
