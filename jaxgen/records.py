"""What is kept of a training: metrics, pictures of samples, checkpoints."""
import collections
import functools
import math
import pathlib
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.checkpoint.disk import steps
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.config import as_json
from jaxgen.data.arrays import Source
from jaxgen.data.sources import open_split
from jaxgen.errors import Diverged, UserError
from jaxgen.experiment import Experiment, dummy
from jaxgen.monitor.goodput import Goodput
from jaxgen.monitor.log import Logger
from jaxgen.sampling.output import portrait
from jaxgen.sampling.sampler import draw

AHEAD = 8  # steps that the host may run ahead of the device


def judge_of(experiment: Experiment, source: Source, workdir: str) -> Any:
  """What judges samples while training, as config.log.eval says, or None.

  Raises:
    UserError: it cannot be done so. Nothing is in the workdir then.
  """
  config = experiment.config
  from jaxgen.evaluation.periodic import Periodic, settings
  if not settings(config.log.eval)["every"]:
    return None
  return Periodic(config.log.eval, as_json(config), experiment.model, source,
                  workdir)


class Records:
  """After each step: metrics, pictures and checkpoints, when they are due."""

  def __init__(self, experiment: Experiment, mesh: jax.sharding.Mesh,
               source: Source, workdir: str, checkpoints: Checkpoints,
               logger: Logger, meta: dict[str, Any], times: Goodput,
               past: dict[str, Any], judge: Any = None):
    """`meta` goes with every checkpoint; `past` is what came with the last.

    `judge` is what judges samples now and then, see `judge_of`.
    """
    self.config, self.workdir = experiment.config, workdir
    self.checkpoints, self.logger, self.meta = checkpoints, logger, meta
    self.begun = time.perf_counter() - (past.get("seconds") or 0.)
    self.times = times
    self.watch = Watch(self.config, logger, times, past.get("metrics") or {})
    self.pictures = Pictures(experiment, mesh, source, logger, workdir)
    self.probe = (Probe(experiment, mesh, source, logger)
                  if hasattr(experiment.model, "probe") else None)
    self.judge = judge

  def keep(self, done: int, state: core.State, metrics: core.Metrics,
           facts: dict[str, Any], last: bool) -> None:
    """What is due after `done` steps; `last`: in any case a checkpoint.

    Raises:
      Diverged: the updates are not finite any more.
    """
    every = self.config.log.pictures
    try:
      self.watch.see(done, metrics)
      if every and done % every == 0:
        with self.times.during("pictures"):
          self.pictures.draw(done, state)
          if self.probe:
            self.probe.look(done, state)
      if self.judge and self.judge.due(done):
        with self.times.during("eval"):
          scores = self.judge.run(done, state)
        self.logger.write_scalars(
            done, {f"eval/{k}": v for k, v in scores.items()})
      if last or done % self.config.checkpoint.every == 0:
        self.watch.catch_up()
        if last or not self.watch.ill:  # the ill must not push out the well
          with self.times.during("checkpoint"):
            self.save(done, state, self.meta | facts | self.spent()
                      | {"metrics": self.watch.numbers()})
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
    return {"seconds": time.perf_counter() - self.begun, "goodput": {
        "time": time.time(), "seconds": self.times.totals()}}

  def end(self) -> None:
    """Waits for the last save, and says where the time went."""
    with self.times.during("checkpoint"):
      self.checkpoints.wait()
    self.logger.say(self.times.line())

  def last_good(self) -> str:
    """Where somebody whose run diverged can go back to."""
    self.checkpoints.wait()
    good = max(steps(self.workdir), default=None)
    where = "none" if good is None else f"step {good} in {self.workdir}"
    return (f"the last good checkpoint is {where}: lower the learning rate or "
            "clip gradients, in a new workdir")


class Watch:
  """Reads metrics a few steps late, so that nothing waits for them.

  Writes every `log.every`-th step, and raises Diverged when `patience` updates
  in a row were skipped.

  Attributes:
    ill: whether the newest update that was read had been skipped.
  """

  def __init__(self, config: ConfigDict, logger: Logger, times: Goodput,
               latest: dict[str, float]):
    """`latest`: `numbers` at the checkpoint from which the training goes on."""
    self.config, self.logger, self.times = config, logger, times
    self.ill = False
    self.latest = dict(latest)  # players do not all move each time
    self.queue = collections.deque()

  def numbers(self) -> dict[str, float]:
    """What was last seen of every player, where it is finite."""
    found = {k: float(v) for k, v in jax.device_get(self.latest).items()}
    return {k: v for k, v in found.items() if math.isfinite(v)}

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
      raise Diverged(f"{in_a_row} updates in a row were not finite, up to "
                     f"step {done}")


class Pictures:
  """Samples, drawn while training with the averaged weights."""

  def __init__(self, experiment: Experiment, mesh: jax.sharding.Mesh,
               source: Source, logger: Logger, workdir: str, n: int = 64):
    self.logger = logger
    self.folder = pathlib.Path(workdir) / "samples"
    profile = next(iter(experiment.config.ema), None)
    self.histograms = experiment.config.log.histograms
    # Whole everywhere, so that process 0 has all of what all have drawn.
    self.draw_from = jax.jit(functools.partial(
        draw, experiment.model, profile, dummy(source, n), source.classes),
        out_shardings=sharding.replicated(mesh))
    # What is made from other images is shown made from real ones.
    self.real = (source.read(np.arange(n) % len(source))
                 if getattr(experiment.model, "cond", None) else None)

  def draw(self, done: int, state: core.State) -> None:
    """A grid of samples into the log and the folder `samples`."""
    x = jax.device_get(self.draw_from(
        state, jax.random.key(0), self.real))
    if self.histograms:  # all processes fetch, though one of them writes
      params = jax.tree.map(sharding.fetch, state.params)
    if not self.logger.lead:
      return
    image = portrait(x, self.folder / f"{done:08d}.png", {"step": done})
    self.logger.write_images(done, {"samples": image[None]})
    if self.histograms:
      self.logger.write_histograms(done, {
          jax.tree_util.keystr(k): v
          for k, v in jax.tree_util.tree_leaves_with_path(params)})


class Probe:
  """What a model says of itself beside data that it was not trained on.

  With pictures, as `probe/...`; see `models.gan_probe` and `health`. Data
  without a test split are not probed.
  """

  def __init__(self, experiment: Experiment, mesh: jax.sharding.Mesh,
               source: Source, logger: Logger, n: int = 128):
    self.logger, self.batches = logger, None
    try:
      held = open_split(experiment.config.data, "test")
    except UserError:
      return
    n = min(n, len(source), len(held))
    some = lambda s: s.read(np.arange(n) * len(s) // n)
    self.batches = some(source), some(held)

    def look(state, batches, key):
      batch, held = map(core.on_device, batches)
      return experiment.model.probe(
          sharding.whole(state, mesh), batch, held, core.example_keys(key, n))

    self.program = jax.jit(look, out_shardings=sharding.replicated(mesh))

  def look(self, done: int, state: core.State) -> None:
    """Into the log."""
    if self.batches:
      scalars = self.program(state, self.batches, jax.random.key(done))
      self.logger.write_scalars(done, {
          f"probe/{k}": float(v) for k, v in jax.device_get(scalars).items()})
