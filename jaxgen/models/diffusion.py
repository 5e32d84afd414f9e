"""Diffusion: DDPM, ADM, EDM, SR3, CDM stages and DiT are one model."""
import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

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
from jaxgen.diffusion import guidance, samplers
from jaxgen.diffusion.process import Noise

LONGEST = 1000  # points of a sampling path at the most


@dataclasses.dataclass(frozen=True)
class Diffusion:
  """Learns to denoise x_t = alpha x_0 + sigma eps; samples by undoing it.

  Attributes:
    net: F(c_in x_t, c_noise [B], y=, key=), shaped like x.
    process: t -> Noise(t, alpha, sigma).
    precond: Noise -> c_skip, c_out, c_in, c_noise.
    draw_t: (key [B], ndim) -> t [B, 1, .., 1] to train at.
    path: (process, i, n) -> t, the points to sample at; i = 0 is the noisiest.
    sampler: (denoise, x_T, path, n, key, **knobs) -> x_0.
    steps: Points of the path when sampling does not say.
    classes: Number of labels; the net takes label `classes` for "none".
    label_drop: Share of labels dropped in training, for classifier-free
      guidance (Ho & Salimans 2022, Alg. 1).
    bound: Estimates of x_0 are clipped to [-bound, bound]; None: they are not.
    cond: Further keys of the batch that the net takes.
  """
  net: nn.Module
  process: Callable
  precond: Callable
  draw_t: Callable
  path: Callable
  sampler: Callable
  steps: int = 50
  classes: int = 0
  label_drop: float = 0.1
  bound: float | None = None
  cond: Sequence[str] = ()

  sampled = ("net",)

  @property
  def players(self) -> Sequence[Player]:
    """One: the net."""
    return (Player("net", "net", self.loss),)

  @property
  def knobs(self) -> dict[str, float]:
    """`steps`, `guidance` where there are labels, and those of the sampler."""
    own = {"steps": self.steps} | ({"guidance": 1.} if self.classes else {})
    return own | {
        k: p.default for k, p in inspect.signature(self.sampler).
        parameters.items() if isinstance(p.default, float)}

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    x, given = batch["x"], self.given(batch)
    if self.classes and "y" not in given:
      given["y"] = jnp.zeros(len(x), jnp.int32)
    variables = dict(self.net.init(key, x, jnp.zeros(len(x)), **given))
    return {"net": variables.pop("params")}, {"net": variables}

  def loss(self, state: State, batch: Batch, key: Key
           ) -> tuple[Array, tuple[Groups, Metrics]]:
    """Mean squared error of F: denoising, in the precond's parametrisation."""
    x = batch["x"]
    t = self.process(self.draw_t(fold(key, 0), x.ndim))
    eps = normal(fold(key, 1), x.shape[1:])
    x_t = t.alpha * x + t.sigma * eps
    c_skip, c_out, c_in, c_noise = self.precond(t)
    F = self.F(state, c_in * x_t, c_noise,
               self.given(self.forget(batch, fold(key, 2))), fold(key, 3))
    target = (x - c_skip * x_t) / c_out
    loss = jnp.mean((F - target) ** 2)
    return loss, (state.stats, {})

  def sample(self, state: State, batch: Batch, key: Key, **knobs) -> Array:
    """Keys [B] -> x_0 in [-1, 1], shaped and conditioned like `batch`.

    Labels of -1 (or none at all) ask for unconditional samples.
    """
    knobs = self.knobs | knobs
    n, w = knobs.pop("steps"), knobs.pop("guidance", None)
    n = jnp.clip(jnp.asarray(n, jnp.int32), 1, LONGEST)
    path = self.process(self.path(self.process, jnp.arange(LONGEST), n))
    x_T = samplers.initial(path, fold(key, 0), batch["x"].shape[1:])
    if "process" in inspect.signature(self.sampler).parameters:
      knobs["process"] = self.process  # to churn on it
    return self.sampler(
        self.denoiser(state, batch, w), x_T, path, n, fold(key, 1), **knobs)

  def denoiser(self, state: State, batch: Batch, w: Array | None = None
               ) -> Callable[[Array, Noise], Array]:
    """D(x_t, t) -> x_0, guided by weight `w` (None: no guidance)."""
    given = self.given(batch)
    if self.classes:
      y = given.get("y", jnp.full(len(batch["x"]), -1))
      y = jnp.where(y < 0, self.classes, y)
      nobody = jnp.full_like(y, self.classes)
      D = functools.partial(self.D, state, given | {"y": y})
      D_null = functools.partial(self.D, state, given | {"y": nobody})
      D = D if w is None else guidance.classifier_free(D, D_null, w)
    else:
      D = functools.partial(self.D, state, given)
    if self.bound is None:
      return D
    return guidance.clip(D, -self.bound, self.bound)

  def D(self, state: State, given: dict[str, Any], x_t: Array, t: Noise
        ) -> Array:
    """Estimates x_0 from x_t (Karras et al. 2022, Eq. 7)."""
    c_skip, c_out, c_in, c_noise = self.precond(t)
    return c_skip * x_t + c_out * self.F(state, c_in * x_t, c_noise, given)

  def F(self, state: State, x: Array, c_noise: Array, given: dict[str, Any],
        key: Key | None = None) -> Array:
    """The net itself; c_noise is [B, 1, .., 1] or [] for all alike."""
    c_noise = jnp.broadcast_to(jnp.ravel(c_noise), (len(x),))
    return self.net.apply(
        state.variables("net"), x, c_noise, key=key, **given)

  def given(self, batch: Batch) -> dict[str, Any]:
    """The conditions that the net takes."""
    known = (("y",) if self.classes else ()) + tuple(self.cond)
    return {k: batch[k] for k in known if k in batch}

  def forget(self, batch: Batch, key: Key) -> Batch:
    """Drops a share of the labels, for guidance without a classifier."""
    if not self.classes:
      return batch
    lost = jax.vmap(jax.random.bernoulli, (0, None))(key, self.label_drop)
    return batch | {"y": jnp.where(lost, self.classes, batch["y"])}

  def nfe(self, **knobs) -> int:
    """How often the net is evaluated for one sample."""
    knobs = self.knobs | knobs
    evaluations = getattr(self.sampler, "func", self.sampler).nfe
    twice = 2 if knobs.get("guidance", 1.) != 1 else 1
    return twice * evaluations(min(max(int(knobs["steps"]), 1), LONGEST))
