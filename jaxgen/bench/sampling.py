"""Samplers, timed; and what of the time their networks and stages take.

Any model will do: linen is asked, not the model. Every network is replaced by
a stand-in that returns zeros and is counted when it runs: inside of loops and
branches too, and without the cost of the networks themselves.
"""

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen import sharding
from jaxgen.bench import device
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, memory, open_data
from jaxgen.models.cascade import Cascade, stage_state
from jaxgen.sampling.sampler import Sampler


class Call(NamedTuple):
  """A network as a program evaluates it."""

  module: nn.Module
  method: str
  variables: Any  # shapes
  args: tuple[tuple, dict[str, Any]]  # arrays as shapes, the rest as it is

  def __call__(self, variables: Any, arrays: list[jax.Array]) -> Any:
    """The evaluation itself, on arrays in the place of shapes."""
    leaves, tree = jax.tree.flatten(self.args)
    arrays = iter(arrays)
    leaves = [next(arrays) if _is_array(x) else x for x in leaves]
    args, named = jax.tree.unflatten(tree, leaves)
    return self.module.apply(variables, *args, method=self.method, **named)

  @property
  def arrays(self) -> list[jax.ShapeDtypeStruct]:
    """The shapes among the arguments."""
    return [x for x in jax.tree.leaves(self.args) if _is_array(x)]

  @property
  def flops(self) -> float:
    """Operations of one evaluation."""
    return device.flops(jax.jit(self.__call__), self.variables, self.arrays)


def evaluations(fn: Callable, *args: Any) -> list[tuple[Call, int]]:
  """The networks that fn(*args) evaluates, and how often each, when run.

  A gradient through a network counts as the evaluation it goes through.
  """
  calls: dict[str, Call] = {}
  counts: Counter[str] = Counter()
  inside = []

  def stand_in(method, args, named, context):
    if inside or context.module.path or context.method_name == "setup":
      return method(*args, **named)
    inside.append(True)
    try:
      module, variables = context.module.unbind()
      call = Call(
        module, context.method_name, *jax.tree.map(_shape, (dict(variables), (args, named)))
      )
      out = jax.eval_shape(call, call.variables, call.arrays)
    finally:
      inside.pop()
    name = repr(call)
    calls[name] = call
    jax.debug.callback(lambda: counts.update([name]))
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), out)

  def fresh(*args):  # jax remembers functions: not one traced without us
    return fn(*args)

  with nn.intercept_methods(stand_in):
    jax.block_until_ready(jax.jit(fresh)(*args))
  jax.effects_barrier()
  return [(calls[name], counts[name]) for name in calls if counts[name]]


def repeat_network(call: Call, times: int, batch: int) -> Callable[[], Any]:
  """Returns run(): the network `times` in a row on the device, nothing else.

  Weights and inputs are drawn at random; what has `batch` rows is cut over
  the devices.
  """

  def run(variables, arrays, n):
    def again(i, _):
      # Inputs change a little: else one evaluation would do for all.
      moved = [
        x + (1e-6 * i).astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
        for x in arrays
      ]
      return call(variables, moved)

    out = jax.eval_shape(call, variables, arrays)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), out)
    return jax.lax.fori_loop(0, n, again, zeros)

  mesh = sharding.make_mesh()

  def place(x):
    rows = x.shape and x.shape[0] == batch
    return jax.device_put(x, (sharding.batched if rows else sharding.replicated)(mesh))

  variables = jax.device_put(_drawn(call.variables), sharding.replicated(mesh))
  arrays = [place(x) for x in _drawn(call.arrays)]
  program = jax.jit(run).lower(variables, arrays, times).compile()
  return lambda: program(variables, arrays, times)


def _drawn(shapes: Any) -> Any:
  """Small normal numbers, on the host; keys and integers are zeros."""
  rng = np.random.default_rng(0)

  def draw(s):
    if jnp.issubdtype(s.dtype, jax.dtypes.prng_key):
      return jax.random.split(jax.random.key(0), math.prod(s.shape)).reshape(s.shape)
    if jnp.issubdtype(s.dtype, jnp.floating):
      return (rng.standard_normal(s.shape, np.float32) / 16).astype(s.dtype)
    return np.zeros(s.shape, s.dtype)

  return jax.tree.map(draw, shapes)


def _is_array(x: Any) -> bool:
  return hasattr(x, "shape") and hasattr(x, "dtype")


def _shape(x: Any) -> Any:
  return jax.ShapeDtypeStruct(x.shape, x.dtype) if _is_array(x) else x


def silent(text: str) -> None:
  """For those who want no progress."""


class _Drawing(NamedTuple):
  """A sampler's program for one batch, compiled."""

  run: Callable[[], jax.Array]
  compile_seconds: float
  peak_bytes: int


def sampling_speed(
  sampler: Sampler,
  num: int,
  batch: int,
  *,
  seconds: float = 10.0,
  say: Callable[[str], Any] = silent,
  **knobs: float,
) -> dict[str, Any]:
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
    "batch": batch,
    "batches": len(times),
    "batch_seconds": took,
    "samples_per_s": batch / took["median"],
    "knobs": sampler.settings(knobs),
    "evaluations": total,
    "network_seconds": alone,
    "overhead": max(0.0, 1 - alone / took["min"]),
    "compile_seconds": drawing.compile_seconds,
    "peak_bytes": drawing.peak_bytes,
    "bytes_in_use": device.memory_in_use(),
    "peak": peak,
    "flops": work,
    "flops_per_s": work / took["median"],
  }
  return result | device.shares(result, peak)


def time_networks(
  counted: list[tuple[Call, int]], batch: int, calls: int, seconds: float, say: Callable[[str], Any]
) -> float:
  """Seconds of the networks' evaluations for a batch alone, at best."""
  alone = 0.0
  for call, n in counted:
    say(f"timing {n} evaluations of {type(call.module).__name__} alone")
    run = repeat_network(call, n, batch)
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
  given = sharding.shard_batch(given, sampler.mesh)
  return sampler.state, given, jax.random.key(0), settings


def count_evaluations(sampler: Sampler, batch: int, args: tuple) -> list[tuple[Call, int]]:
  """The networks behind one batch of samples, and how often each is run."""
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), sampler.state)
  _, given, key, settings = args
  given = {k: np.zeros(v.shape, v.dtype) for k, v in given.items()}
  return evaluations(sampler.program.__wrapped__, zeros, given, key, settings)


def compiled(sampler: Sampler, args: tuple) -> _Drawing:
  """Compiles the sampler ahead of time."""
  begun = time.perf_counter()
  program = sampler.program.lower(*args).compile()
  return _Drawing(lambda: program(*args), time.perf_counter() - begun, memory(program))


def fresh_sampler(config: ConfigDict) -> Sampler:
  """A sampler with the weights that training would begin with."""
  experiment, source = Experiment.of(config), open_data(config)
  mesh = sharding.make_mesh()  # weights are whole, as `load` has them
  experiment.abstract(source, mesh)  # do they fit?
  state = experiment.fresh(source, mesh).replace(opt={}, ema={})
  return Sampler(
    experiment.model,
    state,
    tuple(source.shape),
    np.dtype(source.dtype),
    config.data.classes,
    {"dataset": source.name, "step": 0},
  )


def stage_samplers(sampler: Sampler) -> list[Sampler]:
  """The stages of a cascade as samplers of their own."""
  cascade = sampler.model
  return [
    dataclasses.replace(
      sampler,
      model=model,
      state=stage_state(sampler.state, i),
      shape=shape,
      classes=classes,
      card={},
    )
    for i, (model, shape, classes) in enumerate(
      zip(cascade.stages, cascade.shapes, cascade.classes, strict=True)
    )
  ]


def time_stages(
  sampler: Sampler, batch: int, rounds: int, seconds: float, **knobs: float
) -> dict[str, Any] | None:
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
  for i, stage in enumerate(stage_samplers(sampler)):
    mine = {k: settings[f"{k}_{i}"] for k in stage.model.knobs if np.isfinite(settings[f"{k}_{i}"])}
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
  return {
    "chain_seconds": float(whole),
    "rounds": len(rows),
    "stage_seconds": [float(s) for s in stages],
    "added": float(np.median(rows[:, 0] / rows[:, 1:].sum(1)) - 1),
  }


def timed(run) -> float:
  """Seconds of one call, until its result is there."""
  begun = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - begun
