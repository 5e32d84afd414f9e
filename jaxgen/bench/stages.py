"""A cascade's time beside that of its stages, each run alone."""
import dataclasses
import time
from typing import Any

import jax
import numpy as np

from jaxgen.bench.sampling import compiled, inputs
from jaxgen.models.cascade import Cascade, view
from jaxgen.sampling.sampler import Sampler


def alone(sampler: Sampler) -> list[Sampler]:
  """The stages of a cascade as samplers of their own."""
  cascade = sampler.model
  return [
      dataclasses.replace(
          sampler, model=model, state=view(sampler.state, i), shape=shape,
          classes=classes, card={})
      for i, (model, shape, classes) in enumerate(zip(
          cascade.stages, cascade.shapes, cascade.classes, strict=True))]


def time_stages(sampler: Sampler, batch: int, rounds: int, seconds: float,
                **knobs: float) -> dict[str, Any] | None:
  """Times whole and stages in turn, so that both meet the same machine.

  Args:
    sampler: Of a cascade; for another model there is nothing to time.
    batch: Drawn at once.
    rounds: How often all are timed at the most.
    seconds: Stop after so long, but for three rounds.
    **knobs: As for `Sampler.sample`.

  Returns: chain_seconds, stage_seconds: medians over rounds; added: by how much
    the chain takes longer than its stages' sum, as a share of it, the median
    over rounds; rounds.
  """
  if not isinstance(sampler.model, Cascade):
    return None
  settings = sampler.settings(knobs)
  runs = [compiled(sampler, inputs(sampler, batch, knobs)).run]
  for i, stage in enumerate(alone(sampler)):
    mine = {k: settings[f"{k}_{i}"] for k in stage.model.knobs
            if np.isfinite(settings[f"{k}_{i}"])}
    runs.append(compiled(stage, inputs(stage, batch, mine)).run)
  for run in runs:
    jax.block_until_ready(run())
  rows, begun = [], time.perf_counter()
  while len(rows) < max(rounds, 3):
    if len(rows) >= 3 and time.perf_counter() - begun > seconds:
      break
    rows.append([timed(run) for run in runs])
  rows = np.array(rows)
  whole, *stages = np.median(rows, 0)
  return {"chain_seconds": float(whole), "rounds": len(rows),
          "stage_seconds": [float(s) for s in stages],
          "added": float(np.median(rows[:, 0] / rows[:, 1:].sum(1)) - 1)}


def timed(run) -> float:
  """Seconds of one call, until its result is there."""
  begun = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - begun
