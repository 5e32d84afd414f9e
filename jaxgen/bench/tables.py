"""What was measured, as plain text."""

import math
from collections.abc import Sequence
from typing import Any

from jaxgen.errors import printable

Row = Sequence[str]


def aligned(rows: Sequence[Row]) -> str:
  """Names to the left, values to the right; one row a line."""
  width = max(map(len, rows))
  rows = [[*map(printable, row)] + [""] * (width - len(row)) for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
    for row in rows
  )


def train(result: dict[str, Any]) -> str:
  """Of `training.training_speed`."""
  both = result["real"], result["fixed"]
  k = result["cycle"]
  of = f", mean over {k}" if k > 1 else ""
  rows = [
    ("", "real batches", "fixed batch"),
    (f"step{of}, median", *(seconds(r["step_seconds"]["median"]) for r in both)),
    ("  min", *(seconds(r["step_seconds"]["min"]) for r in both)),
    ("  max", *(seconds(r["step_seconds"]["max"]) for r in both)),
    ("time spent on getting batches", *(share(r["waiting"]) for r in both)),
    ("images/s", *(number(r["images_per_s"]) for r in both)),
    ("achieved", *(si(r["flops_per_s"], "FLOP/s") for r in both)),
    *peak_rows(result["peak"], both),
  ]
  programs = result["programs"]
  return "\n".join(
    [
      aligned(rows),
      "",
      aligned(
        [
          ("batch", number(result["batch"])),
          ("steps timed", number(both[0]["steps"])),
          *(turn_row(turn) for turn in result["turns"] if k > 1),
          ("FLOPs per step", si(result["flops_per_step"], "FLOP")),
          (
            f"compilation of {programs} program{'s' * (programs > 1)}",
            seconds(result["compile_seconds"]),
          ),
          *memory_rows(result),
          *peak_facts(result["peak"]),
        ]
      ),
    ]
  )


def turn_row(turn: dict[str, Any]) -> Row:
  """How long a step takes in which these players move."""
  names = " + ".join(turn["players"]) or "nobody"
  return (f"step of {names} ({share(turn['share'])} of steps)", seconds(turn["seconds"]))


def sample(result: dict[str, Any]) -> str:
  """Of `sampling.sampling_speed`."""
  took = result["batch_seconds"]
  knobs = ", ".join(f"{k} {v:g}" for k, v in result["knobs"].items())
  return (
    aligned(
      [
        ("samples/s", number(result["samples_per_s"])),
        (f"batch of {result['batch']}, median", seconds(took["median"])),
        ("  min", seconds(took["min"])),
        ("  max", seconds(took["max"])),
        ("  its network evaluations alone", seconds(result["network_seconds"])),
        ("  all beside them", share(result["overhead"])),
        ("network evaluations per sample", number(result["evaluations"])),
        ("batches timed", number(result["batches"])),
        *stage_rows(result.get("stages")),
        ("FLOPs per batch", si(result["flops"], "FLOP")),
        ("achieved", si(result["flops_per_s"], "FLOP/s")),
        *peak_rows(result["peak"], [result]),
        ("compilation", seconds(result["compile_seconds"])),
        *memory_rows(result),
        *peak_facts(result["peak"]),
      ]
    )
    + f"\nknobs: {knobs}"
  )


def stage_rows(stages: dict[str, Any] | None) -> list[Row]:
  """Of `stages.time_stages`."""
  if not stages:
    return []
  each = [(f"  stage {i} alone", seconds(s)) for i, s in enumerate(stages["stage_seconds"])]
  return [
    (
      f"the chain, in turn with its stages, {stages['rounds']} rounds",
      seconds(stages["chain_seconds"]),
    ),
    *each,
    ("  the chain beside their sum", f"{stages['added']:+.2%}"),
  ]


def data(result: dict[str, Any]) -> str:
  """Of `bench.bench_data`."""
  rows = [(f"{result['source']}, batch {result['batch']}", "examples/s", "MB/s", "first batch")]
  rows += [
    (name, number(r["examples_per_s"]), number(r["mb_per_s"]), seconds(r["first_batch_s"]))
    for name, r in result["rows"].items()
  ]
  needed, (*_, last) = result["needed_per_s"], result["rows"].values()
  if needed is None:
    return aligned(rows)
  rows.append(("the train step takes", number(needed)))
  ratio = last["examples_per_s"] / needed
  return (
    aligned(rows)
    + f"\ndata come {ratio:.3g} x as fast as needed"
    + ("" if ratio > 1 else ": the device waits; try more data.workers")
  )


def machine(m: dict[str, Any]) -> str:
  """One line on what a number was measured on."""
  many = f"{m['devices']} x " if m["devices"] > 1 else ""
  hosts = f" on {m['processes']} hosts" if m["processes"] > 1 else ""
  return (
    f"{many}{m['device_kind']}{hosts} ({m['cpu']}, {m['cores']} cores), "
    f"jax {m['jax']}, jaxlib {m['jaxlib']}, Python {m['python']}"
  )


def peak_rows(peak: dict[str, Any], columns: Sequence[dict[str, Any]]) -> list[Row]:
  """Shares of the known peaks."""
  names = {
    "measured": f"  of the measured {peak['dtype']} peak",
    "published_bf16": "  of the published bf16 peak",
  }
  return [
    (name, *(share(c[f"share_of_{k}"]) for c in columns)) for k, name in names.items() if peak[k]
  ]


def peak_facts(peak: dict[str, Any]) -> list[Row]:
  """The peaks themselves, of all devices together."""
  published = peak["published_bf16"]
  return [
    (f"measured peak, {peak['dtype']} matrix products", si(peak["measured"], "FLOP/s")),
    ("published peak, bf16", si(published, "FLOP/s") if published else "not known"),
  ]


def memory_rows(result: dict[str, Any]) -> list[Row]:
  """What the program needs, and what was in use, per device."""
  names = {
    "peak_bytes": "memory of the program, per device",
    "bytes_in_use": "most memory in use, per device",
  }
  return [(name, size(result[k])) for k, name in names.items() if result[k]]


def si(x: float, unit: str) -> str:
  """1.25e12, "FLOP/s" -> "1.25 TFLOP/s"."""
  power = min(max(int(math.log10(x)) // 3, 0), 6) if x >= 1 else 0
  return f"{number(x / 1000**power)} {('', *'kMGTPE')[power]}{unit}"


def seconds(x: float) -> str:
  """0.00125 -> "1.25 ms"."""
  for unit, worth in (("s", 1), ("ms", 1e-3)):
    if x >= worth:
      return f"{number(x / worth)} {unit}"
  return f"{number(x / 1e-6)} us"


def size(x: int) -> str:
  """Bytes -> "1.25 GiB"."""
  for unit, worth in (("GiB", 2**30), ("MiB", 2**20)):
    if x >= worth:
      return f"{number(x / worth)} {unit}"
  return f"{number(x / 2**10)} KiB"


def number(x: float) -> str:
  """Three digits, or all before the point."""
  if isinstance(x, int) or x >= 100:
    return f"{x:,.0f}"
  return f"{x:.3g}"


def share(x: float) -> str:
  """0.256 -> "25.6%"."""
  return f"{100 * x:.3g}%"
