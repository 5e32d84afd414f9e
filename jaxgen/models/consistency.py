"""Models that jump from noise to x_0: consistency models, and distilled ones."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, State
from jaxgen.diffusion import time_pairs
from jaxgen.diffusion.denoiser import mean
from jaxgen.diffusion.process import EDM
from jaxgen.diffusion.traits import traits
from jaxgen.errors import UserError
from jaxgen.keys import fold, normal
from jaxgen.models.diffusion import Diffusion


@dataclasses.dataclass(frozen=True)
class Consistency(Diffusion):
  """D(x_t, t) is where the probability-flow ODE leads from x_t, and not a mean.

  The net, its preconditioning, labels, guidance and sampling are a diffusion
  model's, on the process EDM; see `diffusion.time_pairs` for what is learned.

  A teacher is a diffusion model, trained before, with the same net. Training
  begins with its averaged weights, read from its workdir before the first step;
  a target that takes a teacher keeps a copy, the frozen group "teacher", which
  every checkpoint has.

  Attributes:
    draw_t: (key [B], ndim, step) -> t, s; in the place of a diffusion model's.
    weighting: (t, s) -> weight of the distance, likewise.
    target: What D is drawn to.
    distance: (gap [B, ...]) -> [B].
    decay: step -> decay of the target net's average; None: the net is its own
      target, and no gradient flows (Song & Dhariwal 2024, Sec. 3.2). The first
      is of the move after step 0.
    teacher: The preconditioning with which the teacher's net was trained; None:
      there is no teacher.
    teacher_workdir: Where it was trained.
  """

  weighting: Callable = time_pairs.uniform_weight
  target: Callable = time_pairs.training
  distance: Callable = time_pairs.mean_square
  decay: Callable | None = None
  teacher: Callable | None = None
  teacher_workdir: str = ""

  def __post_init__(self):
    if not isinstance(self.process, EDM):
      raise UserError(
        f"config.model.process is {self.process}: consistency models want diffusion.process.EDM"
      )
    if self.keeps_teacher and self.teacher is None:
      raise UserError(
        "config.model.target takes a teacher: say in config.model.teacher by which "
        "preconditioning its net was trained"
      )

  @property
  def keeps_teacher(self) -> bool:
    """Whether the target asks the teacher in every step."""
    return "teacher" in traits(self.target).takes

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats. The teacher is as before its own training."""
    params, stats = super().init(batch, key)
    if self.keeps_teacher:
      params["teacher"] = jax.tree.map(jnp.copy, params["net"])
    if self.decay:
      params_of_target = jax.tree.map(jnp.copy, params["net"])
      stats["target"] = {"params": params_of_target, "moved": jnp.int32(0)}
    return params, stats

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """The weighted distance of D at t from the target."""
    x, conditions = batch["x"], self.conditions(self.drop_labels(batch, fold(key, 2)))
    t, s = self.draw_t(fold(key, 0), x.ndim, state.step)
    z = normal(fold(key, 1), x.shape[1:])
    stats = self.followed(state)
    theirs = stats["target"]["params"] if self.decay else state.params["net"]
    noise = fold(key, 3)  # of dropout: the same at both ends
    D = self.at(state, conditions, noise)
    f = self.at(with_net(state, theirs), conditions, noise)
    teacher = None
    if self.keeps_teacher:
      theirs = dataclasses.replace(self, precond=self.teacher)
      teacher = theirs.at(with_net(state, state.params["teacher"]), conditions)
    target = jax.lax.stop_gradient(self.target(x, z, t, s, f, teacher))
    gap = D(x + t * z, t) - target
    loss = jnp.mean(jnp.ravel(self.weighting(t, s)) * self.distance(gap))
    return loss, (stats, {"mse": jnp.mean(gap**2)})

  def at(
    self, state: State, conditions: dict[str, Any], key: Key | None = None
  ) -> Callable[[Array, Array], Array]:
    """(x_t, t) -> D; keys [B] of dropout."""
    return lambda x_t, t: mean(self.D(state, conditions, x_t, self.process(t), key))

  def followed(self, state: State) -> Groups:
    """Stats whose target net has followed the net's last move.

    So it stands where it would if it followed right after that. At the first
    step it is the net itself. Parts of one batch all see the same.
    """
    if not self.decay:
      return state.stats
    own, step = state.stats["target"], state.step
    mu = jnp.where(step > 0, self.decay(jnp.maximum(step - 1, 0)), 0.0)
    mu = jnp.where((step > own["moved"]) | (step == 0), mu, 1.0)
    net = jax.lax.stop_gradient(state.params["net"])
    moved = jax.tree.map(lambda a, b: b + mu * (a - b), own["params"], net)
    # b + 1 (a - b) need not be a.
    moved = jax.tree.map(lambda a, new: jnp.where(mu == 1, a, new), own["params"], moved)
    return state.stats | {"target": {"params": moved, "moved": step}}


def with_net(state: State, net: Any) -> State:
  """A state whose net has other weights."""
  return state.replace(params=state.params | {"net": net})
