"""Samplers, timed; and what of the time their networks and stages take.

Any model will do: linen is asked, not the model. Every network is replaced by
a stand-in that returns zeros and is counted when it runs: inside of loops and
branches too, and without the cost of the networks themselves.
"""

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
from jaxgen.bench.device import Progress, is_array, shapes_of
from jaxgen.core import trait
from jaxgen.distributed import join
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, memory, open_data
from jaxgen.models.cascade import Cascade
from jaxgen.sampling.sampler import Sampler


class Call(NamedTuple):
  """A network as a program evaluates it."""

  module: nn.Module
  method: str
  variables: Any  # shapes
  args: tuple[tuple, dict[str, Any]]  # arrays as shapes, all else as it is

  def __call__(self, variables: Any, arrays: list[jax.Array]) -> Any:
    """The evaluation itself, on arrays in the place of shapes."""
    leaves, tree = jax.tree.flatten(self.args)
    arrays = iter(arrays)
    leaves = [next(arrays) if is_array(x) else x for x in leaves]
    args, named = jax.tree.unflatten(tree, leaves)
    return self.module.apply(variables, *args, method=self.method, **named)

  @property
  def arrays(self) -> list[jax.ShapeDtypeStruct]:
    """The shapes among the arguments."""
    return [x for x in jax.tree.leaves(self.args) if is_array(x)]

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
      call = Call(module, context.method_name, *shapes_of((dict(variables), (args, named))))
      out = jax.eval_shape(call, call.variables, call.arrays)
    finally:
      inside.pop()
    name = repr(call)
    calls[name] = call
    jax.debug.callback(lambda: counts.update([name]))
    return _zeros(out)

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

    return jax.lax.fori_loop(0, n, again, _zeros(jax.eval_shape(call, variables, arrays)))

  mesh = sharding.make_mesh()

  def place(x):
    rows = x.shape and x.shape[0] == batch
    return jax.device_put(x, (sharding.batched if rows else sharding.replicated)(mesh))

  variables = jax.device_put(random_arrays(call.variables), sharding.replicated(mesh))
  arrays = [place(x) for x in random_arrays(call.arrays)]
  program = jax.jit(run).lower(variables, arrays, times).compile()
  return lambda: program(variables, arrays, times)


def _zeros(shapes: Any) -> Any:
  return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def random_arrays(shapes: Any) -> Any:
  """Small normal numbers of such shapes, on the host; keys and integers are zeros."""
  rng = np.random.default_rng(0)

  def draw(s):
    if jnp.issubdtype(s.dtype, jax.dtypes.prng_key):
      return jax.random.split(jax.random.key(0), math.prod(s.shape)).reshape(s.shape)
    if jnp.issubdtype(s.dtype, jnp.floating):
      return (rng.standard_normal(s.shape, np.float32) / 16).astype(s.dtype)
    return np.zeros(s.shape, s.dtype)

  return jax.tree.map(draw, shapes)


def sampling_speed(
  sampler: Sampler,
  num: int,
  batch: int,
  *,
  seconds: float = 10.0,
  progress: Progress = lambda text: None,
  **knobs: float,
) -> dict[str, Any]:
  """How fast a sampler draws, and what of the time its networks take.

  Args:
    sampler: As `jaxgen.load` gives it.
    num: Samples to time at the most, but for a batch that is always timed.
    batch: Drawn at once; rounded up to a multiple of the devices.
    seconds: Stop timing after so long.
    **knobs: As for `Sampler.sample`.

  Returns: samples_per_s, from the median of batch_seconds; see `time_networks`;
    overhead, the share of a batch's best time beside the networks; achieved
    operations/s, peaks and shares of them; memory, compile_seconds, ...
  """
  if num < 1 or batch < 1:
    raise UserError(f"num={num}, batch={batch}: want at least 1")
  batch += -batch % sampler.mesh.size
  args = inputs(sampler, batch, knobs)
  progress("counting evaluations")
  counts = count_evaluations(sampler, args)
  progress("compiling the sampler")
  run, facts = compile_sampler(sampler, args)
  progress(f"drawing batches of {batch}, {sum(n for _, n in counts)} evaluations each")
  times = device.time_calls(run, max(num // batch, 1), seconds)
  median = float(np.median(times))
  networks = time_networks(counts, batch, len(times), seconds, progress)
  progress("measuring the peak of matrix products")
  peak = device.peaks(device.matmul_dtype(sampler.program, *args))
  result = {
    "batch": batch,
    "batches": len(times),
    "batch_seconds": device.median_min_max(times),
    "samples_per_s": batch / median,
    "knobs": sampler.settings(knobs),
    **networks,
    "overhead": max(0.0, 1 - networks["network_seconds"] / min(times)),
    **facts,
    "bytes_in_use": device.memory_in_use(),
    "peak": peak,
    "flops_per_s": networks["flops"] / median,
  }
  return result | device.shares_of_peak(result, peak)


def time_networks(
  counts: list[tuple[Call, int]], batch: int, calls: int, seconds: float, progress: Progress
) -> dict[str, float]:
  """For a batch: evaluations, their flops, and network_seconds alone, at best."""
  alone = 0.0
  for call, n in counts:
    progress(f"timing {n} evaluations of {type(call.module).__name__} alone")
    alone += min(device.time_calls(repeat_network(call, n, batch), calls, seconds))
  return {
    "evaluations": sum(n for _, n in counts),
    "network_seconds": alone,
    "flops": sum(n * call.flops for call, n in counts),
  }


def conditions(sampler: Sampler, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of what a sampler takes for each sample: index, label, conditions."""
  shapes = {"i": jax.ShapeDtypeStruct((batch,), np.int32)}
  if sampler.classes:
    shapes["y"] = jax.ShapeDtypeStruct((batch,), np.int32)
  like = jax.ShapeDtypeStruct((batch, *sampler.shape), jnp.float32)
  for name, make in trait(sampler.model, "cond").items():
    if make:
      shapes[name] = jax.ShapeDtypeStruct(jax.eval_shape(make, like).shape, sampler.dtype)
  return shapes


def inputs(sampler: Sampler, batch: int, knobs: dict[str, float]) -> tuple:
  """The arguments of `sampler.program` for one batch."""
  # Conditions are small images: what they show does not matter.
  arrays = {k: np.full(s.shape, 128, s.dtype) for k, s in conditions(sampler, batch).items()}
  arrays["i"] = np.arange(batch, dtype=np.int32)
  if "y" in arrays:
    arrays["y"] = sampler.labels(batch, None)
  settings = {k: jnp.float32(v) for k, v in sampler.settings(knobs).items()}
  rows = sharding.shard_batch(sharding.local_rows(arrays), sampler.mesh)
  return sampler.state, rows, jax.random.key(0), settings


def count_evaluations(sampler: Sampler, args: tuple) -> list[tuple[Call, int]]:
  """The networks behind one batch of samples, and how often each is run."""
  state, arrays, key, settings = args
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (state, arrays))
  return evaluations(sampler.program.__wrapped__, *zeros, key, settings)


def compile_sampler(
  sampler: Sampler, args: tuple
) -> tuple[Callable[[], jax.Array], dict[str, float]]:
  """Compiles the sampler ahead of time -> run(), compile_seconds and peak_bytes."""
  start = time.perf_counter()
  program = sampler.program.lower(*args).compile()
  facts = {"compile_seconds": time.perf_counter() - start, "peak_bytes": memory(program)}
  return lambda: program(*args), facts


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


def time_stages(
  sampler: Sampler, batch: int, rounds: int, seconds: float, **knobs: float
) -> dict[str, Any] | None:
  """Times a cascade and its stages in turn, so that all meet the same machine.

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
  runs = [compile_sampler(sampler, inputs(sampler, batch, knobs))[0]]
  for i, stage in enumerate(sampler.stages):
    mine = {k: settings[f"{k}_{i}"] for k in stage.model.knobs if np.isfinite(settings[f"{k}_{i}"])}
    runs.append(compile_sampler(stage, inputs(stage, batch, mine))[0])
  for run in runs:
    jax.block_until_ready(run())
  rows, start = [], time.perf_counter()
  more = lambda: len(rows) < rounds and time.perf_counter() - start <= seconds
  while len(rows) < 3 or join.share(more):
    rows.append([device.time_call(run) for run in runs])
  rows = np.array(rows)
  chain, *stages = np.median(rows, 0)
  return {
    "chain_seconds": float(chain),
    "rounds": len(rows),
    "stage_seconds": [float(s) for s in stages],
    "added": float(np.median(rows[:, 0] / rows[:, 1:].sum(1)) - 1),
  }
