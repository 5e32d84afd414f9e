"""From a config and a topology's name to a plan."""

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from jaxgen import sharding
from jaxgen.bench import device
from jaxgen.errors import UserError
from jaxgen.plan import estimate, programs, topology
from jaxgen.plan.programs import stand_in

Say = Callable[[str], Any]
TRIES = 4  # compilations in search of the largest batch


class Asked(NamedTuple):
  """What is to be planned.

  Attributes:
    config: Of the experiment.
    where: A topology's name, or "here".
    sample: The sampler, not the train step.
    batch: In place of the config's; of a sampler 64 by default.
    per_chip: The same, for each chip.
    shape: Of an example, where the config does not say it.
    knobs: Of the sampler.
  """

  config: ConfigDict
  where: str = "here"
  sample: bool = False
  batch: int | None = None
  per_chip: int | None = None
  shape: tuple[int, ...] | None = None
  knobs: Mapping[str, float] = {}


def plan(asked: Asked, say: Say = print) -> dict[str, Any]:
  """Compiles all that is asked for, and adds it up.

  Returns: What was compiled, for what and by what; `programs`, the rows of
    `estimate.estimate`; memory, flops, seconds and shares of a step: means
    over the turns that players take, or of a batch of samples. What nobody
    knows is None.
  """
  place = None if asked.where == "here" else topology.parse(asked.where)
  chips = topology.devices(place) if place else jax.devices()
  # Samplers have all weights on every device, however they were trained.
  shape = None if asked.sample else asked.config.get("mesh")
  mesh = sharding.make_mesh(shape, chips)
  batch = batch_of(asked, len(chips))
  data = stand_in(asked.config, asked.shape)
  say("tracing")
  if asked.sample:
    sharding.check_batch(batch, 1, mesh)
    todo = programs.sample(asked.config, data, mesh, batch, asked.knobs)
  else:
    todo = programs.train(programs.with_batch(asked.config, batch), data, mesh)
  rows = []
  for program in todo:
    say(f"compiling {program.name} for {asked.where}")
    rows.append(estimate.estimate(program, place, len(chips)))
  peak = place.chip.peak if place else device.published_peak(chips[0].device_kind)
  return described(asked, chips, mesh) | {
    "batch": batch,
    "per_chip": batch / len(chips),
    "example": list(data.shape),
    "peak": peak,
    "hbm": place.chip.hbm if place else memory_here(chips[0]),
    "programs": rows,
    **summed(rows, len(chips), peak),
  }


def described(asked: Asked, chips, mesh) -> dict[str, Any]:
  """What the numbers hold for."""
  names = ("jax", "jaxlib") + (("libtpu",) if asked.where != "here" else ())
  return {
    "model": asked.config.model.name,
    "source": asked.config.data.source,
    "what": "sample" if asked.sample else "train",
    "topology": asked.where,
    "device_kind": chips[0].device_kind,
    "chips": len(chips),
    "mesh": dict(mesh.shape),
    "level": estimate.level(),
    "accumulate": asked.config.accumulate,
    "versions": {n: importlib.metadata.version(n) for n in names},
  }


def batch_of(asked: Asked, chips: int) -> int:
  """Examples at once, in all."""
  if asked.per_chip is not None:
    return asked.per_chip * chips
  if asked.batch is not None:
    return asked.batch
  return max(64, chips) if asked.sample else asked.config.batch


def summed(rows: list[dict[str, Any]], chips: int, peak: float | None) -> dict[str, Any]:
  """Of all programs: the most memory, the mean of all else."""
  mean = lambda key: estimate.over_cycle(rows, key)
  work, took = mean("flops"), mean("seconds")
  total = {
    "memory": max((r["memory"] for r in rows), key=lambda m: m["total"]),
    "fits": None,
    "flops": work,
    "cycles": mean("cycles"),
    "seconds": took,
    "network_seconds": mean("network_seconds"),
    "exposed_seconds": mean("exposed_seconds"),
    "step_seconds": mean("step_seconds"),
    "compile_seconds": sum(r["compile_seconds"] for r in rows),
    "share_of_peak": None,
    "share_with_network": None,
    "least_seconds": work / chips / peak if peak else None,
  }
  if took:
    least = work / chips / peak
    total["share_of_peak"] = least / took
    total["share_with_network"] = least / total["step_seconds"]
  return total


def memory_here(chip: jax.Device) -> int | None:
  """Bytes that a device of our own offers, where it tells."""
  stats = chip.memory_stats() or {}
  return stats.get("bytes_limit")


def fits(result: Mapping[str, Any]) -> bool | None:
  """Whether a plan's programs fit; None: it is not known how much there is."""
  if any(row["refused"] for row in result["programs"]):
    return False
  if result["hbm"] is None:
    return None
  return result["memory"]["total"] <= result["hbm"]


def largest(asked: Asked, result: Mapping[str, Any], say: Say = print) -> int:
  """Examples per chip of the largest batch that fits; 0: not even one.

  What a program needs is about a straight line of the batch: it is drawn
  through two batches, then the batch where it meets the chip's memory is tried.
  """
  if result["hbm"] is None:
    raise UserError(
      "this machine does not say how much memory its devices "
      "have: take a --topology to look for the largest batch"
    )
  part = 1 if asked.sample else asked.config.accumulate
  known = {round(result["per_chip"] / part): (result["memory"]["total"], fits(result))}
  for _ in range(TRIES):
    batch = guess(known, result["hbm"])
    if batch in known:
      break
    say(f"trying {batch * part} per chip")
    tried = plan(asked._replace(batch=None, per_chip=batch * part), say)
    known[batch] = tried["memory"]["total"], fits(tried)
  return part * max((b for b, (_, ok) in known.items() if ok), default=0)


def guess(known: Mapping[int, tuple[int, bool]], room: int) -> int:
  """The next batch to try, given what others need and whether they fit."""
  good = [b for b, (_, ok) in known.items() if ok]
  bad = [b for b, (_, ok) in known.items() if not ok]
  if len(known) == 1:
    [(batch, (_, ok))] = known.items()
    return batch * 2 if ok else max(1, batch // 2)
  (low, (a, _)), (high, (b, _)) = sorted(known.items())[-2:]
  slope = max((b - a) / (high - low), 1.0)
  batch = int(low + (room - a) / slope)
  if bad:
    batch = min(batch, min(bad) - 1)
  return max(batch, max(good, default=0), 1)
