"""Samplers, timed; and what of the time their networks take."""
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen import sharding
from jaxgen.bench import device, networks
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, memory, open_data
from jaxgen.sampling.sampler import Sampler


def silent(text: str) -> None:
  """For those who want no progress."""


class _Drawing(NamedTuple):
  """A sampler's program for one batch, compiled."""
  run: Callable[[], jax.Array]
  compile_seconds: float
  peak_bytes: int


def sampling_speed(
    sampler: Sampler, num: int, batch: int, *, seconds: float = 10.,
    say: Callable[[str], Any] = silent, **knobs: float) -> dict[str, Any]:
  """How fast a sampler draws, and what of the time its networks take.

  Args:
    sampler: As `jaxgen.load` gives it.
    num: How many samples to time at the most; a batch at the least. Another
      one goes before, uncounted.
    batch: Drawn at once; rounded up to a multiple of the devices.
    seconds: Stop timing after so long.
    say: Is told what is being done.
    **knobs: As for `Sampler.sample`.

  Returns: batch_seconds: median, min and max; samples_per_s, from the median;
    evaluations: of networks, per sample; network_seconds: of those alone, per
    batch, at best; overhead: the share of a batch's best time beside them;
    flops: of the networks, per batch; peaks and shares of them.
  """
  if num < 1 or batch < 1:
    raise UserError(f"num={num}, batch={batch}: want at least 1")
  batch += -batch % sampler.mesh.size
  args = inputs(sampler, batch, knobs)
  say("counting evaluations")
  counted = count_evaluations(sampler, batch, args)
  total = sum(n for _, n in counted)
  say("compiling the sampler")
  drawing = compiled(sampler, args)
  say(f"drawing batches of {batch}, {total} evaluations each")
  times = device.time_calls(drawing.run, max(num // batch, 1), seconds)
  alone = time_networks(counted, batch, len(times), seconds, say)
  took = device.spread(times)
  say("measuring the peak of matrix products")
  peak = device.peaks(device.matmul_dtype(sampler.program, *args))
  work = sum(n * call.flops for call, n in counted)
  result = {
      "batch": batch, "batches": len(times), "batch_seconds": took,
      "samples_per_s": batch / took["median"],
      "knobs": sampler.settings(knobs), "evaluations": total,
      "network_seconds": alone, "overhead": max(0., 1 - alone / took["min"]),
      "compile_seconds": drawing.compile_seconds,
      "peak_bytes": drawing.peak_bytes,
      "bytes_in_use": device.memory_in_use(), "peak": peak,
      "flops": work, "flops_per_s": work / took["median"]}
  return result | device.shares(result, peak)


def time_networks(counted: list[tuple[networks.Call, int]], batch: int,
                  calls: int, seconds: float, say: Callable[[str], Any]
                  ) -> float:
  """Seconds of the networks' evaluations for a batch alone, at best."""
  alone = 0.
  for call, n in counted:
    say(f"timing {n} evaluations of {type(call.module).__name__} alone")
    run = networks.alone(call, n, batch)
    alone += min(device.time_calls(run, calls, seconds))
  return alone


def inputs(sampler: Sampler, batch: int, knobs: dict[str, float]) -> tuple:
  """The arguments of `sampler.program` for one batch."""
  settings = {k: jnp.float32(v) for k, v in sampler.settings(knobs).items()}
  given = {"i": np.arange(batch, dtype=np.int32)}
  labels = sampler.labels(batch, None)
  if labels is not None:
    given["y"] = labels
  like = jax.ShapeDtypeStruct((batch, *sampler.shape), jnp.float32)
  for name, make in getattr(sampler.model, "cond", {}).items():
    if make:  # small images: what they show does not matter
      shape = jax.eval_shape(make, like).shape
      given[name] = np.full(shape, 128, sampler.dtype)
  given = sharding.place(given, sampler.mesh)
  return sampler.state, given, jax.random.key(0), settings


def count_evaluations(sampler: Sampler, batch: int, args: tuple
                      ) -> list[tuple[networks.Call, int]]:
  """The networks behind one batch of samples, and how often each is run."""
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), sampler.state)
  _, given, key, settings = args
  given = {k: np.zeros(v.shape, v.dtype) for k, v in given.items()}
  return networks.evaluations(
      sampler.program.__wrapped__, zeros, given, key, settings)


def compiled(sampler: Sampler, args: tuple) -> _Drawing:
  """Compiles the sampler ahead of time."""
  begun = time.perf_counter()
  program = sampler.program.lower(*args).compile()
  return _Drawing(lambda: program(*args), time.perf_counter() - begun,
                  memory(program))


def fresh_sampler(config: ConfigDict) -> Sampler:
  """A sampler with the weights that training would begin with."""
  experiment, source = Experiment.of(config), open_data(config)
  mesh = sharding.make_mesh()  # weights are whole, as `load` has them
  experiment.abstract(source, mesh)  # do they fit?
  state = experiment.fresh(source, mesh).replace(opt={}, ema={})
  return Sampler(experiment.model, state, tuple(source.shape),
                 np.dtype(source.dtype), config.data.classes,
                 {"dataset": source.name, "step": 0})
