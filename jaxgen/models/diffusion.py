"""Diffusion: DDPM, ADM, EDM, SR3, CDM stages and DiT are one model."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State, trait
from jaxgen.diffusion import conditioning, guidance, objective, posterior
from jaxgen.diffusion.denoiser import Denoise, Estimate
from jaxgen.diffusion.process import Noise
from jaxgen.diffusion.traits import traits
from jaxgen.keys import fold, normal

GUIDANCE = {"guidance": 1.0, "lo": 0.0, "hi": float("inf")}
LONGEST = 4000  # points of a sampling path at the most


def count(steps: Array | float, most: int) -> Array | int:
  """Steps from 1 to `most`.

  Of a Python int an int: a sampler's loop is then of known length, and can be
  differentiated in reverse mode.
  """
  if isinstance(steps, int):
    return min(max(steps, 1), most)
  return jnp.clip(jnp.asarray(steps, jnp.int32), 1, most)


@dataclasses.dataclass(frozen=True)
class Diffusion:
  """Learns to denoise x_t = alpha x_0 + sigma eps; samples by undoing it.

  Attributes:
    net: F(c_in x_t, c_noise [B], y=, key=), shaped like x; or with twice the
      channels, where it learns the variance too. One with an `uncertainty` weighs
      its losses by it, see `by_uncertainty`.
    process: t -> Noise(t, alpha, sigma).
    precond: Noise -> c_skip, c_out, c_in, c_noise.
    draw_t: (key [B], ndim) -> t [B, 1, .., 1] to train at; or one that learns
      from the losses, see `diffusion.importance`.
    path: (process, i, n) -> t, the points to sample at; i = 0 is the noisiest.
    sampler: (denoise, x_T, path, n, key, **knobs) -> x_0.
    steps: Points of the path when sampling does not say.
    error: What F is off by -> the error of each entry, F's own square or another.
    objective: (mean errors [B], bound) -> losses [B].
    weighting: Noise -> weight of the squared error of eps, which takes the place
      of F's own; None: F's, as it is.
    classes: Number of labels.
    label_drop: Share of labels dropped in training, for classifier-free
      guidance (Ho & Salimans 2022, Alg. 1). Where it is positive the net takes
      label `classes` for "none"; else it knows no such label.
    guide: (D, D without label, weight) -> D, how it is guided by itself.
    bound: Estimates of x_0 are clipped to [-bound, bound]; None: they are not.
    cond: What else of the batch the net takes: {name: f(x) that makes it where
      the batch lacks it, or None}.
    augment: Of upsamplers: noise on `low_res`, see diffusion.conditioning. The
      net is told its `level` [B], a knob when sampling.
    around: (conditions, shape of x) -> the mean of x, [B, ...]. The net then
      sees and predicts the residual alone, as SRDiff does (Li et al. 2022,
      Sec. 3.2): so a small net need not learn to copy.
    noise: (key [B], shape) -> eps [B, *shape] of unit variance: what x_t is noisy
      of in training, and where samples begin.
  """

  net: nn.Module
  process: Callable
  precond: Callable
  draw_t: Callable
  path: Callable
  sampler: Callable
  steps: int = 50
  error: Callable = objective.squared
  objective: Callable = objective.simple
  weighting: Callable | None = None
  classes: int = 0
  label_drop: float = 0.1
  guide: Callable = guidance.classifier_free
  bound: float | None = None
  cond: Mapping[str, Callable | None] = dataclasses.field(default_factory=dict)
  augment: Callable | None = None
  around: Callable | None = None
  noise: Callable = normal

  sampled = ("net",)

  @property
  def players(self) -> Sequence[Player]:
    """One: the net."""
    return (Player("net", "net", self.loss),)

  @property
  def free(self) -> bool:
    """Whether it also samples without a label: it can be guided by itself."""
    return self.classes > 0 and self.label_drop > 0

  @property
  def knobs(self) -> dict[str, float]:
    """`steps`; `guidance` and its interval of sigma / alpha; `level`.

    And those of the path, of the sampler and of `guide`.
    """
    own = {"steps": self.steps}
    own |= GUIDANCE | traits(self.guide).knobs if self.free else {}
    own |= {"level": 0.0} if self.augment else {}
    own |= traits(self.path).knobs | traits(self.sampler).knobs
    if trait(self.net, "learned"):
      own.pop("frac", None)  # the net says it
    return own

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    x, conditions = batch["x"], self.conditions(batch)
    if self.classes and "y" not in conditions:
      conditions["y"] = jnp.zeros(len(x), jnp.int32)
    if self.augment:
      conditions["level"] = jnp.zeros(len(x))
    variables = dict(self.net.init(key, x, jnp.zeros(len(x)), **conditions))
    params, stats = {"net": variables.pop("params")}, {"net": variables}
    if history := trait(self.draw_t, "init"):
      stats["draw_t"] = history()
    return params, stats

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """What the objective makes of F's squared error, and of the bound."""
    conditions = self.conditions(self.drop_labels(batch, fold(key, 2)))
    if self.augment:
      conditions |= self.augment(fold(key, 4), conditions["low_res"])
    x, stats = batch["x"], state.stats
    learns = "draw_t" in stats
    t = self.draw_t(fold(key, 0), x.ndim, *([stats["draw_t"]] if learns else []))
    t, weight = t if learns else (t, jnp.ones(len(key)))
    t = self.process(t)
    mean = self.residual_mean(conditions, x)
    x_t = t.alpha * x + t.sigma * self.noise(fold(key, 1), x.shape[1:])
    c_skip, c_out, c_in, c_noise = self.precond(t)
    residual = x_t - t.alpha * mean  # what D sees, too
    F, frac = self.F(state, c_in * residual, c_noise, conditions, fold(key, 3))
    target = (x - mean - c_skip * residual) / c_out
    mse = jnp.mean((F - target) ** 2, range(1, x.ndim))
    errors = jnp.mean(self.error(F - target), range(1, x.ndim))

    def vb(stop: bool) -> Array:
      x_0 = mean + c_skip * residual + c_out * F
      x_0 = jax.lax.stop_gradient(x_0) if stop else x_0
      D = x_0 if frac is None else Estimate(x_0, frac)
      return posterior.vb_terms(x, x_t, D, posterior.link(self.process, t))

    if self.weighting:  # an error of F is one of alpha c_out / sigma of eps
      errors *= jnp.ravel(self.weighting(t) * (t.alpha * c_out / t.sigma) ** 2)
    losses = self.objective(errors, vb)
    if trait(self.net, "uncertainty"):
      losses = self.by_uncertainty(state, losses, c_noise)
    if learns:
      history = self.draw_t.update(stats["draw_t"], t.t, jax.lax.stop_gradient(losses))
      stats = stats | {"draw_t": history}
    return jnp.mean(weight * losses), (stats, {"mse": jnp.mean(mse)})

  def by_uncertainty(self, state: State, losses: Array, c_noise: Array) -> Array:
    """Losses [B] over what the net expects of them: L / e^u + u.

    As a Gaussian's, of log variance u at this noise level (Kendall et al. 2018;
    Karras et al. 2024, Eqs. 14 and 21): all levels come to weigh alike.
    """
    c_noise = jnp.broadcast_to(jnp.ravel(c_noise), losses.shape)
    u = self.net.apply(state.variables("net"), c_noise, method="uncertainty")
    return losses / jnp.exp(u) + u

  def sample(
    self,
    state: State,
    batch: Batch,
    key: Key,
    *,
    denoise: Denoise | None = None,
    stop: Array | None = None,
    **knobs,
  ) -> Array:
    """Keys [B] -> x_0 in [-1, 1], shaped and conditioned like `batch`.

    Labels of -1 (or none at all) ask for unconditional samples, where labels
    were dropped in training. A batch with "noise" ~ N(0, 1) begins there.

    Args:
      state: Trained weights.
      batch: Conditions; of x the shape alone counts.
      key: [B].
      denoise: In place of the model's own, guided `denoiser`.
      stop: logsnr to stop at, where x_t is returned (see `conditioning`).
      **knobs: As `knobs`; what is not among them goes to the sampler.
    """
    knobs = self.knobs | knobs
    batch = self.augmented(batch, key, knobs.pop("level", 0.0))
    denoise = denoise or self.guided(state, batch, knobs)
    path, n = self.path_points(knobs)
    if stop is not None:
      denoise, path, n = conditioning.stop_early(denoise, path, n, stop)
    if "noise" in batch:
      x_T = path.sigma[0] * batch["noise"]
    else:
      x_T = path.sigma[0] * self.noise(fold(key, 0), batch["x"].shape[1:])
    others = {"steps", *traits(self.path).knobs, *GUIDANCE, *traits(self.guide).knobs}
    knobs = {k: v for k, v in knobs.items() if k not in others}
    if "process" in traits(self.sampler).takes:
      knobs["process"] = self.process
    return self.sampler(denoise, x_T, path, n, fold(key, 1), **knobs)

  def run_sampler(
    self, D: Denoise, x_t: Array, path: Noise, n: Array, key: Key, knobs: Mapping[str, Any]
  ) -> Array:
    """x_0 by the model's sampler from x_t, which has the noise of the path's first point.

    Of `knobs` it takes those that are the sampler's; keys [B].
    """
    own = {k: knobs[k] for k in traits(self.sampler).knobs if k in knobs}
    if "process" in traits(self.sampler).takes:
      own["process"] = self.process
    return self.sampler(D, x_t, path, n, key, **own)

  def path_points(self, knobs: Mapping[str, Any]) -> tuple[Noise, Array]:
    """The path for all these knobs, [LONGEST], and how many points it has."""
    n = count(knobs["steps"], LONGEST)
    own = {k: knobs[k] for k in traits(self.path).knobs}
    return self.process(self.path(self.process, jnp.arange(LONGEST), n, **own)), n

  def augmented(self, batch: Batch, key: Key, level: Array | float) -> Batch:
    """`low_res` with noise of this level, unless the batch has a level."""
    if not self.augment or "level" in batch:
      return batch
    level = jnp.full(len(batch["x"]), level, jnp.float32)
    z_0 = self.conditions(batch)["low_res"]
    return batch | self.augment(fold(key, 2), z_0, level)

  def guided(self, state: State, batch: Batch, knobs: Mapping[str, Any]) -> Denoise:
    """The `denoiser` that knobs of guidance make; it does not look at others."""
    weight = [knobs[k] for k in GUIDANCE if k in knobs]
    guide = {k: knobs[k] for k in traits(self.guide).knobs if k in knobs}
    return self.denoiser(state, batch, *weight, **guide)

  def denoiser(
    self,
    state: State,
    batch: Batch,
    w: Array | None = None,
    lo: Array = 0.0,
    hi: Array = float("inf"),
    **guide,
  ) -> Denoise:
    """D(x_t, t), guided by weight `w` where lo < sigma / alpha <= hi.

    With w = None it is not guided at all. `guide`: knobs of the rule.
    """
    conditions = self.conditions(batch)
    if self.classes:
      if "y" not in conditions and not self.free:
        raise ValueError("this model always had labels: give it batch['y']")
      y = conditions.get("y", jnp.full(len(batch["x"]), -1))
      conditions["y"] = jnp.where(y < 0, self.classes, y)
    D = functools.partial(self.D, state, conditions)
    if w is not None:
      unlabelled = conditions | {"y": jnp.full(len(batch["x"]), self.classes)}
      D_null = functools.partial(self.D, state, unlabelled)
      D = self.guide(D, D_null, guidance.within(w, lo, hi), **guide)
    return D if self.bound is None else guidance.clip(D, -self.bound, self.bound)

  def D(
    self, state: State, conditions: dict[str, Any], x_t: Array, t: Noise, key: Key | None = None
  ) -> Array | Estimate:
    """Estimates x_0 from x_t (Karras et al. 2022, Eq. 7); keys [B] of dropout."""
    c_skip, c_out, c_in, c_noise = self.precond(t)
    mean = self.residual_mean(conditions, x_t)
    residual = x_t - t.alpha * mean
    F, frac = self.F(state, c_in * residual, c_noise, conditions, key)
    x_0 = mean + c_skip * residual + c_out * F
    return x_0 if frac is None else Estimate(x_0, frac)

  def F(
    self, state: State, x: Array, c_noise: Array, conditions: dict[str, Any], key: Key | None = None
  ) -> tuple[Array, Array | None]:
    """The net itself; c_noise is [B, 1, .., 1] or [] for all alike.

    The second is the fraction of the variance, in [0, 1] or so, if it learns
    one: (v + 1) / 2 of its v (Nichol & Dhariwal 2021, Eq. 15).
    """
    c_noise = jnp.broadcast_to(jnp.ravel(c_noise), (len(x),))
    F = self.net.apply(state.variables("net"), x, c_noise, key=key, **conditions)
    if F.shape == x.shape:
      return F, None
    F, v = jnp.split(F, 2, -1)
    return F, (v + 1) / 2

  def conditions(self, batch: Batch) -> dict[str, Any]:
    """What the net takes of a batch, and what is made of its x."""
    names = [*self.cond, *(["y"] if self.classes else []), *(["level"] if self.augment else [])]
    present = {k: batch[k] for k in names if k in batch}
    absent = {k: make for k, make in self.cond.items() if make and k not in batch}
    return present | {k: make(batch["x"]) for k, make in absent.items()}

  def residual_mean(self, conditions: dict[str, Any], x: Array) -> Array | float:
    """The mean of x that `around` knows; the net has to do with the rest."""
    return self.around(conditions, x.shape) if self.around else 0.0

  def drop_labels(self, batch: Batch, key: Key) -> Batch:
    """Drops a share of the labels, for guidance without a classifier."""
    if not self.free:
      return batch
    dropped = jax.vmap(jax.random.bernoulli, (0, None))(key, self.label_drop)
    return batch | {"y": jnp.where(dropped, self.classes, batch["y"])}

  def nfe(self, **knobs) -> int:
    """How often the net is evaluated for one sample, at the most."""
    knobs = self.knobs | knobs
    evaluations = traits(self.sampler).nfe(min(max(int(knobs["steps"]), 1), LONGEST))
    return evaluations * (2 if knobs.get("guidance", 1.0) != 1 else 1)
