"""Cascades: a model of small images, and upsamplers one after the other."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core
from jaxgen.core import Array, Batch, Groups, Key, Model, State
from jaxgen.diffusion import degrade
from jaxgen.keys import fold
from jaxgen.models.diffusion import Diffusion, stop_early


@dataclasses.dataclass(frozen=True)
class Cascade:
  """Samples a chain of stages as one program (Ho et al. 2022, Alg. 1).

  Every stage but the first is an upsampler: a model whose condition `low_res`
  is what the stage before it made. Stages are of any kind and were trained on
  their own; the first may be an upsampler, too. Between stages images are
  rounded to bytes, so that the chain is what its stages give by way of files.

  An upsampler with conditioning augmentation is given its small images with
  noise of the `level` s that it asks for: fresh noise (non-truncated, Alg. 2),
  or, where `truncate` is 1, what was left of the noise when the diffusion model
  below was stopped early (truncated; it is stopped at a point of its path, at
  least as noisy as s, and the upsampler is told that point's level).

  Knobs and parameter groups are those of the stages with the stage's number:
  `steps_0`, `level_1`, .. and "0.net".

  Attributes:
    stages: The models.
    shapes: What each makes, (H, W, C).
    classes: Number of labels that each takes, or 0.
    dtype: Of the data.
  """

  stages: Sequence[Model]
  shapes: Sequence[tuple[int, ...]]
  classes: Sequence[int]
  dtype: np.dtype

  players = ()  # nobody moves: stages are trained on their own

  @property
  def sampled(self) -> tuple[str, ...]:
    """What `sample` reads."""
    return tuple(f"{i}.{g}" for i, stage in enumerate(self.stages) for g in stage.sampled)

  @property
  def knobs(self) -> dict[str, float]:
    """Those of all stages, and `truncate` where there is something to stop."""
    own = {f"{k}_{i}": v for i, stage in enumerate(self.stages) for k, v in stage.knobs.items()}
    return own | {f"truncate_{i}": 0.0 for i in range(1, len(self.stages)) if self.truncates(i)}

  def expand(self, knobs: Mapping[str, float]) -> dict[str, float]:
    """`steps` means that of all stages which have it; `steps_1` goes before."""
    out = {k: v for k, v in knobs.items()}
    for name, value in knobs.items():
      all_of_it = [k for k in self.knobs if k.rpartition("_")[0] == name]
      if name not in self.knobs and all_of_it:
        del out[name]
        out = dict.fromkeys(all_of_it, value) | out
    return out

  def truncates(self, i: int) -> bool:
    """Whether stage i can be given what a chain stopped early has made."""
    return bool(getattr(self.stages[i], "augment", None)) and isinstance(
      self.stages[i - 1], Diffusion
    )

  @property
  def free(self) -> bool:
    """Whether all stages with labels take the label -1, "any"."""
    return all(
      getattr(s, "free", False) for s, n in zip(self.stages, self.classes, strict=True) if n
    )

  @property
  def cond(self) -> Mapping[str, Callable | None]:
    """Of the first stage, for an x of this cascade."""

    def made(make: Callable) -> Callable:
      return lambda x: make(jnp.zeros((len(x), *self.shapes[0])))

    return {k: make and made(make) for k, make in getattr(self.stages[0], "cond", {}).items()}

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    params, stats, n = {}, {}, len(batch["x"])
    for i, stage in enumerate(self.stages):
      now = batch | {"x": jnp.zeros((n, *self.shapes[i]))}
      ours = stage.init(now, jax.random.fold_in(key, i))
      for all_of_it, own in zip((params, stats), ours, strict=True):
        all_of_it |= {f"{i}.{g}": v for g, v in own.items()}
    return params, stats

  def sample(self, state: State, batch: Batch, key: Key, **knobs) -> Array:
    """Keys [B] -> x in [-1, 1] of the last stage, conditioned like `batch`."""
    knobs = self.knobs | self.expand(knobs)
    given = {k: v for k, v in batch.items() if k not in ("x", "y", "noise")}
    for i, stage in enumerate(self.stages):
      now = given | {"x": jnp.zeros((len(batch["x"]), *self.shapes[i]))}
      if self.classes[i] and "y" in batch:
        now["y"] = batch["y"]
      if "noise" in batch:
        now["noise"] = shrunk(batch["noise"], self.shapes[i][0])
      mine = {k: knobs[f"{k}_{i}"] for k in stage.knobs}
      args = view(state, i), now, fold(key, i)
      if i + 1 < len(self.stages) and self.truncates(i + 1):
        given = self.stopping(i, args, mine, knobs)
      else:
        x = stage.sample(*args, **mine)
        given = {"low_res": core.on_device(core.as_data(x, self.dtype))}
    return x

  def stopping(self, i: int, args: tuple, mine: dict[str, Any], knobs: dict[str, Any]) -> Batch:
    """What stage i hands on to one with conditioning augmentation."""
    augment = self.stages[i + 1].augment
    s = jnp.asarray(knobs[f"level_{i + 1}"], jnp.float32)
    truncate = (knobs[f"truncate_{i + 1}"] > 0) & (s > 0)
    stop = jnp.where(truncate, augment.process(s).logsnr, jnp.inf)
    x, t = stop_early(self.stages[i], *args, stop, **mine)
    clean = core.on_device(core.as_data(x, self.dtype))
    fresh = augment(fold(args[-1], 3), clean, jnp.full(len(x), s))
    # x_t in the units of the upsampler's own process.
    s = augment.process.inverse(t.logsnr)
    left = {"low_res": augment.process(s).alpha / t.alpha * x, "level": jnp.full(len(x), s)}
    return jax.tree.map(lambda a, b: jnp.where(truncate, a, b), left, fresh)

  def nfe(self, **knobs) -> int:
    """How often networks are evaluated for one sample, at the most."""
    knobs = self.knobs | self.expand(knobs)
    return sum(
      stage.nfe(**{k: knobs[f"{k}_{i}"] for k in stage.knobs})
      for i, stage in enumerate(self.stages)
    )


def view(state: State, i: int) -> State:
  """The state as stage i knows it."""
  own = lambda groups: {g.partition(".")[2]: v for g, v in groups.items() if g.startswith(f"{i}.")}
  return state.replace(params=own(state.params), stats=own(state.stats))


def shrunk(noise: Array, size: int) -> Array:
  """N(0, 1) [B, H, H, C] -> N(0, 1) [B, size, size, C], of the same places."""
  return noise.shape[1] / size * degrade.area(noise, size)
