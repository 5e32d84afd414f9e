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
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxgen import sharding

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
    "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    "python": platform.python_version(),
    "system": platform.platform(),
    **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
  }


def cpu_model() -> str:
  """The processor's name, as far as the system tells."""
  with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
    for line in lines:
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()


def published_peak(kind: str) -> float | None:
  """The maker's bf16 peak of a device kind; None for an unknown one."""
  for name, peak in PUBLISHED.items():
    if kind.lower().startswith(name.lower()):
      return peak
  return None


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


def shares(row: dict[str, Any], peak: dict[str, Any]) -> dict[str, float]:
  """Achieved operations/s as a share of each known peak."""
  return {
    f"share_of_{k}": row["flops_per_s"] / peak[k] for k in ("measured", "published_bf16") if peak[k]
  }


def time_calls(fn: Callable[[], Any], calls: int = 100, seconds: float = 5.0) -> list[float]:
  """Seconds that each call took until its result was there.

  The first call (compilation, allocation) is made but not counted. Ends after
  `calls`, or earlier when `seconds` are over, but not before one has counted.
  """
  jax.block_until_ready(fn())
  times, begun = [], time.perf_counter()
  while len(times) < max(calls, 1):
    start = time.perf_counter()
    jax.block_until_ready(fn())
    times.append(time.perf_counter() - start)
    if time.perf_counter() - begun > seconds:
      break
  return times


def spread(seconds) -> dict[str, float]:
  """Median, min, max."""
  return {
    "median": float(np.median(seconds)),
    "min": float(np.min(seconds)),
    "max": float(np.max(seconds)),
  }


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
  if hasattr(program, "cost_analysis"):
    return _cost(program)
  with on_cpu():
    traced = program.trace(*_abstract(args))
    return _cost(traced.lower()) + _further_turns(traced.jaxpr.jaxpr, turns)


def matmul_dtype(jitted: Any, *args: Any) -> np.dtype:
  """The dtype in which most products and convolutions of a program are."""
  jaxpr = jitted.trace(*_abstract(args)).jaxpr.jaxpr
  found = Counter(
    e.invars[0].aval.dtype
    for e in _equations(jaxpr)
    if e.primitive.name in ("dot_general", "conv_general_dilated")
  )
  return found.most_common(1)[0][0] if found else np.dtype(np.float32)


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


def _abstract(args):
  """Shapes alone: no device, no sharding. Static arguments stay."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "dtype") else x, args
  )


def _cost(lowered: jax.stages.Lowered) -> float:
  return float((lowered.cost_analysis() or {}).get("flops", 0.0))


def _further_turns(jaxpr, turns_of_while: int) -> float:
  """What XLA leaves out: it counts a loop's body once, turns it how it may."""
  total = 0.0
  for equation in jaxpr.eqns:
    inner = sum(_further_turns(j, turns_of_while) for j in _inside(equation))
    if equation.primitive.name == "while" and turns_of_while > 1:
      body = equation.params["body_jaxpr"]
      once = jax.jit(jax.extend.core.jaxpr_as_fun(body)).lower(*body.in_avals)
      inner = turns_of_while * inner + (turns_of_while - 1) * _cost(once)
    elif equation.primitive.name == "scan":
      body, turns, unroll = (equation.params[k] for k in ("jaxpr", "length", "unroll"))
      once = jax.jit(jax.extend.core.jaxpr_as_fun(body)).lower(*body.in_avals)
      counted = min(unroll + turns % unroll, turns)
      inner = turns * inner + (turns - counted) * _cost(once)
    total += inner
  return total


def _equations(jaxpr) -> Iterator[Any]:
  for equation in jaxpr.eqns:
    yield equation
    for j in _inside(equation):
      yield from _equations(j)


def _inside(equation) -> Iterator[Any]:
  """The programs that an equation calls."""
  for value in jax.tree.leaves(
    list(equation.params.values()), is_leaf=lambda v: hasattr(v, "jaxpr")
  ):
    value = getattr(value, "jaxpr", value)
    if hasattr(value, "eqns"):
      yield value
