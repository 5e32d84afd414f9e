"""A diffusion model that a second model guides while it samples."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, State
from jaxgen.diffusion import guidance
from jaxgen.diffusion.denoiser import Denoise, mean, with_x_0
from jaxgen.diffusion.process import Noise
from jaxgen.diffusion.traits import traits
from jaxgen.errors import UserError
from jaxgen.models.classifier import Classifier
from jaxgen.models.diffusion import GUIDANCE, Diffusion

Gradient = Callable[[Array, Noise], Array]
When = Callable[[Noise], Array]


@dataclasses.dataclass(frozen=True)
class Guided:
  """Samples a diffusion model by the advice of another; both are trained.

  A classifier of x_t pushes samples towards its labels, by `scale`: with the
  gradient at x_t, as in ADM's code, which moves the mean in DDPM's steps
  (Dhariwal & Nichol 2021, Alg. 1: `ancestral` with eta = 1) and x_0 in all
  others (Alg. 2). A worse diffusion model pushes them away from its own, by
  `auto` (Karras et al. 2024, Eq. 3). Both, like `guidance`, act where
  lo < sigma / alpha <= hi. A `scale` of 0 and an `auto` of 1 are no guidance;
  then the guide is not evaluated.

  Attributes:
    diffusion: What is sampled. Its groups keep their names.
    guide: The other one; its net is the group "guide".
  """

  diffusion: Diffusion
  guide: Classifier | Diffusion

  players = ()  # nobody moves: it is for sampling alone

  def __post_init__(self):
    ours, theirs = self.diffusion.process, self.guide.process
    if theirs is None:
      raise UserError(
        "the classifier was trained on clean x: to guide, it "
        f"has to be trained with the process {ours}"
      )
    if ours != theirs:
      raise UserError(
        f"the guide was trained on the process {theirs}, but the "
        f"diffusion model on {ours}: they must be the same"
      )

  @property
  def sampled(self) -> tuple[str, ...]:
    """Groups of the model, and the guide's."""
    return (*self.diffusion.sampled, "guide")

  @property
  def classifies(self) -> bool:
    """Whether the guide is a classifier."""
    return isinstance(self.guide, Classifier)

  @property
  def knobs(self) -> dict[str, float]:
    """Those of the diffusion model, the interval, and `scale` or `auto`."""
    own = {k: GUIDANCE[k] for k in ("lo", "hi")} | self.diffusion.knobs
    return own | ({"scale": 1.0} if self.classifies else {"auto": 2.0})

  @property
  def free(self) -> bool:
    """Whether it takes the label -1, "any"."""
    return self.diffusion.free or not self.diffusion.classes

  @property
  def classes(self) -> int:
    """Number of labels of the model."""
    return self.diffusion.classes

  @property
  def cond(self) -> Mapping[str, Callable | None]:
    """Conditions of the model, as in Diffusion."""
    return self.diffusion.cond

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    ours = self.diffusion.init(batch, key)
    theirs = self.guide.init(batch, jax.random.fold_in(key, 1))
    params, stats = (a | {"guide": b["net"]} for a, b in zip(ours, theirs, strict=True))
    return params, stats

  def sample(self, state: State, batch: Batch, key: Key, **knobs) -> Array:
    """Keys [B] -> x_0 in [-1, 1], shaped and conditioned like `batch`."""
    knobs = self.knobs | knobs
    batch = self.diffusion.augmented(batch, key, knobs.pop("level", 0.0))
    D, knobs = self.advised(state, batch, knobs, self.moves_mean)
    return self.diffusion.sample(state, batch, key, denoise=D, **knobs)

  def guided(self, state: State, batch: Batch, knobs: Mapping[str, Any]) -> Denoise:
    """The denoiser that knobs of guidance make: a classifier, too, moves x_0."""
    return self.advised(state, batch, self.knobs | knobs, False)[0]

  def advised(
    self, state: State, batch: Batch, knobs: Mapping[str, Any], moves_mean: bool
  ) -> tuple[Denoise, dict[str, Any]]:
    """The guided denoiser, and the sampler's knobs: what is left of all, and a gradient."""
    knobs = dict(knobs)
    w, lo, hi = (knobs.pop(k, None) for k in GUIDANCE)
    guide = {k: knobs.pop(k) for k in traits(self.diffusion.guide).knobs if k in knobs}
    theirs = state.replace(
      params=state.params | {"net": state.params["guide"]},
      stats=state.stats | {"net": state.stats.get("guide", {})},
    )
    if self.classifies:
      y = batch.get("y", jnp.full(len(batch["x"]), -1))
      within = lambda t: (lo < t.sigma / t.alpha) & (t.sigma / t.alpha <= hi)
      D = self.diffusion.denoiser(state, batch, w, lo, hi, **guide)
      return self.push(D, self.guide.gradient(theirs, y), within, knobs, moves_mean)
    good, bad = (dataclasses.replace(m, bound=None) for m in (self.diffusion, self.guide))
    D = guidance.autoguidance(
      good.denoiser(state, batch, w, lo, hi, **guide),
      bad.denoiser(theirs, batch),
      guidance.within(knobs.pop("auto"), lo, hi),
    )
    if (bound := self.diffusion.bound) is not None:
      D = guidance.clip(D, -bound, bound)
    return D, knobs

  def push(
    self, D: Denoise, gradient: Gradient, within: When, knobs: dict[str, Any], moves_mean: bool
  ) -> tuple[Denoise, dict[str, Any]]:
    """Towards the gradient -> the guided denoiser, and the sampler's knobs."""
    scale = jnp.asarray(knobs["scale"], jnp.float32)
    knobs = {k: v for k, v in knobs.items() if k != "scale"}
    if moves_mean:
      ddpm = jnp.where(knobs["eta"] == 1, scale, 0.0)
      scale = scale - ddpm
      on = lambda t: within(t) & (ddpm != 0)
      knobs["gradient"] = _where(on, lambda x_t, t: ddpm * gradient(x_t, t))
    # Of clipped estimates, as ADM's. Where alpha = 0, x_t says nothing of y.
    shifts = lambda t: within(t) & (scale != 0) & (t.alpha > 0)
    shift = _where(shifts, guidance.classifier(_zero, gradient, scale))

    def denoise(x_t: Array, t: Noise) -> Any:
      estimate = D(x_t, t)
      return with_x_0(estimate, mean(estimate) + shift(x_t, t))

    return denoise, knobs

  @property
  def moves_mean(self) -> bool:
    """Whether the sampler can take a gradient to move its mean by."""
    return "gradient" in traits(self.diffusion.sampler).takes

  def nfe(self, **knobs) -> int:
    """How often networks are evaluated for one sample, at the most.

    A classifier's gradient counts as one.
    """
    knobs = self.knobs | knobs
    ours = {k: v for k, v in knobs.items() if k in self.diffusion.knobs}
    points = self.diffusion.nfe(**ours | {"guidance": 1.0})
    guides = knobs["scale"] != 0 if self.classifies else knobs["auto"] != 1
    return self.diffusion.nfe(**ours) + points * guides


def _zero(x_t: Array, t: Noise) -> Array:
  return jnp.zeros_like(x_t)


def _where(on: When, f: Gradient) -> Gradient:
  """f where `on`; elsewhere zero, and f is not evaluated, if one level is for all."""

  def gradient(x_t: Array, t: Noise) -> Array:
    if jnp.ndim(on(t)):  # a level each
      return jnp.where(on(t), f(x_t, t), 0.0)
    return jax.lax.cond(on(t), f, _zero, x_t, t)

  return gradient
