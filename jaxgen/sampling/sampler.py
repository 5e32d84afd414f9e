"""A trained model, ready to sample: from a checkpoint to a jitted function."""

import dataclasses
import functools
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import compiler, core, sharding
from jaxgen.errors import UserError, guarding, nearest
from jaxgen.keys import example_keys, fold
from jaxgen.sampling import presets
from jaxgen.sampling.parts import key_of
from jaxgen.sampling.presets import PATHS
from jaxgen.sampling.stages import build_cascade, stages_of
from jaxgen.sampling.surface import Surface
from jaxgen.sampling.trained import (
  Trained,
  check_samples,
  condition_shape,
  guided,
  load_trained,
  sampling_state,
)

# Numbers or names of classes.
Labels = int | str | Sequence[int | str] | None


def number_of(word: str, class_names: Sequence[str], others: str = "") -> int:
  """A class, given by its number, "3", or by its name; "#3" is never a name.

  Raises:
    UserError: There is no class of that name, or it is the number of another
      one. `others` is what else one may say.
  """
  number = re.fullmatch("(#?)(-?[0-9]{1,9})", word)
  if word in class_names:
    place, end = class_names.index(word), len(class_names)
    if number and int(number[2]) != place and 0 <= int(number[2]) < end:
      raise UserError(
        f"labels={word}: the class of that name is number {place}, and the "
        f"class of that number is {class_names[int(number[2])]!r}: say "
        f"#{place} or #{number[2]}"
      )
    return place
  if number:
    return int(number[2])
  raise UserError(
    f"labels={word}: want {others}numbers, such as 3 or 0,1,2"
    + (
      ", or names of classes" + nearest(word, class_names)
      if class_names
      else ": the names of this model's classes are not known"
    )
  )


def load(
  workdir: str | Sequence[str],
  *,
  ema: str | None = None,
  step: int | None = None,
  sampler: str | None = None,
  respacing: str | None = None,
  classifier: str | None = None,
  worse: str | None = None,
  guide_ema: str | None = None,
  guide_step: int | None = None,
  samples: bool = True,
) -> "Sampler":
  """A trained model, ready to sample: reads the averaged weights alone.

  Args:
    workdir: Where it was trained. Of a cascade, or several: the stages of
      one. What follows then holds for all stages that have it.
    ema: A profile of the config (default: the first), "none" for the weights
      themselves, or a relative width such as "0.1", put together from all kept
      checkpoints' power profiles.
    step: Of the checkpoint; default: the last good one.
    sampler: One of presets.SAMPLERS, with its own defaults.
    respacing: Steps of its training to visit, as ADM says it: "250", "ddim25",
      "10,10,15,20"; or one of presets.PATHS, such as "karras"; or "fast".
    classifier: Workdir of a noisy classifier to guide with: knob `scale`.
    worse: Workdir of a worse model to keep away from, such as this one at an
      earlier step: knob `auto`.
    guide_ema: Like `ema`, of the classifier or the worse model.
    guide_step: Like `step`.
    samples: Whether it is to be sampled; a classifier is read for its features.

  Raises:
    UserError: No checkpoint, profile or sampler of that name, or a misfit.
  """
  stages = stages_of(workdir)
  parts = [load_trained(w, ema, step, sampler, respacing, any_kind=len(stages) > 1) for w in stages]
  for part in parts if samples else ():
    check_samples(type(part.model), f"{part.card['workdir']} holds")
  model = parts[0] if len(parts) == 1 else build_cascade(parts)
  return Sampler.of(with_guide(model, classifier, worse, guide_ema, guide_step))


def with_guide(
  model: Trained, classifier: str | None, worse: str | None, ema: str | None, step: int | None
) -> Trained:
  """The model, guided by what was trained in one of two workdirs, if any."""
  if classifier and worse:
    raise UserError("give a classifier or a worse model to guide with, not both")
  if classifier or worse:
    guide = load_trained(classifier or worse, ema, step)
    return guided(model, guide, "classifier" if classifier else "worse")
  if ema or step is not None:
    raise UserError(
      "guide_ema and guide_step are of a classifier or a worse model, and there is none"
    )
  return model


def draw(
  model: core.Model,
  profile: str | None,
  shapes,
  classes: int,
  state: core.State,
  key: core.Key,
  real: core.Batch | None = None,
) -> jax.Array:
  """Samples of `shapes` with default knobs, one key [], labels in turn.

  Or with the conditions of a `real` batch, for models that take others.
  """
  n = shapes["x"].shape[0]
  batch = {"x": jnp.zeros(shapes["x"].shape)}
  if real is not None:
    batch = core.on_device(real)
  elif "y" in shapes:
    batch["y"] = jnp.arange(n, dtype=jnp.int32) % classes
  mesh, keys = sharding.make_mesh(), example_keys(key, n)
  if n % mesh.size == 0:
    keys = sharding.layout(mesh).rows(keys)
  state = state.averaged(profile) if profile else state
  x = model.sample(sharding.replicate(state, mesh), batch, keys)
  return sharding.replicate(core.as_data(x, shapes["x"].dtype), mesh)


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler(Surface):
  """A trained model with its weights: call `sample`; its parts: see `Surface`.

  Attributes:
    model: The game.
    state: With averaged weights in place of the trained ones.
    shape: Shape of one sample.
    dtype: uint8 for images, float32 for points.
    classes: Number of labels, or 0.
    card: Where the weights came from.
    class_names: Names of the classes in their order; () if unknown.
  """

  model: core.Model
  state: core.State
  shape: tuple[int, ...]
  dtype: np.dtype
  classes: int
  card: dict[str, Any]
  class_names: tuple[str, ...] = ()

  @classmethod
  def of(cls, trained: Trained) -> "Sampler":
    """Puts the weights of a trained model on all devices."""
    data, state = trained.data, sampling_state(trained.step, trained.params, trained.stats)
    return cls(
      trained.model,
      sharding.everywhere(state, sharding.make_mesh()),
      tuple(data["shape"]),
      np.dtype(data["dtype"]),
      data["classes"],
      trained.card,
      tuple(data.get("class_names", ())),
    )

  def sample(
    self,
    key: int | core.Key,
    num: int,
    labels: Labels = None,
    *,
    batch: int = 256,
    times: list[float] | None = None,
    **options: float | np.ndarray,
  ) -> np.ndarray:
    """Draws samples: uint8 [num, H, W, C], or float32 for points.

    One program is compiled for each `batch`; no knob or label makes another.
    Sample i depends on the key, i, its conditions and the knobs alone.

    Args:
      key: A seed, or a key [].
      num: How many.
      labels: One for all, or one each, numbers or names of classes; None:
        every class in turn. -1 asks a guided diffusion model for "any".
      batch: How many to draw at once.
      times: Here the seconds that each batch took are added.
      **options: Knobs such as steps, guidance, eta, see `model.knobs`; and what
        the model is conditioned on beside labels, see `model.cond`: low_res,
        small images uint8 [num, h, w, C]; mel, spectrograms float32 [num,
        frames, mels] (see `vocode` for such of any length). `noise` ~ N(0, 1), float32
        [num, *noise_shape], is where samples begin: x_T of diffusion models, z of GANs and
        VAEs. Fewer than `num` come in turn.
    """
    if batch < 1:
      raise UserError(f"batch={batch}: want at least 1")
    key, conditions = key_of(key), self.conditions(options)
    knobs = {k: v for k, v in options.items() if k not in conditions}
    self.check_count(num)
    settings, y = self.settings(knobs), self.labels(num, labels)
    if y is not None:
      conditions["y"] = y
    parts, finite = [], []
    for inputs in self.inputs(key, range(num), min(batch, num), conditions, settings):
      start = time.perf_counter()
      x, ok = self.program(*inputs)
      if times is not None:
        jax.block_until_ready((x, ok))
        times.append(time.perf_counter() - start)
      parts.append(x)
      finite.append(ok)
    x = np.concatenate([sharding.fetch(x) for x in parts])[:num]
    if not all(jax.device_get(finite)):
      raise UserError(self.not_finite(knobs))
    return x

  @staticmethod
  def not_finite(knobs: Mapping[str, float]) -> str:
    """The message for samples that hold NaN or infinity."""
    return (
      "samples hold NaN or infinity"
      + "".join(f", {k}={v:g}" for k, v in knobs.items())
      + ": the weights are ill, or the knobs too far from their defaults"
    )

  def reload(self, workdir: str | os.PathLike, sampler: str | None = None) -> "Sampler":
    """The newest weights of a workdir, sampled by this one's program.

    Nothing is compiled anew. The workdir has to be of the same model and data,
    and `sampler` the one that this was loaded with.
    """
    newest = Sampler.of(load_trained(workdir, sampler=sampler))
    newest.__dict__["program"] = self.program  # where cached_property looks
    return newest

  def check_count(self, num: int, what: str = "") -> None:
    """UserError for more samples (than `what` asks for) than can be held."""
    what = what or f"num={num}"
    if not 1 <= num < 2**31:  # they are numbered in int32
      raise UserError(f"{what}: want at least 1" + f", and at most {2**31 - 1} samples" * (num > 0))
    size = num * int(np.prod(self.shape)) * self.dtype.itemsize
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
      raise UserError(
        f"{what}: these samples take {size / 2**30:,.0f} GiB"
        f", and this machine has {memory / 2**30:,.0f}"
      )

  def stream(self, *args) -> Iterator[jax.Array]:
    """Samples, batch by batch; takes the arguments of `inputs`."""
    for inputs in self.inputs(*args):
      yield self.program(*inputs)[0]

  def inputs(
    self,
    key: core.Key,
    which: range,
    batch: int,
    conditions: Mapping[str, np.ndarray],
    settings: Mapping[str, float],
    state: core.State | None = None,
  ) -> Iterator[tuple[core.State, core.Batch, core.Key, dict[str, Any]]]:
    """Arguments of `program` for samples number `which`, `batch` at once.

    Args:
      key: [].
      which: Consecutive numbers; the last batch may hold too many.
      batch: Rounded up to a multiple of the devices.
      conditions: Also the labels, of each sample, or fewer, in turn.
      settings: All knobs.
      state: In place of the sampler's own.
    """
    settings = {k: jnp.float32(v) for k, v in settings.items()}
    # (Of a training, weights may lie in parts.)
    state = jax.device_put(state or self.state, sharding.replicated(self.mesh))
    batch += -batch % self.mesh.size
    for first in which[::batch]:
      i = np.arange(first, first + batch)
      rows = {k: v[i % len(v)] for k, v in conditions.items()}
      rows = sharding.local_rows({"i": i.astype(np.int32)} | rows)
      yield state, sharding.shard_batch(rows, self.mesh), key, settings

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    """All devices: samples are cut, and each device has all weights."""
    return sharding.make_mesh()

  @functools.cached_property
  def program(self):
    """The one jitted function: (state, {"i", "y"} [B], key, knobs) -> x, ok.

    `ok` says whether x is finite, which bytes do not show.
    """

    def run(state, conditions, key, knobs):
      batch = {"x": jnp.zeros((len(conditions["i"]), *self.shape)), **core.on_device(conditions)}
      i = batch.pop("i")
      keys = fold(jnp.broadcast_to(key, i.shape), i)
      # (As it is traced: whatever runs is past all mistakes of a config.)
      with guarding(f"{self.card.get('workdir', 'this model')} cannot be sampled"):
        x = self.model.sample(state, batch, keys, **knobs)
        return core.as_data(x, self.dtype), jnp.isfinite(x).all()

    return jax.jit(
      run,
      out_shardings=(sharding.batched(self.mesh), sharding.replicated(self.mesh)),
      compiler_options=compiler.options(self.mesh),
    )

  def settings(self, knobs: dict[str, float]) -> dict[str, float]:
    """All knobs: these, and the others' defaults; UserError for a misfit."""
    if expand := core.trait(self.model, "expand"):  # one name for all stages
      knobs = expand(knobs)
    defaults = self.model.knobs
    for name, value in knobs.items():
      if name not in defaults:
        raise UserError(self.no_knob(name))
      presets.check_knob(name, value, defaults[name])
    settings = defaults | {k: float(v) for k, v in knobs.items()}
    spacing = self.card.get("respacing", "")
    if spacing and spacing not in PATHS and settings["steps"] != defaults["steps"]:
      raise UserError(
        f"steps={settings['steps']:g}: respacing={spacing} makes {defaults['steps']}; leave either"
      )
    return settings

  def no_knob(self, name: str) -> str:
    """The message for a knob that the model does not have."""
    kind, sampler = type(self.model).__name__, self.card.get("sampler")
    if not sampler:
      return f"a {kind} has no knob {name!r}" + nearest(name, self.model.knobs)
    others = presets.samplers_with(name)
    return f"a {kind} with the sampler {sampler.rpartition('.')[2]} has no knob {name!r}" + (
      f"; {', '.join(others)} have it" if others else nearest(name, self.model.knobs)
    )

  def conditions(self, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """The options that the model is conditioned on; UserError for a misfit."""
    conditions = {}
    if "noise" in options and np.ndim(options["noise"]):  # else a VAE's knob
      a = conditions["noise"] = np.asarray(options["noise"], np.float32)
      self.check_noise(a.shape)
    for name, make in core.trait(self.model, "cond").items():
      if name not in options:
        raise UserError(f"this model makes x from {name}: give it")
      a = conditions[name] = np.asarray(options[name])
      shape = a.shape[1:] if make is None else condition_shape(make, self.shape)
      dtype = np.dtype(np.float32) if name == "mel" else self.dtype
      if make and (a.shape[1:] != shape or a.dtype != dtype or not len(a)):
        raise UserError(
          f"{name} is {a.dtype} {list(a.shape)}: want {dtype} [n, {', '.join(map(str, shape))}]"
        )
    return conditions

  def labels(self, num: int, labels: Labels) -> np.ndarray | None:
    """One label for each sample, [num] int32; None without classes."""
    if num < 1:
      raise UserError(f"num={num}: want at least 1")
    if not self.classes:
      if labels is not None:
        raise UserError("this model was trained without labels")
      return None
    if labels is None:
      return np.arange(num, dtype=np.int32) % self.classes
    y = np.ravel(self.numbers(labels))
    least = -1 if core.trait(self.model, "free") else 0
    for label in y.tolist():
      if not least <= label < self.classes:
        raise UserError(f"labels run from 0 to {self.classes - 1}, got {label}")
    return np.resize(y.astype(np.int32), num)  # a few labels, in turn

  def numbers(self, labels: Labels) -> int | Sequence[int]:
    """Numbers of classes that are given by name; numbers stay."""
    if isinstance(labels, str):
      return number_of(labels, self.class_names)
    if isinstance(labels, Sequence):
      return [self.numbers(one) for one in labels]
    return labels
