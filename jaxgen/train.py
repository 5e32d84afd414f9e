"""Train the model of a config, or go on where it stopped.

  jaxgen train --config configs/digits_diffusion.py --workdir W
  jaxgen train --config configs/photos.py --workdir C [--stage 1]  (a cascade)

One loop for every family: read a batch, take the step, write down what came
of it. Whatever stops it, the same command continues from the last checkpoint
and ends with the same bits. What is logged, drawn and saved on the way stands
below the loop: `Hooks`.
"""

import collections
import contextlib
import importlib
import io
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import cli, core, files, sharding
from jaxgen.checkpoint import lock, pretrained
from jaxgen.checkpoint.disk import steps
from jaxgen.checkpoint.meta import check_meta, latest
from jaxgen.checkpoint.restore import NoCheckpoint
from jaxgen.config import as_json, check_config
from jaxgen.data import summary
from jaxgen.data.arrays import Source
from jaxgen.data.pipeline import batches
from jaxgen.data.sources import open_split
from jaxgen.distributed import agreement, join
from jaxgen.distributed.preemption import STOPPED, stop_signal
from jaxgen.errors import Diverged, UserError, printable
from jaxgen.experiment import (
  Compiled,
  Experiment,
  check_attention,
  check_conditions,
  describe,
  dummy,
  open_data,
  prepare_devices,
)
from jaxgen.monitor import goodput
from jaxgen.monitor.goodput import Goodput
from jaxgen.monitor.log import FILE, Logger, read_rows
from jaxgen.monitor.progress import duration
from jaxgen.sampling.preview import Preview, Probe
from jaxgen.sampling.stages import is_cascade, planned_stages, write_stages

if TYPE_CHECKING:
  from jaxgen.checkpoint.manager import Checkpoints

CONFIGS = ("config",)
IN_BUCKETS = ("workdir",)  # flags that take gs://bucket/name
# The workdirs of a codec, a judge, a teacher, a GAN are read before the first step alone.
MAY_CHANGE = (
  *("steps", "log", "checkpoint", "patience", "mesh", "data.workers"),
  *("model.codec_workdir", "model.judge_workdir", "model.teacher_workdir", "model.gan_workdir"),
  "model.generator_workdir",
  # Schedules of few-step models end with the training, as learning rates do.
  *(
    f"model.{part}.{field}"
    for part in ("draw_t", "draw_t.levels", "decay.levels")
    for field in ("steps", "every")
  ),
)
# Of weights that were imported and not trained on: all but the model itself.
MAY_BEGIN = (*MAY_CHANGE, "seed", "batch", "accumulate", "data", "optim", "ema")


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flags.DEFINE_string("workdir", None, "where checkpoints and logs go", flag_values=values)
  flags.DEFINE_integer("stage", None, "of a cascade: train this one alone", flag_values=values)


def main(values: flags.FlagValues) -> int:
  """The verb; answers 0, or STOPPED if somebody asked for an early end."""
  if values.config is None or not values.workdir:
    raise UserError("train needs --config=configs/x.py and --workdir=W")
  try:
    if is_cascade(values.config):
      return train_stages(values.config, values.workdir, values.stage)
    elif values.stage is not None:
      raise UserError("--stage is of a cascade, and this config is of one model")
    prepare_devices([values.config])
    state = train(values.config, values.workdir)
    return STOPPED if int(state.step) < values.config.steps else 0
  except OSError as e:  # a full disk, or data that went away
    good = "not known" if files.is_away(e) else max(steps(values.workdir), default="none")
    raise UserError(
      f"{e.strerror or e}: {e.filename or values.workdir}; the last good "
      f"checkpoint is {good}, and the same command goes on from it"
    ) from e


def train_stages(settings: ConfigDict, workdir: str, only: int | None = None) -> int:
  """Trains the stages of a cascade that have a config, or one of them.

  Stages know nothing of each other: with `only` each can be trained on a
  machine of its own, at the same time. Answers like `main`.
  """
  stages = planned_stages(settings, workdir)
  if only is not None and not 0 <= only < len(stages):
    raise UserError(f"stage={only}: this cascade has stages 0 to {len(stages) - 1}")
  write_stages(settings, workdir)
  prepare_devices([own for _, own in stages if own is not None])
  for i, (place, own) in enumerate(stages):
    if only in (None, i) and own is not None:
      print(f"[cascade] stage {i} of {len(stages)}: {printable(place)}", file=sys.stderr)
      if int(train(own, place).step) < own.steps:
        return STOPPED
  return 0


def train(
  config: ConfigDict,
  workdir: str,
  quiet: bool = False,
  wait: bool = False,
  step: Compiled | None = None,
) -> core.State:
  """Trains until config.steps, from the workdir's last checkpoint if any.

  The workdir holds checkpoints, the log, pictures. On SIGTERM the state is
  saved where it stands, and training ends early.

  Args:
    config: See configs/_base.py.
    workdir: Made if it is not there, once all else is in order.
    quiet: Print nothing but trouble.
    wait: For another process that writes to the workdir.
    step: Compiled before, of the same config but for its number of steps, where
      no learning rate looks at that; what it lacks is added to it.

  Returns:
    The state at the end.

  Raises:
    UserError: Something does not fit, somebody else trains there, or the last
      save failed.
    Diverged: `patience` updates in a row were not finite.
  """
  start, times = time.time(), goodput.Goodput(join.stall())
  out = sys.stderr if join.is_main_process() and not quiet else io.StringIO()
  experiment, source, mesh, meta, abstract = prepare(config, workdir)
  judge = None  # opened before the workdir is made, if there is work left
  if max(steps(workdir), default=0) < config.steps:
    judge = judge_of(experiment, source, workdir)
  checkpoints = open_checkpoints(config, workdir)
  with (
    lock.exclusive(workdir, wait),
    stop_signal() as stopped,
    checkpoints,
    join.watching(times.beat),
  ):
    check_same(workdir, meta)  # who held it may have begun it
    first, state, past = checkpoints.restore(abstract) or (0, None, {})
    if past:  # maybe of an older checkpoint than the newest
      check_meta(past, workdir)
    meta |= {"import": past["import"]} if "import" in past else {}
    if first >= config.steps:
      print(f"{printable(workdir)} is already trained, to step {first}", file=out)
      return state
    lost = account_for_loss(times, workdir, past, start)
    if out is sys.stderr:
      summary.introduce(source, config.data.split)
    state = experiment.fresh(source, mesh) if state is None else state
    with contextlib.closing(open_logger(config, workdir, first, source, out)) as logger:
      introduce(config, state, logger, out, lost)
      hooks = Hooks(
        experiment, mesh, source, workdir, checkpoints, logger, meta, times, past, judge
      )
      return run(experiment, mesh, source, state, hooks, stopped, step)


def run(
  experiment: Experiment,
  mesh: jax.sharding.Mesh,
  source: Source,
  state: core.State,
  hooks: "Hooks",
  stopped: Callable[[], bool],
  step: Compiled | None = None,
) -> core.State:
  """The loop: from where `state` stands to config.steps, or until `stopped()`.

  A state is gone once the next step has begun: its memory is used again.
  """
  config, first, times = experiment.config, int(state.step), hooks.times
  step, seed = step or Compiled(experiment, mesh), jax.random.key(config.seed)
  with contextlib.closing(batches_of(config, source, first)) as stream:
    times.start(first)
    for i, batch in zip(range(first, config.steps), sharding.prefetch(stream, mesh), strict=False):
      times.enter("step" if step.has(i) else "compile")
      state, metrics = step(i, state, batch, seed)

      times.enter("step")  # hooks read metrics, and so wait for the device
      stop, done = stopped(), i + 1
      hooks.after(done, state, metrics, step.facts, last=stop or done == config.steps)
      if stop:
        hooks.logger.print_line(f"stopped by a signal at step {done}; saving")
        break

      times.stepped(done)
      times.enter("data")
  hooks.finish()
  return state


def prepare(
  config: ConfigDict, workdir: str
) -> tuple[Experiment, Source, jax.sharding.Mesh, dict[str, Any], core.State]:
  """All that can be refused before anything is written.

  Returns:
    The experiment, its data, its mesh, what checkpoints say of themselves, and
    the state's shapes and shardings.
  """
  experiment, source = Experiment.of(config), open_data(config)
  meta = describe(config, source)
  agreement.check(meta)
  mesh = sharding.make_mesh(config.mesh)
  abstract = experiment.abstract(source, mesh)
  check_same(workdir, meta)
  if not steps(workdir):  # older runs go on as they began
    check_attention(experiment.model, source)
    check_conditions(experiment.model, source)
    pretrained.read(experiment.model, source)
  return experiment, source, mesh, meta, abstract


def open_checkpoints(config: ConfigDict, workdir: str) -> "Checkpoints":
  """What saves and restores, as config.checkpoint says."""
  from jaxgen.checkpoint.manager import Checkpoints  # Orbax takes seconds to import

  return Checkpoints(
    workdir,
    every=config.checkpoint.every,
    keep=config.checkpoint.keep,
    keep_every=config.checkpoint.keep_every or None,
    log=lambda line: print(printable(line), file=sys.stderr),
  )


def open_logger(config: ConfigDict, workdir: str, first: int, source: Source, out) -> Logger:
  """The log of a training that goes on from step `first`."""
  return Logger(
    workdir,
    total_steps=config.steps,
    batch=config.batch,
    start=first,
    unit={1: "points", 2: "clips"}.get(len(source.shape), "images"),
    stream=out,
  )


def batches_of(config: ConfigDict, source: Source, first: int) -> Iterator[dict[str, np.ndarray]]:
  """This process' share of the batches from step `first` on, on the host."""
  return batches(
    source,
    batch=config.batch,
    seed=config.seed,
    start=first,
    flip=config.data.flip,
    crop=config.data.crop,
    workers=config.data.workers,
    process=jax.process_index(),
    processes=jax.process_count(),
  )


def account_for_loss(
  times: goodput.Goodput, workdir: str, past: dict[str, Any], start: float
) -> goodput.Loss:
  """What was lost since the checkpoint with the meta `past`; into `times`.

  The log is the sign of life: what was done after its last row is not known.
  """
  rows = read_rows(f"{workdir}/{FILE}") if join.is_main_process() else ()
  saved, step = past.get("goodput") or {}, past.get("step", 0)
  lost = goodput.loss(rows, saved.get("time"), step, start)
  times.resume(saved.get("seconds") or {}, lost, step)
  return lost


def introduce(
  config: ConfigDict, state: core.State, logger: Logger, out, lost: goodput.Loss
) -> None:
  """What is going to be trained, or from where it goes on."""
  step = int(state.step)
  if any(lost):
    logger.print_line(
      f"going on from step {step}; lost: {lost.steps} steps, "
      f"{duration(lost.seconds)}, and {duration(lost.down)} until this start"
    )
  if step:
    return
  logger.write_texts(0, {"config": str(config)})
  print(overview(state.params), file=out)


def overview(params: core.Groups) -> str:
  """A table of parameters and their total."""
  from clu import parameter_overview

  table = parameter_overview.get_parameter_overview(params, include_stats=False)
  leaves = jax.tree.leaves(params)
  # Its own total is a fraction where some are scalars.
  return (
    f"{table.rpartition(chr(10))[0]}\nTotal: "
    f"{sum(x.size for x in leaves):,} -- "
    f"{sum(x.nbytes for x in leaves):,} bytes"
  )


def check_same(workdir: str, meta: dict[str, Any]) -> None:
  """UserError if the workdir belongs to another config or to other data."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # of damage: `restore` tells of that
      saved = latest(workdir)
  except NoCheckpoint:
    return  # nothing sound is there
  data, now = saved["config"]["data"], meta["config"]["data"]
  data.setdefault("crop", 0.0)  # runs older than these fields; and than this one:
  data.setdefault("holdout", 0.0)
  data.setdefault("fraction", 1.0)
  data.setdefault("rate", 0)
  alike = saved["data"]["shape"] == meta["data"]["shape"]
  data.setdefault("channels", now["channels"] if alike else saved["data"]["shape"][-1])
  fresh = "import" in saved and saved["step"] == 0
  check_config(saved["config"], meta["config"], MAY_BEGIN if fresh else MAY_CHANGE)
  if fresh:
    return
  if saved["data"].get("fingerprint") != meta["data"]["fingerprint"]:
    raise UserError(
      f"{workdir} was trained on other data than {meta['data']['name']} "
      "holds now: bring that back, or take a new --workdir"
    )


AHEAD = 8  # steps that the host may run ahead of the device


def judge_of(experiment: Experiment, source: Source, workdir: str) -> Any:
  """What judges samples while training, as config.log.eval says, or None.

  Raises:
    UserError: it cannot be done so. Nothing is in the workdir then.
  """
  config = experiment.config
  # By name: evaluations train judges, so they stand above the loop.
  periodic = importlib.import_module("jaxgen.evaluation.periodic")
  if not periodic.settings(config.log.eval)["every"]:
    return None
  return periodic.Periodic(config.log.eval, as_json(config), experiment.model, source, workdir)


def preview_of(
  experiment: Experiment, mesh: jax.sharding.Mesh, source: Source, logger: Logger, workdir: str
) -> Preview:
  """What draws samples while training, 64 by the first averaged weights."""
  return Preview(
    experiment.model,
    next(iter(experiment.config.ema), None),
    source,
    dummy(source, 64),
    mesh,
    logger,
    files.path(workdir) / "samples",
    experiment.config.log.histograms,
  )


def probe_of(
  experiment: Experiment, mesh: jax.sharding.Mesh, source: Source, logger: Logger
) -> Probe | None:
  """What looks at the model beside held data; None: one of them is not there."""
  if not core.trait(experiment.model, "probe"):
    return None
  try:
    held = open_split(experiment.config.data, "test")
  except UserError:
    return None
  return Probe(experiment.model, source, held, mesh, logger)


class Hooks:
  """After each step: metrics, pictures and checkpoints, when they are due."""

  def __init__(
    self,
    experiment: Experiment,
    mesh: jax.sharding.Mesh,
    source: Source,
    workdir: str,
    checkpoints: "Checkpoints",
    logger: Logger,
    meta: dict[str, Any],
    times: Goodput,
    past: dict[str, Any],
    judge: Any = None,
  ):
    """`meta` goes with every checkpoint; `past` is what came with the last.

    `judge` is what judges samples now and then, see `judge_of`.
    """
    self.config, self.workdir = experiment.config, workdir
    self.checkpoints, self.logger, self.meta = checkpoints, logger, meta
    self.start = time.perf_counter() - (past.get("seconds") or 0.0)
    self.times = times
    self.watch = MetricsReader(self.config, logger, times, past.get("metrics") or {})
    self.preview = preview_of(experiment, mesh, source, logger, workdir)
    self.probe = probe_of(experiment, mesh, source, logger)
    self.judge = judge

  def after(
    self, done: int, state: core.State, metrics: core.Metrics, facts: dict[str, Any], last: bool
  ) -> None:
    """What is due after `done` steps; `last`: in any case a checkpoint.

    Raises:
      Diverged: the updates are not finite any more.
    """
    every = self.config.log.pictures
    try:
      self.watch.see(done, metrics)
      if every and done % every == 0:
        with self.times.during("pictures"):
          self.preview.draw(done, state)
          if self.probe:
            self.probe.look(done, state)
      if self.judge and self.judge.due(done):
        with self.times.during("eval"):
          scores = self.judge.run(done, state)
        self.logger.write_scalars(done, {f"eval/{k}": v for k, v in scores.items()})
      if last or done % self.config.checkpoint.every == 0:
        self.watch.catch_up()
        if last or not self.watch.ill:  # the ill must not push out the well
          with self.times.during("checkpoint"):
            self.save(
              done, state, self.meta | facts | self.spent() | {"metrics": self.watch.numbers()}
            )
    except Diverged as e:
      raise Diverged(f"{e}; {self.last_good()}") from e
    self.logger.progress(done)

  def save(self, *args) -> None:
    """Starts a save; a state with NaN or infinity has diverged."""
    try:
      self.checkpoints.save(*args, force=True)
    except UserError as e:
      raise Diverged(str(e)) from e

  def spent(self) -> dict[str, Any]:
    """Time, for whoever goes on from here."""
    return {
      "seconds": time.perf_counter() - self.start,
      "goodput": {"time": time.time(), "seconds": self.times.totals()},
    }

  def finish(self) -> None:
    """Waits for the last save, and says where the time went."""
    with self.times.during("checkpoint"):
      self.checkpoints.wait()
    self.logger.print_line(self.times.line())

  def last_good(self) -> str:
    """Where somebody whose run diverged can go back to."""
    self.checkpoints.wait()
    good = max(steps(self.workdir), default=None)
    where = "none" if good is None else f"step {good} in {self.workdir}"
    return (
      f"the last good checkpoint is {where}: lower the learning rate or "
      "clip gradients, in a new workdir"
    )


class MetricsReader:
  """Reads metrics a few steps late, so that nothing waits for them.

  Writes every `log.every`-th step, and raises Diverged when `patience` updates
  in a row were skipped.

  Attributes:
    ill: whether the newest update that was read had been skipped.
  """

  def __init__(self, config: ConfigDict, logger: Logger, times: Goodput, latest: dict[str, float]):
    """`latest`: `numbers` at the checkpoint from which the training goes on."""
    self.config, self.logger, self.times = config, logger, times
    self.ill = False
    self.latest = dict(latest)  # players do not all move each time
    self.queue = collections.deque()

  def numbers(self) -> dict[str, float]:
    """What was last seen of every player, where it is finite."""
    numbers = {k: float(v) for k, v in jax.device_get(self.latest).items()}
    return {k: v for k, v in numbers.items() if math.isfinite(v)}

  def see(self, done: int, metrics: core.Metrics) -> None:
    """Takes the metrics of a step, and reads those of a few steps ago."""
    self.latest = self.latest | metrics
    self.queue.append((done, self.latest))
    if len(self.queue) > AHEAD:
      self.read()

  def catch_up(self) -> None:
    """Reads all that is under way."""
    while self.queue:
      self.read()

  def read(self) -> None:
    """The oldest step's metrics: judged, and written if due or fatal."""
    done, metrics = self.queue.popleft()
    # Waits for that step, which keeps the host from running away.
    in_a_row = int(metrics["skips_in_a_row"])
    self.ill = in_a_row > 0
    fatal = in_a_row >= self.config.patience
    due = done % self.config.log.every == 0 or done == self.config.steps
    if due or fatal:
      row = {k: float(v) for k, v in jax.device_get(metrics).items()}
      self.logger.write_scalars(done, row | self.times.scalars())
    if fatal:
      raise Diverged(f"{in_a_row} updates in a row were not finite, up to step {done}")


if __name__ == "__main__":
  cli.run("jaxgen.train")
