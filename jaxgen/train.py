"""Train the model of a config, or go on where it stopped.

  jaxgen train --config configs/digits_diffusion.py --workdir W

One loop for every family: read a batch, take the step, write down what came
of it. Whatever stops it, the same command continues from the last checkpoint
and ends with the same bits.
"""
import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from clu import parameter_overview
from ml_collections import ConfigDict

from jaxgen import cli, core, sharding
from jaxgen.build import build, nearest
from jaxgen.checkpoint import (
    Checkpoints,
    as_json,
    check_config,
    latest_meta,
    steps,
)
from jaxgen.data.pipeline import batches
from jaxgen.data.sources import Source, open_source
from jaxgen.errors import Diverged, UserError
from jaxgen.log import Logger

CONFIGS = ("config",)
AHEAD = 8  # steps that the host may run ahead of the device
MAY_CHANGE = ("log", "checkpoint", "patience", "data.workers")


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flags.DEFINE_string("workdir", None, "where checkpoints and logs go",
                      flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if values.config is None or not values.workdir:
    raise UserError("train needs --config=configs/x.py and --workdir=W")
  train(values.config, values.workdir)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What a config describes, built: the same objects for every verb."""
  config: ConfigDict
  model: core.Model
  init: Callable[[core.Batch, core.Key], core.State]
  step: Callable

  @classmethod
  def of(cls, config: ConfigDict) -> "Experiment":
    """Builds model, optimisers and averages; UserError on any misfit."""
    check_keys(config)
    model = build(config.model)
    moved = {p.moves for p in model.players}
    for group in moved ^ set(config.optim):
      word = "needs" if group in moved else "has no player for"
      raise UserError(f"{config.model.name} {word} optim.{group}; "
                      f"its players move {', '.join(sorted(moved))}")
    tx = {g: build(s)(steps=config.steps) for g, s in config.optim.items()}
    ema = {p: build(s)(batch=config.batch) for p, s in config.ema.items()}
    return cls(
        config, model, core.make_init(model, tx, tuple(ema)),
        core.make_step(model, tx, ema, config.accumulate))


def check_keys(config: ConfigDict) -> None:
  """A config's top level is fixed: anything else is a slip of the pen."""
  known = ("seed", "steps", "batch", "accumulate", "patience", "data", "model",
           "optim", "ema", "log", "checkpoint")
  for key in config:
    if key not in known:
      raise UserError(f"config.{key} means nothing" + nearest(key, known))
  for key in known:
    if key not in config:
      raise UserError(f"config.{key} is missing: begin with _base.base(...)")


def open_data(config: ConfigDict) -> Source:
  """The source that a config trains on."""
  data = config.data
  return open_source(data.source, split=data.split, size=data.get("size"))


def dummy(source: Source, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
  """The shape of a batch, without its contents."""
  shapes = {"x": jax.ShapeDtypeStruct((batch, *source.shape), source.dtype)}
  if source.classes:
    shapes["y"] = jax.ShapeDtypeStruct((batch,), jnp.int32)
  return shapes


def train(config: ConfigDict, workdir: str, quiet: bool = False) -> core.State:
  """Trains until config.steps, from the workdir's last checkpoint if any.

  Returns: the final state. The workdir holds checkpoints, the log, pictures.
  """
  experiment = Experiment.of(config)
  mesh = sharding.make_mesh()
  sharding.check_batch(config.batch, config.accumulate, mesh)
  source = open_data(config)
  if config.data.classes not in (0, source.classes):
    raise UserError(f"data.classes={config.data.classes}, but {source.name} "
                    f"has {source.classes} labels")
  meta = describe(config, source)
  shapes = dummy(source, config.batch)
  out = open(os.devnull, "w") if quiet else sys.stderr
  checkpoints = Checkpoints(
      workdir, every=config.checkpoint.every, keep=config.checkpoint.keep,
      keep_every=config.checkpoint.keep_every or None,
      log=lambda line: print(line, file=sys.stderr, flush=True))
  state, past = start(experiment, checkpoints, workdir, meta, shapes, mesh)
  seed = jax.random.key(config.seed)
  first = int(state.step)
  logger = Logger(workdir, total_steps=config.steps, batch=config.batch,
                  start=first, unit="images", stream=out)
  if not first:
    logger.write_texts(first, {"config": str(config)})
    print(parameter_overview.get_parameter_overview(
        state.params, include_stats=False), file=out)

  step = Compiled(experiment, mesh)
  stream = sharding.prefetch(
      batches(source, batch=config.batch, seed=config.seed, start=first,
              flip=config.data.flip, workers=config.data.workers,
              process=jax.process_index(), processes=jax.process_count()),
      mesh)
  pictures = Pictures(experiment, source, logger, workdir)
  watch = Watch(config, logger, workdir)
  begun = time.perf_counter()
  with stop_signal() as stopped:
    for i in range(first, config.steps):
      state, metrics = step(i, state, next(stream), seed)
      watch.see(i, metrics)
      done, stop = i + 1, stopped()
      if config.log.pictures and done % config.log.pictures == 0:
        pictures.draw(done, state)
      last = stop or done == config.steps
      if last or done % config.checkpoint.every == 0:
        watch.catch_up()  # before what may be ill is saved
        spent = past + time.perf_counter() - begun
        checkpoints.save(done, state, meta | {"seconds": spent, **step.facts},
                         force=True)
      logger.progress(done)
      if stop:
        logger.say(f"stopped by a signal at step {done}; saving")
        break
  watch.catch_up()
  checkpoints.close()
  logger.close()
  return state


class Compiled:
  """The train step, compiled once for every turn that players take."""

  def __init__(self, experiment: Experiment, mesh: jax.sharding.Mesh):
    self.model = experiment.model
    self.jitted = jax.jit(experiment.step, static_argnums=0, donate_argnums=1,
                          out_shardings=sharding.replicated(mesh))
    self.programs: dict[tuple[int, ...], Callable] = {}
    self.facts = {"compile_seconds": 0., "peak_bytes": 0}

  def __call__(self, i: int, state: core.State, batch: core.Batch,
               seed: core.Key) -> tuple[core.State, core.Metrics]:
    turn = core.turn(self.model, i)
    if turn not in self.programs:
      self.compile(turn, state, batch, seed)
    return self.programs[turn](state, batch, seed)

  def compile(self, turn: tuple[int, ...], *args) -> None:
    """Compiles ahead, and notes how long it took and what memory it takes."""
    begun = time.perf_counter()
    program = self.jitted.lower(turn, *args).compile()
    self.programs[turn] = program
    self.facts["compile_seconds"] += time.perf_counter() - begun
    self.facts["peak_bytes"] = max(self.facts["peak_bytes"], memory(program))


def memory(program: jax.stages.Compiled) -> int:
  """Bytes per device that a program needs: arguments, results, scratch."""
  m = program.memory_analysis()
  if m is None:
    return 0
  return (m.argument_size_in_bytes + m.output_size_in_bytes
          + m.temp_size_in_bytes - m.alias_size_in_bytes)


def start(experiment: Experiment, checkpoints: Checkpoints, workdir: str,
          meta: dict[str, Any], shapes, mesh) -> tuple[core.State, float]:
  """The last good checkpoint, or a fresh state; and seconds spent so far."""
  whole = sharding.replicated(mesh)
  key = jax.random.key(experiment.config.seed)
  zeros = {k: jnp.zeros(s.shape, s.dtype) for k, s in shapes.items()}
  init = jax.jit(experiment.init, out_shardings=whole)
  abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
      jax.eval_shape(init, zeros, key))
  for _ in steps(workdir)[-1:]:
    saved = latest_meta(workdir)
    check_config(saved["config"], meta["config"], may_change=MAY_CHANGE)
    if saved["data"]["fingerprint"] != meta["data"]["fingerprint"]:
      raise UserError(
          f"{workdir} was trained on other data than {meta['data']['name']} "
          "holds now: bring that back, or take a new --workdir")
  restored = checkpoints.restore(abstract)
  if restored is None:
    return init(zeros, key), 0.
  _, state, saved = restored
  return state, saved.get("seconds", 0.)


def describe(config: ConfigDict, source: Source) -> dict[str, Any]:
  """What a checkpoint says of itself, beside the state."""
  return {
      "config": as_json(config),
      "data": {"name": source.name, "classes": config.data.classes,
               "shape": list(source.shape), "dtype": str(source.dtype),
               "examples": len(source), "fingerprint": source.fingerprint}}


class Watch:
  """Reads metrics a few steps late, so that nothing waits for them.

  Writes every `log.every`-th step, warns, and stops a run that diverges.
  """

  def __init__(self, config: ConfigDict, logger: Logger, workdir: str):
    self.config, self.logger, self.workdir = config, logger, workdir
    self.latest: dict[str, jax.Array] = {}  # players do not all move each time
    self.queue = collections.deque()

  def see(self, i: int, metrics: core.Metrics) -> None:
    """Takes the metrics of step i, and reads those of a few steps ago."""
    self.latest |= metrics
    done = i + 1
    due = done % self.config.log.every == 0 or done == self.config.steps
    self.queue.append((done, self.latest if due else None, metrics["skips"]))
    self.latest = dict(self.latest)
    if len(self.queue) > AHEAD:
      self.read()

  def catch_up(self) -> None:
    """Reads all that is under way."""
    while self.queue:
      self.read()

  def read(self) -> None:
    """The oldest step's metrics: written if due, judged in any case."""
    done, metrics, skips = self.queue.popleft()
    jax.block_until_ready(skips)  # keeps the host from running away
    if metrics is None:
      return
    scalars = {k: float(v) for k, v in jax.device_get(metrics).items()}
    self.logger.write_scalars(done, scalars)
    if scalars["skips_in_a_row"] >= self.config.patience:
      good = max(steps(self.workdir), default=None)
      raise Diverged(
          f"{scalars['skips_in_a_row']:.0f} updates in a row were not finite, "
          f"up to step {done}; the last good checkpoint is "
          + ("none" if good is None else f"step {good} in {self.workdir}")
          + ": lower the learning rate or clip gradients")


class Pictures:
  """Samples, drawn while training with the averaged weights."""

  def __init__(self, experiment: Experiment, source: Source, logger: Logger,
               workdir: str, n: int = 64):
    from jaxgen.sample import draw, portrait
    self.portrait, self.logger = portrait, logger
    self.folder = pathlib.Path(workdir) / "samples"
    self.classes = source.classes
    shapes = dummy(source, n)
    profile = next(iter(experiment.config.ema), None)
    self.histograms = experiment.config.log.histograms
    self.draw_from = jax.jit(functools.partial(
        draw, experiment.model, profile, shapes))

  def draw(self, done: int, state: core.State) -> None:
    """A grid of samples into the log and the folder `samples`."""
    x = jax.device_get(self.draw_from(state, jax.random.key(0)))
    image = self.portrait(x, self.folder / f"{done:08d}.png", {"step": done})
    self.logger.write_images(done, {"samples": image[None]})
    if self.histograms:
      flat = jax.tree_util.tree_leaves_with_path(state.params)
      self.logger.write_histograms(
          done, {jax.tree_util.keystr(k): jax.device_get(v) for k, v in flat})


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
  """Within, SIGTERM asks for an end: `stopped()` says whether it came.

  After jax.distributed.initialize the signal is jax's: then we leave it alone.
  """
  heard = []
  if jax.process_count() > 1:
    yield lambda: False
    return
  try:
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
  except ValueError:  # not the main thread: somebody else listens
    yield lambda: False
    return
  try:
    yield lambda: bool(heard)
  finally:
    signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
  cli.run("jaxgen.train")
