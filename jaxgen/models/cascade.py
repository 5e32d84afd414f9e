"""Cascades: a model of small images, and upsamplers one after the other."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import Array, Batch, Groups, Key, Model, State, as_data, on_device, trait
from jaxgen.diffusion import conditioning, degrade
from jaxgen.keys import fold
from jaxgen.models.diffusion import Diffusion


@dataclasses.dataclass(frozen=True)
class Cascade:
  """Samples a chain of stages as one program (Ho et al. 2022, Alg. 1).

  Every stage but the first is an upsampler: a model whose condition `low_res`
  is the image that the stage before it made. Stages are of any kind and were
  trained on their own; the first may be an upsampler, too. Between stages
  images are rounded to bytes, so that the chain gives what its stages give by
  way of files.

  An upsampler with conditioning augmentation gets its small images with noise
  of the `level` s that is asked for: fresh noise (non-truncated, Alg. 2) or,
  where `truncate` is 1, x_t of the diffusion model below, stopped early
  (truncated; at a point of its path, at least as noisy as s, whose level the
  upsampler is told).

  Knobs and parameter groups are those of the stages with the stage's number:
  `steps_0`, `level_1`, .. and "0.net".

  Attributes:
    stages: The models.
    shapes: Shape of one sample of each, (H, W, C).
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
    """Groups of all stages."""
    return tuple(f"{i}.{g}" for i, stage in enumerate(self.stages) for g in stage.sampled)

  @property
  def knobs(self) -> dict[str, float]:
    """Those of all stages, and `truncate` where there is something to stop."""
    own = {f"{k}_{i}": v for i, stage in enumerate(self.stages) for k, v in stage.knobs.items()}
    return own | {f"truncate_{i}": 0.0 for i in range(1, len(self.stages)) if self.truncates(i)}

  def expand(self, knobs: Mapping[str, float]) -> dict[str, float]:
    """`steps` means that of all stages which have it; `steps_1` goes before."""
    expanded = dict(knobs)
    for name, value in knobs.items():
      of_stages = [k for k in self.knobs if k.rpartition("_")[0] == name]
      if name not in self.knobs and of_stages:
        del expanded[name]
        expanded = dict.fromkeys(of_stages, value) | expanded
    return expanded

  def truncates(self, i: int) -> bool:
    """Whether stage i can take x_t of a chain that was stopped early."""
    below, stage = self.stages[i - 1], self.stages[i]
    return trait(stage, "augment") is not None and isinstance(below, Diffusion)

  @property
  def free(self) -> bool:
    """Whether all stages with labels take the label -1, "any"."""
    return all(trait(s, "free") for s, n in zip(self.stages, self.classes, strict=True) if n)

  @property
  def cond(self) -> Mapping[str, Callable | None]:
    """Of the first stage, for an x of this cascade."""
    first = lambda make: lambda x: make(jnp.zeros((len(x), *self.shapes[0])))
    return {k: make and first(make) for k, make in trait(self.stages[0], "cond").items()}

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    params, stats, n = {}, {}, len(batch["x"])
    for i, (stage, shape) in enumerate(zip(self.stages, self.shapes, strict=True)):
      own = stage.init(batch | {"x": jnp.zeros((n, *shape))}, jax.random.fold_in(key, i))
      params |= {f"{i}.{g}": v for g, v in own[0].items()}
      stats |= {f"{i}.{g}": v for g, v in own[1].items()}
    return params, stats

  def sample(self, state: State, batch: Batch, key: Key, **knobs) -> Array:
    """Keys [B] -> x in [-1, 1] of the last stage, conditioned like `batch`."""
    knobs = self.knobs | self.expand(knobs)
    conditions = {k: v for k, v in batch.items() if k not in ("x", "y", "noise")}
    for i, stage in enumerate(self.stages):
      own = conditions | {"x": jnp.zeros((len(batch["x"]), *self.shapes[i]))}
      if self.classes[i] and "y" in batch:
        own["y"] = batch["y"]
      if "noise" in batch:
        own["noise"] = shrink(batch["noise"], self.shapes[i][0])
      args = stage_state(state, i), own, fold(key, i)
      if i + 1 < len(self.stages) and self.truncates(i + 1):
        conditions = self.sample_noisy(i, args, knobs)
      else:
        x = stage.sample(*args, **self.knobs_of(i, knobs))
        conditions = {"low_res": self.as_stored(x)}
    return x

  def sample_noisy(self, i: int, args: tuple, knobs: Mapping[str, Any]) -> Batch:
    """Samples stage i for an upsampler with augmentation -> its conditions."""
    stage, augment, knobs_i = self.stages[i], self.stages[i + 1].augment, self.knobs_of(i, knobs)
    s = jnp.asarray(knobs[f"level_{i + 1}"], jnp.float32)
    truncate = (knobs[f"truncate_{i + 1}"] > 0) & (s > 0)
    stop = jnp.where(truncate, augment.process(s).logsnr, jnp.inf)
    path, n = stage.path_points(knobs_i)
    last = conditioning.last_point(path, n, stop)
    t = jax.tree.map(lambda a: a[last], path)
    x = stage.sample(*args, stop=stop, **knobs_i)
    fresh = augment(fold(args[-1], 3), self.as_stored(x), jnp.full(len(x), s))
    # x_t in the units of the upsampler's own process.
    s = augment.process.inverse(t.logsnr)
    stopped = {"low_res": augment.process(s).alpha / t.alpha * x, "level": jnp.full(len(x), s)}
    return jax.tree.map(lambda a, b: jnp.where(truncate, a, b), stopped, fresh)

  def as_stored(self, x: Array) -> Array:
    """x as it comes back from a file: rounded to the data's bytes."""
    return on_device(as_data(x, self.dtype))

  def knobs_of(self, i: int, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of stage i, by the names that it has for them."""
    return {k: knobs[f"{k}_{i}"] for k in self.stages[i].knobs}

  def nfe(self, **knobs) -> int:
    """How often networks are evaluated for one sample, at the most."""
    knobs = self.knobs | self.expand(knobs)
    return sum(stage.nfe(**self.knobs_of(i, knobs)) for i, stage in enumerate(self.stages))


def stage_state(state: State, i: int) -> State:
  """The part of a cascade's state that stage i has, under its own names."""
  own = lambda groups: {g.partition(".")[2]: v for g, v in groups.items() if g.startswith(f"{i}.")}
  return state.replace(params=own(state.params), stats=own(state.stats))


def shrink(noise: Array, size: int) -> Array:
  """N(0, 1) [B, H, H, C] -> N(0, 1) [B, size, size, C], of the same places."""
  return noise.shape[1] / size * degrade.area(noise, size)
