"""The contract: a generative model is a small game between parameter groups.

A model is any object with the members of `Model` (there is no base class).
Diffusion models and VAEs are games with one player, GANs with two. A group
that no player moves is frozen: it has no gradient and no optimiser state.

Randomness. A loss and a sampler get one key per example, [B]. What is drawn
for an example therefore depends on the seed, the step and the example's place
in the global batch, never on how the batch is split or sharded: accumulated
gradients equal those of the big batch, and samples do not change with the
number of devices. No key lives in the state, so a resumed run is bit-exact.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxgen.keys import example_keys, fold

Array = Key = jax.Array
# "x" [B, *shape]: images, audio, points; "y": labels; conditions; or "z" in the
# place of x: what a codec wrote of it, see `models.latent`.
Batch = dict[str, Array]
Groups = dict[str, Any]  # one pytree per parameter group
Metrics = dict[str, Array]


@flax.struct.dataclass
class State:
  """All that training remembers, and all that a checkpoint holds."""

  step: Array  # [] int32, batches consumed
  params: Groups  # what players move
  stats: Groups  # what losses carry along: batch stats, codebooks, p
  opt: Groups  # one optimiser state per moved group
  ema: dict[str, Groups]  # averaged copies of the sampled groups, by profile
  skips: Array  # [2] int32, updates skipped: in a row, in total

  def variables(self, group: str) -> dict[str, Any]:
    """What linen's `apply` wants: the group's parameters and statistics."""
    return {"params": self.params[group], **self.stats.get(group, {})}

  def averaged(self, profile: str) -> "State":
    """The same state, seen through the averaged weights of a profile."""
    return self.replace(params=self.params | self.ema[profile])


Loss = Callable[[State, Batch, Key], tuple[Array, tuple[Groups, Metrics]]]


class Player(NamedTuple):
  """Minimises `loss` over the group it `moves`, on every `every`-th batch.

  One that is `simultaneous` meets the weights with which the step began, whoever
  has moved since, and the statistics as they are. It is the only one of its group.
  """

  name: str
  moves: str
  loss: Loss
  every: int = 1
  simultaneous: bool = False


def _anywhere(tree):
  return tree


class Layout(NamedTuple):
  """Where a step wants its arrays; by default, wherever they are.

  Functions of pytrees, which they return as they are: see `sharding.layout`.
  """

  gather: Callable[[Any], Any] = _anywhere  # whole, as weights are used
  scatter: Callable[[Any], Any] = _anywhere  # gradients, to where weights live
  rows: Callable[[Any], Any] = _anywhere  # what has an entry per example


ANYWHERE = Layout()


class Model(Protocol):
  """A game that can be trained, and played to its end: sampled."""

  players: Sequence[Player]  # in order of play
  sampled: Sequence[str]  # groups that `sample` reads
  knobs: dict[str, float]  # what can be turned when sampling, with defaults

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats, both keyed by group."""

  def sample(self, state: State, batch: Batch, key: Key, **knobs) -> Array:
    """Keys [B] -> samples in [-1, 1], shaped and conditioned like `batch`."""

  def nfe(self, **knobs) -> int:
    """How often a network is evaluated for one sample."""


class Codec(Model, Protocol):
  """A model that also writes examples as latents, and reads these.

  Latents are an array [B, ...], or a pytree of them: numbers, or whole numbers
  that are rows of codebooks. Another model may learn how they are distributed.
  """

  def encode(self, state: State, x: Array, key: Key | None = None, y: Array | None = None) -> Any:
    """x [B, ...], labels where it knows them -> z.

    With keys [B] z is a sample of q(z | x), where that is a distribution;
    without, its mode.
    """

  def decode(self, state: State, z: Any, y: Array | None = None) -> Array:
    """Latents -> x [B, ...] in [-1, 1] or a little beyond: nothing is drawn."""


# What the house may also ask of a model, its nets and its objects, and what
# stands for a member that one lacks. Nothing inherits: `trait` reads them all,
# and nobody asks for a name that is not listed here.
OPTIONAL: dict[str, Any] = {
  # Of a model.
  "sample": None,  # a classifier lacks it: it judges, and draws nothing
  "cond": {},  # conditions beside labels: {name: f(x) that makes it, or None}
  "wants": (),  # names of conditions that the data must bring
  "free": False,  # whether it also samples without a class, label -1
  "classes": None,  # number of labels it was built for, if it knows
  "net": None,  # the one net of a model that has one
  "gen": None,  # the two of a GAN
  "disc": None,
  "process": None,  # noise process of a diffusion model
  "stages": (),  # models of a cascade, each conditioned on the one before
  "expand": None,  # f(knobs) -> knobs, where one name stands for several
  "augment": None,  # conditioning augmentation of an upsampler
  "probe": None,  # f(state, batch, held, key) -> metrics, measured now and then
  "classifier": None,  # logits of a model that judges
  "encode": None,  # the two of a codec, see `Codec`
  "decode": None,
  "moments": None,  # f(state, x, y) -> mean, std of a Gaussian q(z | x)
  "occupancy": None,  # f(state, z) -> how often codes are chosen, {codebook: [K]}
  "wants_prior": False,  # whether samples want a model of latents to be images
  "perceptual": None,  # net of a frozen group whose weights are from elsewhere
  "judge_workdir": "",  # where these were trained, unless they are a user's files
  "codec": None,  # of a model of latents: what writes them, a frozen group
  "codec_workdir": "",  # where that was trained
  "teacher": None,  # preconditioning of the net that another begins with
  "teacher_workdir": "",  # where that was trained
  "predictors": {},  # of attributes, by name: nets of a frozen group
  "generator": None,  # of what controls a GAN: that GAN, a frozen group
  "generator_workdir": "",  # where that was trained
  "gan": None,  # of an encoder of a GAN's latents: what it inverts, two frozen groups
  "gan_workdir": "",  # where that was trained
  "model": None,  # what learns them
  "measure": None,  # f(state, batch, key) -> stats, of batches before the first step
  # Of a net.
  "labels": 0,  # number of labels that it can be told
  "heights": None,  # f(height of x) -> heights of its maps, to attend at
  "attend": (),  # heights at which it does
  "learned": False,  # whether it also predicts the variance
  "uncertainty": None,  # f(c_noise) -> u, log of the error to expect of F there
  "map": None,  # f(z, y) -> w, of a generator with a mapping network
  "embed": None,  # f(x, y) -> features, of a discriminator
  "knobs": {},  # what can be turned when sampling, with defaults
  "num_ws": 0,  # number of latents that a style generator takes
  "size": 0,  # height and width of images, if built in
  "channels": 3,  # likewise
  "timed": False,  # whether a discriminator takes times, t=
  # Of a discriminator's augmentation, see models.gan.
  "advance": None,  # f(stats, step) -> stats, where a step begins
  "draw_t": None,  # f(key, stats) -> times t [B], of which D is told
  "logged": ("p",),  # which of its stats are logged, where it has them
  # Of a data source.
  "brings": (),  # names of conditions in its examples, such as "source"
  "rate": 0,  # samples a second, of sound
  "stored": None,  # {name: (shape, dtype)} of a row, where it holds latents of x
  # Of a noise process, and of draws of times.
  "steps": None,  # number of them in discrete time
  "betas": None,  # [steps], in discrete time
  "init": None,  # f() -> stats, of draws that learn from losses
}


def trait(thing: Any, name: str) -> Any:
  """A member listed in `OPTIONAL`, or its stand-in where `thing` lacks it."""
  return getattr(thing, name, OPTIONAL[name])


def batch_shapes(
  shape: Sequence[int], dtype: Any, classes: int, n: int = 1
) -> dict[str, jax.ShapeDtypeStruct]:
  """Of n examples of data: x and, where there are classes, y."""
  shapes = {"x": jax.ShapeDtypeStruct((n, *shape), jnp.dtype(dtype))}
  return shapes | ({"y": jax.ShapeDtypeStruct((n,), jnp.int32)} if classes else {})


def on_device(batch: Batch) -> Batch:
  """Bytes and samples become floats in [-1, 1] here, and not a moment earlier."""

  def scale(x):
    if x.dtype == jnp.int16:
      return x.astype(jnp.float32) / 2**15
    if x.dtype != jnp.uint8:
      return x
    # Not x / 127.5 - 1: by XLA's reciprocal 255 would come out above 1.
    return (x.astype(jnp.float32) - 127.5) / 127.5

  return jax.tree.map(scale, batch)


def as_data(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """What a model makes, in the data's own units: [-1, 1] -> rounded bytes or samples."""
  if dtype == jnp.int16:
    return jnp.clip(jnp.round(x * 2**15), -(2**15), 2**15 - 1).astype(jnp.int16)
  if dtype != jnp.uint8:
    return x
  return jnp.clip(jnp.round((x + 1) * 127.5), 0, 255).astype(jnp.uint8)


def turn(model: Model, step: int) -> tuple[int, ...]:
  """Who moves on this batch. The host knows, so XLA never sees a branch."""
  return tuple(i for i, p in enumerate(model.players) if step % p.every == 0)


def make_init(
  model: Model, tx: dict[str, optax.GradientTransformation], ema: Sequence[str]
) -> Callable[[Batch, Key], State]:
  """Returns init(batch, key []) -> State. `ema`: names of the profiles."""

  def init(batch: Batch, key: Key) -> State:
    params, stats = model.init(on_device(batch), key)
    moved = {p.moves for p in model.players}
    averaged = {g: params[g] for g in model.sampled if g in moved}
    return State(
      step=jnp.zeros([], jnp.int32),
      params=params,
      stats=stats,
      opt={g: tx[g].init(params[g]) for g in sorted(moved)},
      ema={p: jax.tree.map(jnp.copy, averaged) for p in sorted(ema)},
      skips=jnp.zeros([2], jnp.int32),
    )

  return init


def make_step(
  model: Model,
  tx: dict[str, optax.GradientTransformation],
  ema: dict[str, Callable[[Array], Array]],
  accumulate: int = 1,
  layout: Layout = ANYWHERE,
) -> Callable[[tuple[int, ...], State, Batch, Key], tuple[State, Metrics]]:
  """The one training step: (turn, state, batch, seed) -> state, metrics.

  Args:
    model: The game.
    tx: An optimiser for every group that a player moves.
    ema: Averaging by profile: updates so far [] -> decay in [0, 1].
    accumulate: Number of equal parts in which a batch is differentiated. Their
      gradients' mean is the gradient of the whole batch.
    layout: Where arrays live in between, on many devices.

  `turn` is static (see the function of that name); `seed` is a key []. An
  update with a non-finite loss or gradient leaves all but `step` and `skips`
  bitwise as it was.
  """

  def step(turn, state, batch, seed):
    batch = on_device(batch)
    n = len(jax.tree.leaves(batch)[0])
    keys = layout.rows(example_keys(jax.random.fold_in(seed, state.step), n))
    new, metrics, ok = state, {}, True
    for i in turn:
      player = model.players[i]
      before = new.replace(params=state.params) if player.simultaneous else new
      after, info, fine = move(player, tx, before, batch, fold(keys, i), accumulate, layout)
      new = after.replace(params=new.params | {player.moves: after.params[player.moves]})
      ok &= fine
      metrics |= {f"{player.name}/{k}": v for k, v in info.items()}
    new = new.replace(
      ema={
        profile: _toward(state.ema[profile], new.params, decay(state.step))
        for profile, decay in ema.items()
      }
    )
    new = jax.tree.map(functools.partial(jnp.where, ok), new, state)
    in_a_row, total = state.skips
    skips = jnp.where(ok, jnp.stack([0 * total, total]), jnp.stack([in_a_row, total]) + 1)
    new = new.replace(step=state.step + 1, skips=skips)
    return new, metrics | {"skips": skips[1], "skips_in_a_row": skips[0]}

  return step


def move(
  player: Player,
  tx: dict[str, optax.GradientTransformation],
  state: State,
  batch: Batch,
  key: Key,
  accumulate: int = 1,
  layout: Layout = ANYWHERE,
) -> tuple[State, Metrics, Array]:
  """One player's move -> the state after it, metrics, whether all is finite."""
  group = player.moves

  def objective(theta, stats, batch, key):
    # Only the player's own group varies: all else is constant by construction.
    params = layout.gather(state.params | {group: theta})
    return player.loss(state.replace(params=params, stats=stats), batch, key)

  gradient = jax.value_and_grad(objective, has_aux=True)
  theta = state.params[group]
  if accumulate == 1:
    (loss, (stats, info)), grads = gradient(theta, state.stats, batch, key)
  else:
    loss, stats, info, grads = _accumulated(
      gradient, theta, state.stats, batch, key, accumulate, layout
    )
  grads = layout.scatter(grads)
  norm = optax.tree.norm(grads)
  updates, opt = tx[group].update(grads, state.opt[group], theta)
  state = state.replace(
    params=state.params | {group: optax.apply_updates(theta, updates)},
    opt=state.opt | {group: opt},
    stats=stats,
  )
  ok = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.isfinite(optax.tree.norm(updates))
  return state, {"loss": loss, "grad_norm": norm, **info}, ok


def _accumulated(gradient, theta, stats, batch, key, parts, layout):
  """Means over `parts` equal parts, one after the other in memory."""

  def split(x):  # every parts-th example, so that shards stay where they are
    return x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1)

  def body(carry, part):
    total, stats = carry
    (loss, (stats, info)), grads = gradient(theta, stats, *part)
    return (jax.tree.map(jnp.add, total, (loss, info, grads)), stats), None

  split_batch = jax.tree.map(split, (batch, key))
  first = jax.tree.map(lambda x: x[0], split_batch)
  (loss, (_, info)), grads = jax.eval_shape(gradient, theta, stats, *first)
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (loss, info, grads))
  (total, stats), _ = jax.lax.scan(body, (zeros, stats), split_batch)
  # Whole to the end of the loop, or devices would send every part's gradients.
  loss, info, grads = jax.tree.map(lambda x: x / parts, layout.gather(total))
  return loss, stats, info, grads


def _toward(average: Groups, params: Groups, decay: Array) -> Groups:
  return jax.tree.map(lambda a, b: b + decay * (a - b), average, {g: params[g] for g in average})
