"""What a config describes, built and checked before anything is written."""

import contextlib
import dataclasses
import functools
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxgen import compiler, core, keys, sharding
from jaxgen.checkpoint import pretrained
from jaxgen.config import LARGEST, SEEDS, as_json, build, check_single, find
from jaxgen.data.arrays import Source
from jaxgen.data.pipeline import batches, check_crop, check_latents
from jaxgen.data.points import is_points
from jaxgen.data.sources import open_training
from jaxgen.distributed import cores
from jaxgen.errors import UserError, nearest, refusing

# The fixed part of a config; `build` checks the fields of model, optim and ema.
FIELDS = {
  "": "seed steps batch accumulate patience mesh data model optim ema log checkpoint".split(),
  "mesh": ("data", "fsdp"),
  "data": "source split classes holdout fraction flip crop workers size rate channels".split(),
  "log": ("every", "pictures", "histograms", "eval"),
  "checkpoint": ("every", "keep", "keep_every"),
}
AT_LEAST = {
  **dict.fromkeys(("seed", "mesh.data", "mesh.fsdp", "data.size", "data.rate", "data.classes"), 0),
  **dict.fromkeys(("data.workers", "log.pictures", "checkpoint.keep_every"), 0),
  **dict.fromkeys(("steps", "batch", "accumulate", "patience", "log.every"), 1),
  "checkpoint.every": 1,
  "checkpoint.keep": 2,
}
MEASURED = 8  # batches that a model may look at before the first step
KINDS = {"data.source": str, "data.split": str, "data.flip": bool, "log.histograms": bool}


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
      raise UserError(
        f"{config.model.name} {word} optim.{group}; its players move {', '.join(sorted(moved))}"
      )
    if core.trait(model, "sample") is None:
      for name in ("log.pictures", "log.eval.every"):
        if field(config, name):
          raise UserError(
            f"config.{name}={field(config, name)}: a {type(model).__name__} makes no samples: "
            "set it to 0"
          )
    tx = complete("optim", config.optim, steps=config.steps)
    ema = complete("ema", config.ema, batch=config.batch)
    return cls(
      config,
      model,
      core.make_init(model, tx, tuple(ema)),
      functools.partial(core.make_step, model, tx, ema, config.accumulate),
    )

  @property
  def step(self) -> Callable:
    """The train step of one device."""
    return self.step_in(core.ANYWHERE)

  def abstract(self, source: Source, mesh: jax.sharding.Mesh) -> core.State:
    """Shapes and shardings of the state; UserError if the data do not fit."""
    config, classes = self.config, self.config.data.classes
    sharding.check_batch(config.batch, config.accumulate, mesh)
    if classes not in (0, source.classes):
      raise UserError(f"data.classes={classes}, but {source.name} has {source.classes} labels")
    if config.data.flip and len(source.shape) != 3:
      raise UserError(f"data.flip mirrors images, and {source.name} holds none")
    check_crop(source, config.data.crop)
    check_latents(source, config.data.flip, config.data.crop)
    check_stored(self.model, source)
    # Of a model of latents, the one that learns them.
    within, where = core.trait(self.model, "model"), "model"
    if within is not None:
      where = "model.model"
    if (own := vars(within or self.model).get("classes", classes)) != classes:
      raise UserError(f"{where}.classes={own}, but data.classes={classes}: make them equal")
    check_labels(within or self.model, classes, source, where)
    shapes, key = dummy(source, config.batch), jax.random.key(0)
    what = f"config.model on {source.name}, {source.shape}"
    if sound := core.trait(source, "rate"):
      what += " (clips of sound: is it a model of sound, such as those of configs/wavegan.py?)"
    try:
      with fitting(what):
        state = jax.eval_shape(self.init, shapes, key)
    except AttributeError as e:  # of y, which is None
      if source.classes or "NoneType" not in str(e):
        raise
      raise UserError(
        f"{what}: its nets know classes, and there are no labels in these data"
      ) from e
    abstract = jax.tree.map(
      lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where),
      state,
      sharding.shardings(state, mesh),
    )
    if core.trait(self.model, "sample") is None:
      return abstract
    with fitting(what):
      x = jax.eval_shape(
        lambda s, b: self.model.sample(s, core.on_device(b), keys.example_keys(key, config.batch)),
        state,
        shapes,
      )
    if x.shape[1:] != source.shape:
      raise UserError(misfit(x.shape[1:], source, bool(sound)))
    return abstract

  def fresh(self, source: Source, mesh: jax.sharding.Mesh) -> core.State:
    """The state before the first step, which the seed determines.

    Every device makes its own part: none ever has all of it. Groups of a user's
    files, and of another workdir, are read; then what looks at data before the
    first step does.
    """
    shapes = dummy(source, self.config.batch)
    zeros = {k: jnp.zeros(s.shape, s.dtype) for k, s in shapes.items()}
    key = jax.random.key(self.config.seed)
    where = sharding.shardings(jax.eval_shape(self.init, shapes, key), mesh)
    init = jax.jit(
      self.init, out_shardings=where, compiler_options=compiler.options(mesh, once=True)
    )
    return self.measure(pretrained.fill(self.model, init(zeros, key), source), source, mesh)

  def measure(self, state: core.State, source: Source, mesh: jax.sharding.Mesh) -> core.State:
    """The state with what the model measures of the first batches, if anything."""
    measure, c = core.trait(self.model, "measure"), self.config
    if measure is None:
      return state

    def look(state, batch, key):
      batch = core.on_device(batch)
      return measure(state, batch, keys.example_keys(key, c.batch))

    program = jax.jit(look, out_shardings=sharding.replicated(mesh))
    stream = batches(
      source,
      batch=c.batch,
      seed=c.seed,
      flip=c.data.flip,
      crop=c.data.crop,
      process=jax.process_index(),
      processes=jax.process_count(),
    )
    with contextlib.closing(stream):
      for i, batch in zip(range(MEASURED), stream, strict=False):
        key = jax.random.fold_in(jax.random.key(c.seed), i)
        state = state.replace(stats=program(state, sharding.shard_batch(batch, mesh), key))
    return state


def misfit(shape: tuple[int, ...], source: Source, sound: bool) -> str:
  """What to do about samples that are shaped unlike the data."""
  line = f"the model makes samples of shape {shape}, but {source.name} holds {source.shape}: "
  if sound:
    if len(shape) != len(source.shape):
      return line + "these are clips of sound: take a config of sound, such as configs/wavegan.py"
    return line + "adapt config.model or the samples of a clip, config.data.size"
  return (
    f"{line}adapt config.model or config.data (size, channels)"
    + "; it makes squares, and data.size takes the middle of each image"
    * (source.shape[0] not in source.shape[1:2])
  )


@contextlib.contextmanager
def fitting(what: str) -> Iterator[None]:
  """Turns errors of networks that cannot be, or not on such data, to UserErrors.

  Our own say what is wrong (`refusing`); a library's speak of shapes alone, so
  the line of ours that called it is named.
  """
  with refusing(what):
    try:
      yield
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as e:
      places = [
        (frame.f_globals["__name__"], number)
        for frame, number in traceback.walk_tb(e.__traceback__)
      ]
      ours = [p for p in places if p[0].startswith("jaxgen.")]
      if isinstance(e, ValueError) and ours[-1] == places[-1]:
        raise
      line = next(iter(str(e).splitlines()), type(e).__name__)
      module, number = ours[-1]
      raise UserError(f"{what}: {line} (in {module}, line {number})") from e


def check_samples(config: Mapping[str, Any], whose: str) -> None:
  """UserError, which begins with `whose`, if a config's model makes none."""
  name = config.get("model", {}).get("name")
  if core.trait(find(name), "sample") is None:
    raise UserError(f"{whose} is a {name.rpartition('.')[2]}: it makes no samples")


def check_labels(model: core.Model, classes: int, source: Source, where: str = "model") -> None:
  """UserError for nets that do not know all the labels they will get.

  `where` in the config the model stands.
  """
  judges = core.trait(model, "sample") is None
  if judges and not source.classes:
    raise UserError(f"a {type(model).__name__} learns labels, and {source.name} has none")
  classes = source.classes if judges else classes
  for name in ("net", "gen", "disc") if classes else ():
    net = vars(model).get(name)
    fields = {} if net is None else vars(net)
    count, want, field = fields.get("classes"), classes, "classes"
    if not judges and "labels" in fields:
      count, want, field = net.labels, classes + core.trait(model, "free"), "labels"
    if isinstance(count, int) and count < want and (count or name != "disc"):
      raise UserError(
        f"config.{where}.{name}.{field}={count}: want {want}, for "
        f"the labels 0 to {classes - 1}" + " and none" * (want > classes)
      )


def check_stored(model: core.Model, source: Source) -> None:
  """UserError for latents that were written before, and a model that wants images."""
  if core.trait(source, "stored") is None:
    return
  if core.trait(model, "codec") is None:
    raise UserError(
      f"{source.name} holds latents, and config.model is a {type(model).__name__} of images: want "
      "models.latent.Latent, over the codec that wrote them"
    )
  if made := [k for k, make in core.trait(model, "cond").items() if make]:
    raise UserError(
      f"{source.name} holds latents, and {made[0]} is made from images: train on the images"
    )


def check_conditions(model: core.Model, source: Source) -> None:
  """UserError for a model of pairs, and data that hold none."""
  brings = core.trait(source, "brings")
  if missing := [name for name in core.trait(model, "wants") if name not in brings]:
    raise UserError(
      f"a {type(model).__name__} learns x from {missing[0]}, and {source.name} holds x alone: take "
      "data.source=pairs:A,B, sides:PATH or unpaired:A,B, or say in config.model.cond what makes it"
    )


def check_attention(model: core.Model, source: Source) -> None:
  """UserError for attention at a height that a net does not have."""
  for name in ("net", "gen", "disc"):
    net = vars(model).get(name)
    if not core.trait(net, "heights"):
      continue
    heights = net.heights(source.shape[0])
    for height in net.attend:
      if height not in heights:
        raise UserError(
          f"config.model.{name}.attend={net.attend}: there is no height "
          f"{height}; of images of {source.shape[0]} pixels there are "
          + ", ".join(map(str, dict.fromkeys(heights)))
        )


def complete(part: str, specs: Mapping[str, Any], **args) -> dict[str, Any]:
  """Builds each spec of a part and calls it with `args` of the loop."""
  things = {}
  for name, spec in specs.items():
    try:
      things[name] = build(spec)(**args)
    except TypeError as e:  # an argument is missing, or of the wrong type
      raise UserError(f"config.{part}.{name}: {e}") from e
  return things


def check_fields(config: ConfigDict) -> None:
  """UserError for a fixed field that is unknown, missing or no sane value."""
  check_single(config, "this")
  for part, names in FIELDS.items():
    dot = f"{part}." if part else ""
    fields = field(config, part) if part else config
    if not isinstance(fields, ConfigDict | Mapping):
      raise UserError(f"config.{part}={fields!r}: begin with _base.base(...)")
    for key in fields:
      if key not in names:
        raise UserError(f"config.{dot}{key} means nothing" + nearest(key, names))
    for key in names:
      if key not in fields:
        raise UserError(f"config.{dot}{key} is missing: begin with _base.base(...)")
  for name, least in AT_LEAST.items():
    value = field(config, name)
    most = SEEDS - 1 if name == "seed" else LARGEST
    if type(value) is not int or not least <= value <= most:
      raise UserError(
        f"config.{name}={value!r}: want a whole number, at least {least} and at most {most}"
      )
  if type(config.data.channels) is not int or (config.data.channels not in (0, 1, 3)):
    raise UserError(
      f"config.data.channels={config.data.channels!r}: want 1 (grey), 3 (RGB) or 0 (as they are "
      "stored)"
    )
  for name, kind in KINDS.items():
    if type(field(config, name)) is not kind:
      raise UserError(
        f"config.{name}={field(config, name)!r}: want "
        + ("true or false" if kind is bool else "a word")
      )
  crop = config.data.crop
  if type(crop) not in (int, float) or not 0 <= crop <= 1:
    raise UserError(f"config.data.crop={crop!r}: want a number from 0 to 1")
  holdout = config.data.holdout
  if type(holdout) not in (int, float) or not 0 <= holdout < 1:
    raise UserError(f"config.data.holdout={holdout!r}: want a share from 0 to below 1, such as 0.2")
  fraction = config.data.fraction
  if type(fraction) not in (int, float) or not 0 < fraction <= 1:
    raise UserError(f"config.data.fraction={fraction!r}: want more than 0 and at most 1")
  specs = {"model": config.model} | {
    f"{part}.{k}": v for part in ("optim", "ema") for k, v in config[part].items()
  }
  for name, spec in specs.items():
    if not isinstance(spec, ConfigDict) or "name" not in spec:
      raise UserError(f'config.{name} must be dict(name="module.Thing", ...)')


def prepare_devices(configs: Iterable[ConfigDict]) -> None:
  """Before jax has devices: those of a CPU on which all of these train.

  One, where a config has a mesh of its own, or learns points: steps of its small nets
  took 1.5 to 2.4 times as long on two. UserError as of `check_fields` and
  `cores.make_devices`.
  """
  batches = []
  for config in configs:
    check_fields(config)
    spread = dict(config.mesh) == {"data": 0, "fsdp": 1} and not is_points(config.data.source)
    batches.append(config.batch // config.accumulate if spread else 1)
  cores.make_devices(batches)


def field(config: ConfigDict, path: str) -> Any:
  """config.a.b for "a.b"."""
  for key in path.split("."):
    config = config[key]
  return config


def open_data(config: ConfigDict) -> Source:
  """The source that a config trains on."""
  return open_training(config.data)


def dummy(source: Source, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
  """The shape of a batch as models are made for, and sampled: x, labels."""
  return core.batch_shapes(source.shape, source.dtype, source.classes, batch)


def training_batch(source: Source, batch: int) -> dict[str, Any]:
  """The shape of a batch as it is trained on: of latents, they stand in x's place.

  What the data bring is shaped like x.
  """
  shapes, stored = dummy(source, batch), core.trait(source, "stored")
  shapes |= {name: shapes["x"] for name in core.trait(source, "brings")}
  if stored is None:
    return shapes
  z = {k: jax.ShapeDtypeStruct((batch, *shape), dtype) for k, (shape, dtype) in stored.items()}
  return {k: v for k, v in shapes.items() if k != "x"} | {"z": z}


def describe(config: ConfigDict, source: Source) -> dict[str, Any]:
  """The meta that goes with every checkpoint."""
  classes = config.data.classes
  return {
    "config": as_json(config),
    "data": {
      "name": source.name,
      "classes": classes,
      "class_names": list(source.class_names) if classes else [],
      "shape": list(source.shape),
      "dtype": str(source.dtype),
      "examples": len(source),
      "fingerprint": source.fingerprint,
      **({"rate": source.rate} if core.trait(source, "rate") else {}),
    },
  }


class Compiled:
  """The train step, compiled once for each set of players that move.

  States come out placed as they went in, in the same memory.
  """

  def __init__(self, experiment: Experiment, mesh: jax.sharding.Mesh):
    self.model, self.config = experiment.model, experiment.config
    self.mesh, self.step = mesh, experiment.step_in(sharding.layout(mesh))
    self.jitted: Callable | None = None  # with the first compilation
    self.programs: dict[tuple[int, ...], Callable] = {}
    self.facts = {"compile_seconds": 0.0, "peak_bytes": 0}

  def __call__(
    self, i: int, state: core.State, batch: core.Batch, seed: core.Key
  ) -> tuple[core.State, core.Metrics]:
    turn = core.turn(self.model, i)
    if turn not in self.programs:
      self.compile(turn, state, batch, seed)
    return self.programs[turn](state, batch, seed)

  def has(self, i: int) -> bool:
    """Whether the program of step `i` is compiled."""
    return core.turn(self.model, i) in self.programs

  def lower(self, turn: tuple[int, ...], *args) -> jax.stages.Lowered:
    """The step of a turn, for arrays or their shapes; nothing is compiled."""
    return self.trace(turn, *args).lower()

  def trace(
    self, turn: tuple[int, ...], state: core.State, batch: core.Batch, seed: core.Key
  ) -> jax.stages.Traced:
    """The same, not yet lowered for any platform."""
    if self.jitted is None:
      state_at = sharding.shardings(state, self.mesh)
      everywhere = sharding.replicated(self.mesh)
      self.jitted = jax.jit(
        self.step,
        static_argnums=0,
        donate_argnums=1,
        in_shardings=(state_at, sharding.batched(self.mesh), everywhere),
        out_shardings=(state_at, everywhere),
        compiler_options=compiler.options(self.mesh),
      )
    return self.jitted.trace(turn, state, batch, seed)

  def compile(self, turn: tuple[int, ...], *args) -> None:
    """Compiles ahead, and notes how long it took and what memory it takes."""
    start = time.perf_counter()
    program = self.lower(turn, *args).compile()
    self.programs[turn] = program
    self.facts["compile_seconds"] += time.perf_counter() - start
    self.facts["peak_bytes"] = max(self.facts["peak_bytes"], memory(program))


def memory(program: jax.stages.Compiled) -> int:
  """Bytes per device that a program needs: arguments, results, scratch."""
  m = program.memory_analysis()
  if m is None:
    return 0
  return (
    m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes
  )
