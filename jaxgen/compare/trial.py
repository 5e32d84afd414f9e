"""Contenders before they are trained: how large they are, and how fast here."""

import time
from typing import Any, NamedTuple

import jax

from jaxgen.bench.training import Training
from jaxgen.compare import rows
from jaxgen.compare.measure import BATCH, Entry
from jaxgen.distributed import join
from jaxgen.errors import UserError
from jaxgen.experiment import Compiled
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.trained import sampling_state

SECONDS = 2.0  # that steps are timed for
MOST = 200  # steps that are timed


class Trial(NamedTuple):
  """What was measured, as JSON, and the programs that were compiled for it."""

  facts: dict[str, Any]
  step: Compiled
  sampler: Sampler  # with untrained weights


def try_out(entry: Entry, count: int) -> Trial:
  """Compiles a contender's programs, and times a few steps and samples.

  Args:
    entry: The contender; nothing is written.
    count: Samples that are drawn whenever it is judged.

  Returns:
    Facts: params; batch; step_seconds and flops, of a train step; programs,
    compile_seconds and peak_bytes of all train steps; sample_seconds, of one
    sample with the config's own knobs; seconds, that all this took.

  Raises:
    UserError: The config does not fit the data.
  """
  start = time.perf_counter()
  try:
    training = Training(entry.config, lambda _: None)
  except UserError as e:
    raise UserError(f"{entry.name}: {e}") from e
  pace = training.time(training.stream, 1)["step_seconds"]["median"]
  if (steps := join.share(lambda: int(min(SECONDS / pace, MOST)))) > 2:
    pace = training.time(training.stream, steps)["step_seconds"]["median"]
  facts = {
    "params": sum(x.size for x in jax.tree.leaves(training.state.params)),
    "batch": entry.config.batch,
    "step_seconds": pace,
    "flops": training.facts["flops_per_step"],
    "programs": training.facts["programs"],
    "compile_seconds": training.facts["compile_seconds"],
    "peak_bytes": training.facts["peak_bytes"],
    "sample_seconds": sample_seconds(sampler := untrained(training), min(count, BATCH)),
  }
  return Trial(facts | {"seconds": time.perf_counter() - start}, training.step, sampler)


def untrained(training: Training) -> Sampler:
  """A sampler of a training that has not begun."""
  model, state, source = training.model, training.state, training.source
  stats = {g: state.stats[g] for g in model.sampled if g in state.stats}
  state = sampling_state(0, {g: state.params[g] for g in model.sampled}, stats)
  classes = training.config.data.classes
  return Sampler(model, state, source.shape, source.dtype, classes, {})


def sample_seconds(sampler: Sampler, batch: int) -> float:
  """Seconds of a sample.

  Of what samples in steps, few are taken: each costs as much as any other.
  """
  model = sampler.model
  few = {"steps": 2} if "steps" in model.knobs else {}
  sampler.sample(0, batch, batch=batch, **few)  # compiles
  _, seconds = rows.draw(sampler, 0, batch, batch=batch, **few)
  return seconds / batch * model.nfe() / model.nfe(**few)
