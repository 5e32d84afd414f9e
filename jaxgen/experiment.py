"""What a config describes, built and checked before anything is written."""
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.build import build, nearest
from jaxgen.checkpoint import as_json
from jaxgen.data.pipeline import check_crop
from jaxgen.data.sources import Source, open_split
from jaxgen.errors import UserError, refusing

# The fixed part of a config: model, optim and ema are for `build` to judge.
FIELDS = {
    "": ("seed", "steps", "batch", "accumulate", "patience", "mesh", "data",
         "model", "optim", "ema", "log", "checkpoint"),
    "mesh": ("data", "fsdp"),
    "data": ("source", "split", "classes", "flip", "crop", "workers",
             "size", "channels"),
    "log": ("every", "pictures", "histograms", "eval"),
    "checkpoint": ("every", "keep", "keep_every"),
}
AT_LEAST = {
    "seed": 0, "steps": 1, "batch": 1, "accumulate": 1, "patience": 1,
    "mesh.data": 0, "mesh.fsdp": 0, "data.size": 0, "data.classes": 0,
    "data.workers": 0, "log.every": 1, "log.pictures": 0, "checkpoint.every": 1,
    "checkpoint.keep": 2, "checkpoint.keep_every": 0,
}


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What a config describes, built: the same objects for every verb."""
  config: ConfigDict
  model: core.Model
  init: Callable[[core.Batch, core.Key], core.State]
  step_in: Callable[[core.Layout], Callable]  # the train step, see core

  @classmethod
  def of(cls, config: ConfigDict) -> "Experiment":
    """Builds model, optimisers and averages; UserError on any misfit."""
    check_fields(config)
    model = build(config.model)
    moved = {p.moves for p in model.players}
    for group in sorted(moved ^ set(config.optim)):
      word = "needs" if group in moved else "has no player for"
      raise UserError(f"{config.model.name} {word} optim.{group}; "
                      f"its players move {', '.join(sorted(moved))}")
    tx = complete("optim", config.optim, steps=config.steps)
    ema = complete("ema", config.ema, batch=config.batch)
    return cls(
        config, model, core.make_init(model, tx, tuple(ema)),
        functools.partial(core.make_step, model, tx, ema, config.accumulate))

  @property
  def step(self) -> Callable:
    """The train step of one device."""
    return self.step_in(core.ANYWHERE)

  def abstract(self, source: Source, mesh: jax.sharding.Mesh) -> core.State:
    """Shapes and shardings of the state; UserError if the data do not fit."""
    config, known = self.config, self.config.data.classes
    sharding.check_batch(config.batch, config.accumulate, mesh)
    if known not in (0, source.classes):
      raise UserError(f"data.classes={known}, but {source.name} has "
                      f"{source.classes} labels")
    if config.data.flip and len(source.shape) != 3:
      raise UserError(f"data.flip mirrors images, and {source.name} holds none")
    check_crop(source, config.data.crop)
    if config.model.get("classes", known) != known:
      raise UserError(f"model.classes={config.model.classes}, but "
                      f"data.classes={known}: make them equal")
    shapes, key = dummy(source, config.batch), jax.random.key(0)
    what = f"config.model on {source.name}, {source.shape}"
    try:
      with refusing(what):
        state = jax.eval_shape(self.init, shapes, key)
    except AttributeError as e:  # of y, which is None
      if source.classes or "NoneType" not in str(e):
        raise
      raise UserError(f"{what}: its nets know classes, and there are no labels "
                      "in these data") from e
    abstract = jax.tree.map(
        lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where),
        state, sharding.shardings(state, mesh))
    if not hasattr(self.model, "sample"):  # a classifier
      return abstract
    with refusing(what):
      x = jax.eval_shape(
          lambda s, b: self.model.sample(
              s, core.on_device(b), core.example_keys(key, config.batch)),
          state, shapes)
    if x.shape[1:] != source.shape:
      raise UserError(
          f"the model makes samples of shape {x.shape[1:]}, but {source.name} "
          f"holds {source.shape}: adapt config.model or config.data "
          "(size, channels)" + (
              "; it makes squares, and data.size takes the middle of each image"
              if source.shape[0] not in source.shape[1:2] else ""))
    return abstract

  def fresh(self, source: Source, mesh: jax.sharding.Mesh) -> core.State:
    """The state before the first step, a function of the seed.

    Every device makes its own part: no device ever has all of it.
    """
    shapes = dummy(source, self.config.batch)
    zeros = {k: jnp.zeros(s.shape, s.dtype) for k, s in shapes.items()}
    key = jax.random.key(self.config.seed)
    where = sharding.shardings(jax.eval_shape(self.init, shapes, key), mesh)
    # Runs once, but compiles for long: on a CPU three times what it need.
    hasty = jax.default_backend() == "cpu"
    init = jax.jit(
        self.init, out_shardings=where,
        compiler_options={"xla_backend_optimization_level": 0} if hasty else {})
    return init(zeros, key)


def complete(part: str, specs: Mapping[str, Any], **given) -> dict[str, Any]:
  """Builds each spec of a part and calls it with what the loop knows."""
  made = {}
  for name, spec in specs.items():
    try:
      made[name] = build(spec)(**given)
    except TypeError as e:  # an argument is missing, or of the wrong type
      raise UserError(f"config.{part}.{name}: {e}") from e
  return made


def check_fields(config: ConfigDict) -> None:
  """UserError for a fixed field that is unknown, missing or no sane number."""
  for part, known in FIELDS.items():
    dot = f"{part}." if part else ""
    fields = field(config, part) if part else config
    if not isinstance(fields, ConfigDict | Mapping):
      raise UserError(f"config.{part}={fields!r}: begin with _base.base(...)")
    for key in fields:
      if key not in known:
        raise UserError(f"config.{dot}{key} means nothing"
                        + nearest(key, known))
    for key in known:
      if key not in fields:
        raise UserError(
            f"config.{dot}{key} is missing: begin with _base.base(...)")
  for name, least in AT_LEAST.items():
    value = field(config, name)
    if type(value) is not int or value < least:
      raise UserError(f"config.{name}={value!r}: want a whole number, "
                      f"at least {least}")
  if type(config.data.channels) is not int or (
      config.data.channels not in (0, 1, 3)):
    raise UserError(f"config.data.channels={config.data.channels!r}: want 1 "
                    "(grey), 3 (RGB) or 0 (as they are stored)")
  specs = {"model": config.model} | {
      f"{part}.{k}": v for part in ("optim", "ema")
      for k, v in config[part].items()}
  for name, spec in specs.items():
    if not isinstance(spec, ConfigDict) or "name" not in spec:
      raise UserError(f'config.{name} must be dict(name="module.Thing", ...)')


def field(config: ConfigDict, path: str) -> Any:
  """config.a.b for "a.b"."""
  for key in path.split("."):
    config = config[key]
  return config


def open_data(config: ConfigDict) -> Source:
  """The source that a config trains on."""
  return open_split(config.data)


def dummy(source: Source, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
  """The shape of a batch, without its contents."""
  shapes = {"x": jax.ShapeDtypeStruct((batch, *source.shape), source.dtype)}
  if source.classes:
    shapes["y"] = jax.ShapeDtypeStruct((batch,), jnp.int32)
  return shapes


def describe(config: ConfigDict, source: Source) -> dict[str, Any]:
  """What a checkpoint says of itself, beside the state."""
  classes = config.data.classes
  return {
      "config": as_json(config),
      "data": {"name": source.name, "classes": classes,
               "class_names": list(source.class_names) if classes else [],
               "shape": list(source.shape), "dtype": str(source.dtype),
               "examples": len(source), "fingerprint": source.fingerprint}}
