"""The machine: what it is, what it could do at best, what a program costs.

A floating-point operation is one addition or one multiplication, so a product
of [m, k] and [k, n] takes 2 m k n. Peaks are per device, in operations a
second.
"""

import contextlib
import importlib.metadata
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.extend.core
import numpy as np
from jax.experimental import multihost_utils
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import PartitionSpec as P

from jaxgen import sharding

Progress = Callable[[str], Any]  # told what is going on

# Dense bf16 matrix products as the makers publish them, by the beginning of
# jax's device_kind; the first that fits counts. V100 has fp16 in its place. On
# TPU v2 and v3 a device is a core, half a chip.
PUBLISHED = {
  "NVIDIA H200": 989e12,
  "NVIDIA H100 PCIe": 756e12,
  "NVIDIA H100 NVL": 835e12,
  "NVIDIA H100": 989e12,  # SXM5: "NVIDIA H100 80GB HBM3"
  "NVIDIA A100": 312e12,
  "Tesla V100": 125e12,
  "TPU v6 lite": 918e12,
  "TPU v6e": 918e12,
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5": 459e12,  # v5p
  "TPU v4 lite": 138e12,
  "TPU v4": 275e12,
  "TPU v3": 61.5e12,
  "TPU v2": 22.5e12,
}


def machine() -> dict[str, Any]:
  """What a number was measured on."""
  device = jax.devices()[0]
  return {
    "platform": device.platform,
    "device_kind": device.device_kind,
    "devices": jax.device_count(),
    "processes": jax.process_count(),
    "cpu": cpu_model(),
    "cores": cores(),
    "python": platform.python_version(),
    "system": platform.platform(),
    **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
  }


def cores() -> int:
  """How many cores this process may use."""
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # no such call on macOS
    return os.cpu_count() or 1


def cpu_model() -> str:
  """The processor's name, as far as the system tells."""
  with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
    for line in lines:
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()


def published_peak(kind: str) -> float | None:
  """The maker's bf16 peak of a device kind; None for an unknown one."""
  kind = kind.lower()
  return next((p for name, p in PUBLISHED.items() if kind.startswith(name.lower())), None)


def measured_peak(dtype: Any, size: int | None = None, seconds: float = 1.0) -> float:
  """Operations/s per device of large square products of `dtype`, the best.

  All devices work at once, as in training: those of a CPU share its cores.
  """
  mesh = sharding.make_mesh()
  cpu = jax.devices()[0].platform == "cpu"
  size = size or (1024 if cpu else 8192)
  chain = 2 if cpu else 16  # so that launching them costs next to nothing

  def products(w):
    return jax.lax.fori_loop(0, chain, lambda _, x: (x @ w).astype(w.dtype), w)

  # Entries that keep the variance: zeros or infinities may run faster.
  w = jax.random.normal(jax.random.key(0), (size, size)) / size**0.5
  w = jax.device_put(w.astype(dtype), sharding.replicated(mesh))
  run = jax.jit(
    jax.shard_map(products, mesh=mesh, in_specs=P(), out_specs=P("data"), check_vma=False)
  )
  best = min(time_calls(lambda: run(w), calls=1000, seconds=seconds))
  return chain * 2 * size**3 / best


def peaks(dtype: np.dtype) -> dict[str, Any]:
  """What all devices together could do at best: measured, published."""
  n = jax.device_count()
  published = published_peak(jax.devices()[0].device_kind)
  return {
    "dtype": str(dtype),
    "devices": n,
    "measured": n * measured_peak(dtype),
    "published_bf16": n * published if published else None,
  }


def shares_of_peak(row: dict[str, Any], peak: dict[str, Any]) -> dict[str, float]:
  """Achieved operations/s as a share of each known peak."""
  return {
    f"share_of_{k}": row["flops_per_s"] / peak[k] for k in ("measured", "published_bf16") if peak[k]
  }


def time_calls(fn: Callable[[], Any], calls: int = 100, seconds: float = 5.0) -> list[float]:
  """Seconds that each call took until its result was there.

  The first call (compilation, allocation) is made but not counted. Ends after
  `calls`, or earlier when `seconds` are over, but not before one has counted.
  Several processes make as many calls as process 0 expects from its own first
  one: they call together, or wait for ever.
  """
  jax.block_until_ready(fn())
  if jax.process_count() > 1:
    pace = time_call(fn)
    return [time_call(fn) for _ in range(agreed(min(max(seconds / pace, 1), calls)))]
  times, start = [], time.perf_counter()
  while not times or len(times) < calls and time.perf_counter() - start <= seconds:
    times.append(time_call(fn))
  return times


def time_call(fn: Callable[[], Any]) -> float:
  """Seconds of one call until its result is there."""
  start = time.perf_counter()
  jax.block_until_ready(fn())
  return time.perf_counter() - start


def agreed(number: float) -> int:
  """Process 0's number, rounded, on all processes."""
  if jax.process_count() == 1:
    return round(number)
  return int(multihost_utils.broadcast_one_to_all(np.int32(round(number))))


def median_min_max(seconds: Sequence[float]) -> dict[str, float]:
  """Of some measurements."""
  return {k: float(f(seconds)) for k, f in {"median": np.median, "min": min, "max": max}.items()}


def flops(program: Any, *args: Any, turns: int = 1) -> float:
  """Floating-point operations of one call, on all devices together.

  As XLA counts them in the program before it is optimised, lowered for the CPU
  whatever the machine: so the number is the model's, not the compiler's. Every
  turn of a `scan` counts.

  Args:
    program: Jitted; or `jax.stages.Lowered`, where a scan counts once.
    *args: Of the jitted function: arrays, or their shapes.
    turns: Of a loop whose length is not known beforehand.
  """
  if isinstance(program, jax.stages.Lowered):
    return _cost(program)
  with on_cpu():
    traced = program.trace(*shapes_of(args))
    return _cost(traced.lower()) + _further_turns(traced.jaxpr.jaxpr, turns)


def matmul_dtype(jitted: Any, *args: Any) -> np.dtype:
  """The dtype in which most products and convolutions of a program are."""
  jaxpr = jitted.trace(*shapes_of(args)).jaxpr.jaxpr
  products = ("dot_general", "conv_general_dilated", "transposed_conv_derivative")
  dtypes = Counter(
    e.invars[0].aval.dtype for e in _equations(jaxpr) if e.primitive.name in products
  )
  return dtypes.most_common(1)[0][0] if dtypes else np.dtype(np.float32)


def memory_in_use() -> int | None:
  """The most bytes in use on a device so far, where the platform knows."""
  stats = [d.memory_stats() for d in jax.local_devices()]
  peaks = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
  return max(peaks, default=None)


def on_cpu() -> contextlib.AbstractContextManager:
  """Within, programs are lowered for the CPU, if jax has one here."""
  try:
    return jax.default_device(jax.local_devices(backend="cpu")[0])
  except RuntimeError:  # JAX_PLATFORMS leaves it out
    return contextlib.nullcontext()


def is_array(x: Any) -> bool:
  """Whether a leaf is an array, or stands for one."""
  return isinstance(x, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def shapes_of(args: Any) -> Any:
  """The shapes of arrays: no device, no sharding. All else stays."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if is_array(x) else x, args)


def _cost(lowered: jax.stages.Lowered) -> float:
  return float((lowered.cost_analysis() or {}).get("flops", 0.0))


def _further_turns(jaxpr, turns_of_while: int) -> float:
  """What XLA leaves out: it counts a loop's body once, turns it how it may."""
  total = 0.0
  for equation in jaxpr.eqns:
    inner = sum(_further_turns(j, turns_of_while) for j in _inside(equation))
    body, turns, counted = None, 1, 1
    if equation.primitive.name == "while":
      body, turns = equation.params["body_jaxpr"], turns_of_while
    elif equation.primitive.name == "scan":
      body, turns, unroll = (equation.params[k] for k in ("jaxpr", "length", "unroll"))
      counted = min(unroll + turns % unroll, turns)
    total += turns * inner
    if turns > counted:
      once = jax.jit(jax.extend.core.jaxpr_as_fun(body)).lower(*body.in_avals)
      total += (turns - counted) * _cost(once)
  return total


def _equations(jaxpr) -> Iterator[Any]:
  for equation in jaxpr.eqns:
    yield equation
    for j in _inside(equation):
      yield from _equations(j)


def _inside(equation) -> Iterator[Any]:
  """The programs that an equation calls."""
  for value in jax.tree.leaves(list(equation.params.values())):
    if isinstance(value, ClosedJaxpr):
      value = value.jaxpr
    if isinstance(value, Jaxpr):
      yield value
