"""GANs: DCGAN, WGAN, SNGAN, BigGAN, StyleGAN2, R3GAN: other nets and rules."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.adversarial.diagnostics import (
  class_diversity,
  mean_distance,
  overfitting,
  singular_values,
)
from jaxgen.adversarial.prior import mix_styles, truncated_normal
from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State, trait
from jaxgen.errors import UserError
from jaxgen.keys import example_keys, fold, normal

INF = float("inf")


def noise_keys(net: nn.Module, key: Key) -> dict[str, Key]:
  """Keys [B] for nets that draw: {"key": key} if it takes one."""
  takes = "key" in inspect.signature(net.__call__).parameters
  return {"key": key} if takes else {}


@dataclasses.dataclass(frozen=True)
class Penalty:
  """A penalty on the discriminator.

  Attributes:
    fn: (D, real, fake, key [B]) -> [], where D is x [B, ...] -> logits [B].
    every: 1: in every loss. k > 1: a move of its own on every k-th batch,
      weighted by k (lazy regularisation: Karras et al. 2020, Sec. 3.1; the
      optimiser should know, see `optim.adam`).
  """

  fn: Callable
  every: int = 1

  @property
  def name(self) -> str:
    """Name of its function."""
    return (self.fn.func if isinstance(self.fn, functools.partial) else self.fn).__name__


@dataclasses.dataclass(frozen=True)
class GAN:
  """A generator and a discriminator against each other.

  Attributes:
    gen: (z [B, Z], y=, key=) -> x; or `synthesize(map(z, y), key)` -> x.
    disc: (x, y=, key=) -> logits [B]; `embed` gives features [B, D].
    rule: () -> adversarial.losses.Rule.
    penalties: On the discriminator.
    gen_penalty: The generator's parameters -> [], added to its loss.
    path: adversarial.path.PathLength, a move of its own of the generator.
    mixing: Share of fakes made of two styles (Karras et al. 2019, Sec. 3.1).
    augment: What the discriminator sees of an image, real or fake: an object
      with init() -> stats, (x, key, stats) -> x and update(stats, logits of
      real [B], step, batch size) -> stats. It may also have advance(stats,
      step) -> stats, which is called where a step begins, and draw_t(key, stats)
      -> times [B]: it is called with these as t=, and so is a `timed` D.
    gen_every: Batches per move of the generator (n_critic).
    z_dim: Length of z.
    classes: Number of labels that both nets take; 0 for none.
  """

  gen: nn.Module
  disc: nn.Module
  rule: Callable
  penalties: Sequence[Penalty] = ()
  gen_penalty: Callable | None = None
  path: Any = None
  mixing: float = 0.0
  augment: Any = None
  gen_every: int = 1
  z_dim: int = 128
  classes: int = 0

  sampled = ("gen",)

  def __post_init__(self):
    names = [p.name for p in self.penalties]
    if len(set(names)) < len(names):
      raise UserError(f"penalties={', '.join(names)}: each function once")
    if (self.mixing or self.path) and not trait(self.gen, "map"):
      raise UserError(
        f"mixing and path want a generator that maps z to "
        f"styles; {type(self.gen).__name__} has no `map`"
      )
    if trait(self.augment, "draw_t") and not trait(self.disc, "timed"):
      raise UserError(
        f"{type(self.augment).__name__} wants a discriminator that is told t: one of "
        f"{type(self.disc).__module__} with model.disc.timed=true, if there is one"
      )

  @property
  def players(self) -> Sequence[Player]:
    """Discriminator, its lazy penalties, generator, its path lengths."""
    lazy = (
      Player(p.name, "disc", functools.partial(self.lazy_loss, p), p.every)
      for p in self.penalties
      if p.every > 1
    )
    path = self.path and Player("path", "gen", self.path_loss, self.path.every)
    return (
      Player("disc", "disc", self.disc_loss),
      *lazy,
      Player("gen", "gen", self.gen_loss, self.gen_every),
      *([path] if path else ()),
    )

  @property
  def knobs(self) -> dict[str, float]:
    """`temperature` scales z, `truncation` bounds it; the generator's own.

    Generators that map z to styles make its length one first: no temperature.
    """
    own = {} if trait(self.gen, "map") else {"temperature": 1.0}
    return own | {"truncation": INF} | trait(self.gen, "knobs")

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    k_gen, k_disc = jax.random.split(key)
    x, y = batch["x"], self.conditions(batch)
    gen = dict(self.gen.init(k_gen, jnp.zeros((len(x), self.z_dim)), **y))
    disc = dict(self.disc.init(k_disc, x, **y))
    params = {"gen": gen.pop("params"), "disc": disc.pop("params")}
    parts = {"augment": self.augment, "path": self.path}
    return params, {"gen": gen, "disc": disc} | {
      k: part.init() for k, part in parts.items() if part
    }

  def disc_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """How badly real and fake are told apart, and how steep D is."""
    state = self.advanced(state)
    fake, _ = self.generate(state, batch, fold(key, 0))
    # Pairs of one time: they differ in what they are, and no more.
    times = self.times(state, key, 7)
    # Two batches, not one: minibatch deviation and batch norm compare.
    real = self.augmented(state, batch["x"], fold(key, 2), times)
    on_real, stats = self.discriminate(state, batch, real, fold(key, 4), times)
    then = state.replace(stats=stats)
    shown = self.augmented(state, fake, fold(key, 3), times)
    on_fake, stats = self.discriminate(then, batch, shown, fold(key, 5), times)
    loss = self.rule().d_loss(on_real, on_fake)
    info = {"real": jnp.mean(on_real), "fake": jnp.mean(on_fake)}
    # Share of pairs ranked rightly: 1/2 cannot tell, 1 is saturated. Unlike
    # the sign of a logit it means the same under every rule.
    info["accuracy"] = jnp.mean(on_real[:, None] > on_fake)
    for penalty in self.penalties:
      if penalty.every == 1:
        info[penalty.name] = self.penalise(penalty, state, batch, fake, key)
        loss += info[penalty.name]
    if self.augment:
      # Where logits have no level, signs of pairs; those that saw one time.
      led = on_real - on_fake if times and not self.rule().level else on_real
      stats |= {
        "augment": self.augment.update(
          stats["augment"], jax.lax.stop_gradient(led), state.step, len(led)
        )
      }
      logged = trait(self.augment, "logged")
      info |= {k: v for k, v in stats["augment"].items() if k in logged}
    if trait(self.disc, "embed"):
      of_real = mean_distance(self.features(state, batch, real, times))
      of_fake = mean_distance(self.features(then, batch, shown, times))
      info["diversity"] = of_fake / (of_real + 1e-8)
    return loss, (stats, info | singular_values(stats["disc"]))

  def lazy_loss(
    self, penalty: Penalty, state: State, batch: Batch, key: Key
  ) -> tuple[Array, tuple[Groups, Metrics]]:
    """A penalty as a move of its own."""
    fake, _ = self.generate(state, batch, fold(key, 0))
    loss = self.penalise(penalty, state, batch, fake, key)
    return penalty.every * loss, (state.stats, {})

  def penalise(self, penalty: Penalty, state: State, batch: Batch, fake: Array, key: Key) -> Array:
    """A penalty's value; no statistics move."""
    D = self.D(state, batch, fold(key, 6))
    return penalty.fn(D, batch["x"], fake, fold(key, 1))

  def gen_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """How badly D is fooled."""
    fake, stats = self.generate(state, batch, fold(key, 0))
    loss, info = self.fooling(state, batch, fake, fold(key, 2))
    return loss, (stats, info | singular_values(stats["gen"]))

  def fooling(self, state: State, batch: Batch, fake: Array, key: Key) -> tuple[Array, Metrics]:
    """The generator's loss on its fakes, and metrics."""
    D, rule = self.D(state, batch, key), self.rule()
    loss = rule.g_loss(D(batch["x"]), D(fake)) if rule.relative else rule.g_loss(D(fake))
    pixels = lambda x: jnp.mean(jnp.abs(x - jnp.roll(x, 1, 0)))
    info = {"diversity": pixels(fake) / (pixels(batch["x"]) + 1e-8)}
    if self.gen_penalty:
      info["penalty"] = self.gen_penalty(state.params["gen"])
      loss += info["penalty"]
    return loss, info

  def path_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """How uneven the generator's steps are, on a share of the batch."""
    # Every so many, not the first ones: that leaves shards where they are.
    batch = {k: v[:: self.path.shrink] for k, v in batch.items()}
    key = key[:: self.path.shrink]
    ws, _ = self.map_styles(state, batch, fold(key, 0))
    noise = noise_keys(self.gen, fold(key, 1))
    synthesize = lambda ws: self.apply("gen", state, ws, method="synthesize", **noise)[0]
    loss, stats = self.path(synthesize, ws, fold(key, 2), state.stats["path"])
    return self.path.every * loss, (state.stats | {"path": stats}, stats)

  def generate(
    self, state: State, batch: Batch, key: Key, z: Array | None = None
  ) -> tuple[Array, Groups]:
    """Fakes as in training, of z or of what is drawn: norms see this batch. -> x, stats."""
    noise = noise_keys(self.gen, fold(key, 1))
    if not self.mixing:
      z = normal(key, (self.z_dim,)) if z is None else z
      return self.apply("gen", state, z, **self.conditions(batch), **noise)
    ws, stats = self.map_styles(state, batch, key)
    return self.apply("gen", state.replace(stats=stats), ws, method="synthesize", **noise)

  def map_styles(self, state: State, batch: Batch, key: Key) -> tuple[Array, Groups]:
    """Styles of all layers, mixed as in training -> [B, L, W], stats."""
    y, z = self.conditions(batch), lambda key: normal(key, (self.z_dim,))
    ws, stats = self.apply("gen", state, z(key), method="map", **y)
    if self.mixing:  # one average of styles: the other's do not count
      other, _ = self.apply("gen", state, z(fold(key, 2)), method="map", **y)
      ws = mix_styles(ws, other, fold(key, 3), self.mixing)
    return ws, stats

  def D(self, state: State, batch: Batch, key: Key) -> Callable[[Array], Array]:
    """x -> logits [B] as in training, with the same draws for every x."""
    times = self.times(state, key, 2)

    def logits(x: Array) -> Array:
      x = self.augmented(state, x, fold(key, 0), times)
      return self.discriminate(state, batch, x, fold(key, 1), times)[0]

    return logits

  def advanced(self, state: State) -> State:
    """The state with an augmentation that has moved, if it was to."""
    advance = trait(self.augment, "advance")
    if not advance:
      return state
    augment = advance(state.stats["augment"], state.step)
    return state.replace(stats=state.stats | {"augment": augment})

  def times(self, state: State, key: Key, salt: int) -> dict[str, Array]:
    """{"t": [B]}, of which augmentation and discriminator are told; {} of all others."""
    draw_t = trait(self.augment, "draw_t")
    return {"t": draw_t(fold(key, salt), state.stats["augment"])} if draw_t else {}

  def augmented(self, state: State, x: Array, key: Key, times: dict[str, Array]) -> Array:
    """x as the discriminator sees it."""
    return self.augment(x, key, state.stats["augment"], **times) if self.augment else x

  def discriminate(
    self, state: State, batch: Batch, x: Array, key: Key, times: dict[str, Array] | None = None
  ) -> tuple[Array, Groups]:
    """Logits [B] as in training, stats; without times, of what is not augmented."""
    times = (times or {}) | noise_keys(self.disc, key)
    return self.apply("disc", state, x, **self.conditions(batch), **times)

  def features(
    self, state: State, batch: Batch, x: Array, times: dict[str, Array] | None = None
  ) -> Array:
    """The discriminator's features of x before the last layer, [B, D]."""
    state, x = jax.lax.stop_gradient((state, x))
    times = (times or {}) | self.conditions(batch)
    return self.apply("disc", state, x, method="embed", **times)[0]

  def apply(self, group: str, state: State, *args, **kw) -> tuple[Array, Groups]:
    """Applies a net whose statistics may move -> output, all stats."""
    net = {"gen": self.gen, "disc": self.disc}[group]
    collections = list(state.stats.get(group, {}))
    out, stats = net.apply(state.variables(group), *args, mutable=collections, **kw)
    return out, state.stats | {group: dict(stats)}

  def sample(
    self,
    state: State,
    batch: Batch,
    key: Key,
    *,
    temperature: Array | float = 1.0,
    truncation: Array | float = INF,
    **controls: Array | float,
  ) -> Array:
    """Keys [B] -> x, shaped and conditioned like `batch`.

    Latents "z" [B, Z] of the batch are taken as they are, and "noise" [B, Z] in
    the place of what is drawn; labels "y" may be weights, float32 [B, classes].
    """
    z = batch.get("z")
    if z is None:
      own = "noise" in batch
      noise = batch["noise"] if own else truncated_normal(key, self.z_dim, truncation)
      z = temperature * noise
    kw = self.conditions(batch) | noise_keys(self.gen, fold(key, 1)) | controls
    return self.gen.apply(state.variables("gen"), z, **kw)

  def nfe(self, **knobs) -> int:
    """One pass of the generator."""
    del knobs
    return 1

  def conditions(self, batch: Batch) -> dict[str, Array]:
    """The label, where the nets take one."""
    return {"y": batch["y"]} if self.classes else {}

  def settle(self, state: State, key: Key, y: Array, truncation: Array | float = INF) -> State:
    """Batch norm's statistics anew, for samples at this truncation.

    Averages over n batches (standing statistics: Brock et al. 2019, App. B).

    Args:
      state: Whose weights sample: averaged ones, as a rule.
      key: [n], one for each batch.
      y: Labels [n, B], or [B] for all; without classes its shape alone counts.
      truncation: As in `sample`.
    """
    old = state.stats["gen"].get("batch_stats")
    if not old:
      return state

    def run(stats, key, y):
      key = example_keys(key, len(y))
      _, new = self.gen.apply(
        state.variables("gen") | {"batch_stats": stats},
        truncated_normal(key, self.z_dim, truncation),
        mutable=["batch_stats"],
        **self.conditions({"y": y}),
        **noise_keys(self.gen, fold(key, 1)),
      )
      return new["batch_stats"]

    y = jnp.broadcast_to(y, (len(key), jnp.shape(y)[-1]))
    gen = state.stats["gen"] | {"batch_stats": standing_statistics(run, old, key, y)}
    return state.replace(stats=state.stats | {"gen": gen})

  def probe(self, state: State, batch: Batch, held: Batch, key: Key) -> Metrics:
    """Does D know its data by heart, and are the classes diverse?

    Args:
      state: Of training: D's weights, and those of G to judge.
      batch: Of training data, [B]; floats, as losses see them.
      held: As many real examples that are not trained on.
      key: [B].

    Returns:
      What `overfitting` and `class_diversity` say.
    """
    fake = self.sample(state, batch, fold(key, 0))
    logits = [
      self.discriminate(state, labels, x, fold(key, 1))[0]
      for labels, x in ((batch, batch["x"]), (held, held["x"]), (batch, fake))
    ]
    info = overfitting(*logits)
    if trait(self.disc, "embed"):
      real, fake = (self.features(state, batch, x) for x in (batch["x"], fake))
      info["diversity"] = mean_distance(fake) / (mean_distance(real) + 1e-8)
      if self.classes:
        info |= class_diversity(real, fake, batch["y"], self.classes)
    return info


def standing_statistics(
  run: Callable[[Groups, Key, Array], Groups], old: Groups, key: Key, y: Array
) -> Groups:
  """Plain averages over n batches, in one scan.

  Args:
    run: (running statistics, key [], labels [B]) -> those after one batch.
    old: Whose leaves `mean` and `var` are made anew; others stay.
    key: [n].
    y: [n, B].
  """
  moving = lambda path: path[-1].key in ("mean", "var")
  map_paths = jax.tree_util.tree_map_with_path

  def set_to(value: float) -> Groups:
    return map_paths(lambda path, x: jnp.full_like(x, value) if moving(path) else x, old)

  # Running ones become m running + (1 - m) batch: two runs give m away.
  low, high = (run(set_to(value), key[0], y[0]) for value in (0.0, 1.0))

  def body(total, now):
    return jax.tree.map(jnp.add, total, run(set_to(0.0), *now)), None

  total, _ = jax.lax.scan(body, set_to(0.0), (key, y))

  def average(path, old, total, low, high):
    return total / (len(key) * (1 - (high - low))) if moving(path) else old

  return map_paths(average, old, total, low, high)
