"""Train steps, timed as training takes them."""

import collections
import functools
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.bench import device
from jaxgen.bench.device import Progress
from jaxgen.data.arrays import Source
from jaxgen.data.pipeline import batches
from jaxgen.errors import UserError
from jaxgen.experiment import Compiled, Experiment, dummy, open_data, training_batch

AHEAD = 2  # steps that the host is ahead of the device
FEWEST, MOST = 5, 1000  # steps to time when nobody says how many


def cycle(model: core.Model) -> list[tuple[int, ...]]:
  """The players that move, batch by batch, until it begins anew."""
  return [core.turn(model, i) for i in range(math.lcm(*(p.every for p in model.players)))]


def step_flops(experiment: Experiment, source: Source, batch: int) -> dict[tuple[int, ...], float]:
  """Operations of a train step of so many examples, for every turn that players take."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(experiment.init, dummy(source, batch), key)
  shapes = training_batch(source, batch)
  step = jax.jit(experiment.step, static_argnums=0)
  return {
    turn: device.flops(step, turn, state, shapes, key)
    for turn in dict.fromkeys(cycle(experiment.model))
  }


def mean_over_cycle(model: core.Model, cost: dict[tuple[int, ...], float]) -> float:
  """Cost of a step on average, each turn as often as it is taken."""
  turns = cycle(model)
  return sum(cost[turn] for turn in turns) / len(turns)


class Training:
  """A config's train steps, compiled and ready to be timed.

  Attributes:
    facts: batch, seconds of compilation, memory, operations per step.
  """

  def __init__(self, config: ConfigDict, progress: Progress = print):
    self.config = config
    self.experiment = Experiment.of(config)
    self.model = self.experiment.model
    self.mesh = sharding.make_mesh(config.mesh)
    progress("opening the data")
    self.source = open_data(config)
    self.experiment.abstract(self.source, self.mesh)  # do they fit?
    progress("initialising")
    self.state = self.experiment.fresh(self.source, self.mesh)
    self.seed = jax.random.key(config.seed)
    self.stream = sharding.prefetch(batches(self.source, **options(config)), self.mesh)
    self.fixed = next(self.stream)
    self.step = Compiled(self.experiment, self.mesh)
    for turn in dict.fromkeys(cycle(self.model)):
      progress(f"compiling the step of {' and '.join(self.names(turn)) or 'nobody'}")
      self.step.compile(turn, self.state, self.fixed, self.seed)
    progress("counting operations")
    self.flops = step_flops(self.experiment, self.source, config.batch)
    self.facts = {
      "batch": config.batch,
      "cycle": len(cycle(self.model)),
      **self.step.facts,
      "programs": len(self.flops),
      "flops_per_step": mean_over_cycle(self.model, self.flops),
    }

  def names(self, turn: tuple[int, ...]) -> list[str]:
    """The players of a turn."""
    return [self.model.players[i].name for i in turn]

  def time(self, stream: Iterator[core.Batch], steps: int) -> dict[str, Any]:
    """Times steps as training takes them: the host some steps ahead.

    Whole cycles, so that each player's moves weigh as in training.

    Returns: step_seconds: median, min and max over the cycles of a step's
      mean; images_per_s over all; waiting: share of the time that the host
      spends on getting batches.
    """
    k = len(cycle(self.model))
    steps += -steps % k
    queue, marks, waits = collections.deque(), [], []
    for i in range(AHEAD + 1 + steps):
      start = time.perf_counter()
      batch = next(stream)
      waits.append(time.perf_counter() - start)
      queue.append(self.take(i, batch))
      if len(queue) > AHEAD:
        jax.block_until_ready(queue.popleft())  # of step i - AHEAD
        marks.append(time.perf_counter())
    jax.block_until_ready(self.state)
    # marks[j] is when step j was done: the first is the beginning.
    seconds = np.diff(marks)
    total = float(seconds.sum())
    return {
      "steps": steps,
      "step_seconds": device.median_min_max(seconds.reshape(-1, k).mean(1)),
      "images_per_s": self.config.batch * steps / total,
      "waiting": sum(waits[-steps:]) / total,
    }

  def time_turns(self, calls: int, seconds: float) -> list[dict[str, Any]]:
    """Times every turn for itself, the host waiting for each step."""
    turns, rows = cycle(self.model), []
    for turn in dict.fromkeys(turns):
      step = functools.partial(self.take, turns.index(turn), self.fixed)
      rows.append(
        {
          "players": self.names(turn),
          "share": turns.count(turn) / len(turns),
          "flops": self.flops[turn],
          "seconds": float(np.median(device.time_calls(step, calls, seconds))),
        }
      )
    return rows

  def take(self, i: int, batch: core.Batch) -> jax.Array:
    """Takes step i; what is returned is there when it is done."""
    self.state, metrics = self.step(i, self.state, batch, self.seed)
    return metrics["skips"]

  def time_fixed(self, steps: int) -> dict[str, Any]:
    """Times steps on one batch that lies on the device: no input."""
    return self.time(iter(lambda: self.fixed, None), steps)

  def steps_in(self, seconds: float) -> int:
    """How many steps take about so long, within sensible bounds; of all processes the same."""
    start, few = time.perf_counter(), self.time_fixed(1)["steps"] + AHEAD + 1
    pace = (time.perf_counter() - start) / few
    return device.agreed(min(max(seconds / pace, FEWEST), MOST))


def options(config: ConfigDict) -> dict[str, Any]:
  """What a config says of its stream of batches."""
  return {
    "batch": config.batch,
    "seed": config.seed,
    "flip": config.data.flip,
    "crop": config.data.crop,
    "workers": config.data.workers,
    "process": jax.process_index(),
    "processes": jax.process_count(),
  }


def training_speed(
  config: ConfigDict, steps: int | None = None, seconds: float = 5.0, progress: Progress = print
) -> dict[str, Any]:
  """Steps of a config: on real batches, and on one that lies on the device.

  Args:
    config: Of the experiment.
    steps: To be timed of either, rounded up to whole cycles of turns; default:
      as many as take `seconds`.
    seconds: See `steps`.
    progress: Told what is going on.

  Returns: What `Training.facts` and, for "real" and "fixed" batches,
    `Training.time` hold; achieved operations/s and their share of the peaks.
  """
  if steps is not None and steps < 1:
    raise UserError(f"steps={steps}: want at least 1")
  training = Training(config, progress)
  progress("warming up")
  training.time_fixed(1)
  steps = steps or training.steps_in(seconds)
  steps += -steps % training.facts["cycle"]
  progress(f"timing {steps} steps on real batches")
  real = training.time(training.stream, steps)
  progress(f"timing {steps} steps on a fixed batch")
  fixed = training.time_fixed(steps)
  progress("timing each turn for itself")
  turns = training.time_turns(min(steps, 100), seconds)
  progress("measuring the peak of matrix products")
  dtype = device.matmul_dtype(
    training.step.jitted, cycle(training.model)[0], training.state, training.fixed, training.seed
  )
  peak = device.peaks(dtype)
  for row in (real, fixed):
    row["flops_per_s"] = training.facts["flops_per_step"] * row["images_per_s"] / config.batch
    row |= device.shares_of_peak(row, peak)
  return training.facts | {
    "turns": turns,
    "real": real,
    "fixed": fixed,
    "peak": peak,
    "bytes_in_use": device.memory_in_use(),
  }
