"""Diffusion: DDPM, ADM, EDM, SR3, CDM stages and DiT are one model."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.diffusion import conditioning, guidance, objective, posterior, samplers
from jaxgen.diffusion.denoiser import Denoise, Estimate
from jaxgen.diffusion.process import Noise
from jaxgen.keys import fold, normal

GUIDANCE = {"guidance": 1.0, "lo": 0.0, "hi": float("inf")}


@dataclasses.dataclass(frozen=True)
class Diffusion:
  """Learns to denoise x_t = alpha x_0 + sigma eps; samples by undoing it.

  Attributes:
    net: F(c_in x_t, c_noise [B], y=, key=), shaped like x; or with twice the
      channels, where it learns the variance too.
    process: t -> Noise(t, alpha, sigma).
    precond: Noise -> c_skip, c_out, c_in, c_noise.
    draw_t: (key [B], ndim) -> t [B, 1, .., 1] to train at; or one that learns
      from the losses, see `diffusion.importance`.
    path: (process, i, n) -> t, the points to sample at; i = 0 is the noisiest.
    sampler: (denoise, x_T, path, n, key, **knobs) -> x_0.
    steps: Points of the path when sampling does not say.
    objective: (mean squared errors [B], bound) -> losses [B].
    classes: Number of labels.
    label_drop: Share of labels dropped in training, for classifier-free
      guidance (Ho & Salimans 2022, Alg. 1). Where it is positive the net takes
      label `classes` for "none"; else it knows no such label.
    bound: Estimates of x_0 are clipped to [-bound, bound]; None: they are not.
    cond: What else of the batch the net takes: {key: how to make it of x
      where the batch lacks it, or None}.
    augment: Of upsamplers: noise on `low_res`, see `diffusion.conditioning`. The
      net is told its `level` [B]; a knob when sampling.
    around: (conditions, shape of x) -> what x is expected to be, [B, ...]. The
      net then sees and predicts the rest alone, as SRDiff does (Li et al. 2022,
      Sec. 3.2): so a small net need not learn to copy.
  """

  net: nn.Module
  process: Callable
  precond: Callable
  draw_t: Callable
  path: Callable
  sampler: Callable
  steps: int = 50
  objective: Callable = objective.simple
  classes: int = 0
  label_drop: float = 0.1
  bound: float | None = None
  cond: Mapping[str, Callable | None] = dataclasses.field(default_factory=dict)
  augment: Callable | None = None
  around: Callable | None = None

  sampled = ("net",)

  @property
  def players(self) -> Sequence[Player]:
    """One: the net."""
    return (Player("net", "net", self.loss),)

  @property
  def free(self) -> bool:
    """Whether it can be guided without a classifier."""
    return self.classes > 0 and self.label_drop > 0

  @property
  def knobs(self) -> dict[str, float]:
    """`steps`; `guidance` and its interval of sigma / alpha; the sampler's.

    `level` of augmentation, and what the path lets one turn.
    """
    own = {"steps": self.steps} | (GUIDANCE if self.free else {})
    own |= {"level": 0.0} if self.augment else {}
    own |= path_knobs(self.path)
    turned = defaults(self.sampler)
    if getattr(self.net, "learned", False):
      turned.pop("frac", None)  # the net says it
    return own | turned

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    x, given = batch["x"], self.given(batch)
    if self.classes and "y" not in given:
      given["y"] = jnp.zeros(len(x), jnp.int32)
    if self.augment:
      given["level"] = jnp.zeros(len(x))
    variables = dict(self.net.init(key, x, jnp.zeros(len(x)), **given))
    params, stats = {"net": variables.pop("params")}, {"net": variables}
    if hasattr(self.draw_t, "init"):
      stats["draw_t"] = self.draw_t.init()
    return params, stats

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """What the objective makes of F's squared error, and of the bound."""
    given = self.given(self.forget(batch, fold(key, 2)))
    if self.augment:
      given |= self.augment(fold(key, 4), given["low_res"])
    x = batch["x"]
    mean = self.expected(given, x)
    t, weight = self.times(state, fold(key, 0), x.ndim)
    t = self.process(t)
    eps = normal(fold(key, 1), x.shape[1:])
    x_t = t.alpha * x + t.sigma * eps
    c_skip, c_out, c_in, c_noise = self.precond(t)
    rest = x_t - t.alpha * mean  # what D sees, too
    F, frac = self.F(state, c_in * rest, c_noise, given, fold(key, 3))
    target = (x - mean - c_skip * rest) / c_out
    mse = jnp.mean((F - target) ** 2, range(1, x.ndim))

    def vb(stop: bool) -> Array:
      x_0 = mean + c_skip * rest + c_out * F
      x_0 = jax.lax.stop_gradient(x_0) if stop else x_0
      D = x_0 if frac is None else Estimate(x_0, frac)
      return posterior.vb_terms(x, x_t, D, posterior.link(self.process, t))

    losses, stats = self.objective(mse, vb), state.stats
    if "draw_t" in stats:
      stats = stats | {
        "draw_t": self.draw_t.update(stats["draw_t"], t.t, jax.lax.stop_gradient(losses))
      }
    return jnp.mean(weight * losses), (stats, {"mse": jnp.mean(mse)})

  def times(self, state: State, key: Key, ndim: int) -> tuple[Array, Array]:
    """t [B, 1, .., 1] to train at, and the weights of its losses [B]."""
    if "draw_t" in state.stats:
      return self.draw_t(key, ndim, state.stats["draw_t"])
    return self.draw_t(key, ndim), jnp.ones(len(key))

  def sample(self, state: State, batch: Batch, key: Key, **knobs) -> Array:
    """Keys [B] -> x_0 in [-1, 1], shaped and conditioned like `batch`.

    Labels of -1 (or none at all) ask for unconditional samples, where labels
    were dropped in training.
    """
    D, batch, knobs = self.prepared(state, batch, key, knobs)
    return self.walk(D, batch, key, **knobs)

  def prepared(
    self, state: State, batch: Batch, key: Key, knobs: dict[str, Any]
  ) -> tuple[Denoise, Batch, dict[str, Any]]:
    """The denoiser of `sample`, with the knobs that are left for `walk`."""
    knobs = self.knobs | knobs
    batch = self.augmented(batch, key, knobs)
    D = self.denoiser(state, batch, *(knobs.pop(k) for k in GUIDANCE if k in knobs))
    return D, batch, knobs

  def augmented(self, batch: Batch, key: Key, knobs: dict[str, Any]) -> Batch:
    """`low_res` spoilt to the knob `level`, which is taken out of knobs.

    A batch that has a level already is left as it is.
    """
    level = knobs.pop("level", 0.0)
    if not self.augment or "level" in batch:
      return batch
    level = jnp.full(len(batch["x"]), level, jnp.float32)
    z_0 = self.given(batch)["low_res"]
    return batch | self.augment(fold(key, 2), z_0, level)

  def walk(self, D: Denoise, batch: Batch, key: Key, **knobs) -> Array:
    """Samples by a denoiser, with the knobs of path and sampler alone."""
    path, n, knobs = path_points(self, knobs)
    return run_sampler(self, D, path, n, batch, key, knobs)

  def denoiser(
    self,
    state: State,
    batch: Batch,
    w: Array | None = None,
    lo: Array = 0.0,
    hi: Array = float("inf"),
  ) -> Denoise:
    """D(x_t, t), guided by weight `w` where lo < sigma / alpha <= hi.

    With w = None it is not guided at all.
    """
    given = self.given(batch)
    if self.classes:
      if "y" not in given and not self.free:
        raise ValueError("this model always had labels: give it batch['y']")
      y = given.get("y", jnp.full(len(batch["x"]), -1))
      given["y"] = jnp.where(y < 0, self.classes, y)
    D = functools.partial(self.D, state, given)
    if w is not None:
      nobody = given | {"y": jnp.full(len(batch["x"]), self.classes)}
      D_null = functools.partial(self.D, state, nobody)
      D = guidance.classifier_free(D, D_null, guidance.within(w, lo, hi))
    if self.bound is None:
      return D
    return guidance.clip(D, -self.bound, self.bound)

  def D(self, state: State, given: dict[str, Any], x_t: Array, t: Noise) -> Array | Estimate:
    """Estimates x_0 from x_t (Karras et al. 2022, Eq. 7)."""
    c_skip, c_out, c_in, c_noise = self.precond(t)
    mean = self.expected(given, x_t)
    rest = x_t - t.alpha * mean
    F, frac = self.F(state, c_in * rest, c_noise, given)
    x_0 = mean + c_skip * rest + c_out * F
    return x_0 if frac is None else Estimate(x_0, frac)

  def F(
    self, state: State, x: Array, c_noise: Array, given: dict[str, Any], key: Key | None = None
  ) -> tuple[Array, Array | None]:
    """The net itself; c_noise is [B, 1, .., 1] or [] for all alike.

    The second is the fraction of the variance, in [0, 1] or so, if it learns
    one: (v + 1) / 2 of its v (Nichol & Dhariwal 2021, Eq. 15).
    """
    c_noise = jnp.broadcast_to(jnp.ravel(c_noise), (len(x),))
    F = self.net.apply(state.variables("net"), x, c_noise, key=key, **given)
    if F.shape == x.shape:
      return F, None
    F, v = jnp.split(F, 2, -1)
    return F, (v + 1) / 2

  def given(self, batch: Batch) -> dict[str, Any]:
    """The conditions that the net takes."""
    made = {k: make(batch["x"]) for k, make in self.cond.items() if make and k not in batch}
    known = (
      (("y",) if self.classes else ()) + tuple(self.cond) + (("level",) if self.augment else ())
    )
    return {k: batch[k] for k in known if k in batch} | made

  def expected(self, given: dict[str, Any], x: Array) -> Array | float:
    """What x is expected to be, where the model knows."""
    return self.around(given, x.shape) if self.around else 0.0

  def forget(self, batch: Batch, key: Key) -> Batch:
    """Drops a share of the labels, for guidance without a classifier."""
    if not self.free:
      return batch
    lost = jax.vmap(jax.random.bernoulli, (0, None))(key, self.label_drop)
    return batch | {"y": jnp.where(lost, self.classes, batch["y"])}

  def nfe(self, **knobs) -> int:
    """How often the net is evaluated for one sample, at the most."""
    knobs = self.knobs | knobs
    evaluations = getattr(self.sampler, "func", self.sampler).nfe
    twice = 2 if knobs.get("guidance", 1.0) != 1 else 1
    return twice * evaluations(min(max(int(knobs["steps"]), 1), LONGEST))


LONGEST = 4000  # points of a sampling path at the most


def defaults(f: Callable) -> dict[str, float]:
  """The arguments of f that default to a float."""
  parameters = inspect.signature(f).parameters
  return {k: p.default for k, p in parameters.items() if isinstance(p.default, float)}


def path_knobs(path: Callable) -> dict[str, float]:
  """Arguments of a path that can be turned, with their defaults."""
  known = defaults(path)
  return {k: known[k] for k in getattr(getattr(path, "func", path), "knobs", ())}


def path_points(model: Any, knobs: dict[str, Any]) -> tuple[Noise, Array, dict[str, Any]]:
  """The path, how many of its points, and the knobs that are not theirs."""
  turned = path_knobs(model.path).keys() & knobs.keys()
  n = jnp.clip(jnp.asarray(knobs["steps"], jnp.int32), 1, LONGEST)
  t = model.path(model.process, jnp.arange(LONGEST), n, **{k: knobs[k] for k in turned})
  rest = {k: v for k, v in knobs.items() if k != "steps" and k not in turned}
  return model.process(t), n, rest


def run_sampler(
  model: Any, D: Denoise, path: Noise, n: Array, batch: Batch, key: Key, knobs: dict[str, Any]
) -> Array:
  """Samples along a path, from noise or from batch["noise"] ~ N(0, 1)."""
  if "noise" in batch:
    x_T = path.sigma[0] * batch["noise"]
  else:
    x_T = samplers.initial(path, fold(key, 0), batch["x"].shape[1:])
  if "process" in inspect.signature(model.sampler).parameters:
    knobs = knobs | {"process": model.process}  # to churn on it
  return model.sampler(D, x_T, path, n, fold(key, 1), **knobs)


def stop_early(
  model: Any, state: State, batch: Batch, key: Key, stop: Array, **knobs
) -> tuple[Array, Noise]:
  """`sample` that ends early: -> x_t where logsnr = `stop`, and t.

  At the last point of the path that is at least as noisy. Where `stop` is
  infinite it goes all the way, to x_0.
  """
  D, batch, knobs = model.prepared(state, batch, key, knobs)
  path, n, knobs = path_points(model, knobs)
  D, path, n, t = conditioning.stopped(D, path, n, stop)
  return run_sampler(model, D, path, n, batch, key, knobs), t
