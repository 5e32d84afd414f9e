"""From a config and a topology's name to a plan."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxgen import sharding
from jaxgen.bench import device
from jaxgen.bench.device import Progress
from jaxgen.errors import UserError
from jaxgen.plan import estimate, programs, topology
from jaxgen.plan.programs import data_spec

TRIES = 4  # compilations in search of the largest batch


class Request(NamedTuple):
  """What is to be planned."""

  config: ConfigDict
  where: str = "here"  # a topology's name, or our own devices
  sample: bool = False  # the sampler, not the train step
  batch: int | None = None  # in place of the config's; of a sampler 64 by default
  per_chip: int | None = None  # the same, for each chip
  shape: tuple[int, ...] | None = None  # of an example, where the config does not say it
  knobs: Mapping[str, float] = {}  # of the sampler

  def batch_on(self, chips: int) -> int:
    """Examples at once, in all."""
    if self.per_chip is not None:
      return self.per_chip * chips
    if self.batch is not None:
      return self.batch
    return max(64, chips) if self.sample else self.config.batch


def plan(request: Request, progress: Progress = print) -> dict[str, Any]:
  """Compiles all that is wanted, and adds it up.

  Returns: What was compiled, for what and by what; `programs`, the rows of
    `estimate.estimate`; memory, flops, seconds and shares of a step: means
    over the turns that players take, or of a batch of samples. What nobody
    knows is None.
  """
  config, where = request.config, request.where
  pod = None if where == "here" else topology.parse(where)
  chips = topology.devices(pod) if pod else jax.devices()
  # Samplers have all weights on every device, however they were trained.
  mesh = sharding.make_mesh(None if request.sample else config.get("mesh"), chips)
  batch = request.batch_on(len(chips))
  data = data_spec(config, request.shape)
  progress("tracing")
  if request.sample:
    sharding.check_batch(batch, 1, mesh)
    todo = programs.sample(config, data, mesh, batch, request.knobs)
  else:
    todo = programs.train(programs.with_batch(config, batch), data, mesh)
  rows = []
  for program in todo:
    progress(f"compiling {program.name} for {where}")
    rows.append(estimate.estimate(program, pod, len(chips)))
  peak = pod.chip.peak if pod else device.published_peak(chips[0].device_kind)
  return describe(request, chips, mesh) | {
    "batch": batch,
    "per_chip": batch / len(chips),
    "example": list(data.shape),
    "peak": peak,
    "hbm": pod.chip.hbm if pod else (chips[0].memory_stats() or {}).get("bytes_limit"),
    "programs": rows,
    **total(rows, len(chips), peak),
  }


def describe(request: Request, chips: Sequence[jax.Device], mesh: Mesh) -> dict[str, Any]:
  """What the numbers hold for."""
  names = ("jax", "jaxlib") + (("libtpu",) if request.where != "here" else ())
  return {
    "model": request.config.model.name,
    "source": request.config.data.source,
    "what": "sample" if request.sample else "train",
    "topology": request.where,
    "device_kind": chips[0].device_kind,
    "chips": len(chips),
    "mesh": dict(mesh.shape),
    "level": estimate.level(),
    "accumulate": request.config.accumulate,
    "versions": {n: importlib.metadata.version(n) for n in names},
  }


def total(rows: list[dict[str, Any]], chips: int, peak: float | None) -> dict[str, Any]:
  """Of all programs: the most memory, the mean of all else."""
  means = {
    key: mean_over_steps(rows, key)
    for key in (
      *("flops", "cycles", "seconds"),
      *("network_seconds", "exposed_seconds", "step_seconds"),
    )
  }
  least = means["flops"] / chips / peak if peak else None
  return means | {
    "memory": max((r["memory"] for r in rows), key=lambda m: m["total"]),
    "fits": None,
    "compile_seconds": sum(r["compile_seconds"] for r in rows),
    "share_of_peak": least / means["seconds"] if means["seconds"] else None,
    "share_with_network": least / means["step_seconds"] if means["seconds"] else None,
    "least_seconds": least,
  }


def mean_over_steps(rows: Sequence[dict[str, Any]], key: str) -> float | None:
  """A mean over all steps, each program as often as it is run."""
  if any(row.get(key) is None for row in rows):
    return None
  return sum(row["share"] * row[key] for row in rows)


def fits(result: Mapping[str, Any]) -> bool | None:
  """Whether a plan's programs fit; None: it is not known how much there is."""
  if any(row["refused"] for row in result["programs"]):
    return False
  if result["hbm"] is None:
    return None
  return result["memory"]["total"] <= result["hbm"]


def largest(request: Request, result: Mapping[str, Any], progress: Progress = print) -> int:
  """Examples per chip of the largest batch that fits; 0: not even one.

  What a program needs is about a straight line of the batch: it is drawn
  through two batches, then the batch where it meets the chip's memory is tried.
  """
  if result["hbm"] is None:
    raise UserError(
      "this machine does not say how much memory its devices "
      "have: take a --topology to look for the largest batch"
    )
  part = 1 if request.sample else request.config.accumulate
  tried = {round(result["per_chip"] / part): (result["memory"]["total"], fits(result))}
  for _ in range(TRIES):
    batch = guess(tried, result["hbm"])
    if batch in tried:
      break
    progress(f"trying {batch * part} per chip")
    trial = plan(request._replace(batch=None, per_chip=batch * part), progress)
    tried[batch] = trial["memory"]["total"], fits(trial)
  return part * max((b for b, (_, ok) in tried.items() if ok), default=0)


def guess(tried: Mapping[int, tuple[int, bool]], room: int) -> int:
  """The next batch to try, given what others need and whether they fit."""
  good = [b for b, (_, ok) in tried.items() if ok]
  bad = [b for b, (_, ok) in tried.items() if not ok]
  if len(tried) == 1:
    return good[0] * 2 if good else max(1, bad[0] // 2)
  (low, (a, _)), (high, (b, _)) = sorted(tried.items())[-2:]
  slope = max((b - a) / (high - low), 1.0)
  batch = int(low + (room - a) / slope)
  if bad:
    batch = min(batch, min(bad) - 1)
  return max(batch, max(good, default=0), 1)
