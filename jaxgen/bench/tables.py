"""Measurements as plain text."""

from collections.abc import Sequence
from typing import Any

from jaxgen.monitor.table import Row, aligned, number, seconds, share, si, size


def train(result: dict[str, Any]) -> str:
  """Of `training.training_speed`."""
  both = result["real"], result["fixed"]
  cycle, programs = result["cycle"], result["programs"]
  of = f", mean over {cycle}" if cycle > 1 else ""
  speed = [
    ("", "real batches", "fixed batch"),
    *time_rows(f"step{of}, median", *(r["step_seconds"] for r in both)),
    ("time spent on getting batches", *(share(r["waiting"]) for r in both)),
    ("images/s", *(number(r["images_per_s"]) for r in both)),
    ("achieved", *(si(r["flops_per_s"], "FLOP/s") for r in both)),
    *share_rows(result["peak"], both),
  ]
  compilation = f"compilation of {programs} program{'s' * (programs > 1)}"
  facts = [
    ("batch", number(result["batch"])),
    ("steps timed", number(both[0]["steps"])),
    *(turn_row(turn) for turn in result["turns"] if cycle > 1),
    ("FLOPs per step", si(result["flops_per_step"], "FLOP")),
    (compilation, seconds(result["compile_seconds"])),
    *machine_rows(result),
  ]
  return f"{aligned(speed)}\n\n{aligned(facts)}"


def turn_row(turn: dict[str, Any]) -> Row:
  """How long a step takes in which these players move."""
  names = " + ".join(turn["players"]) or "nobody"
  return (f"step of {names} ({share(turn['share'])} of steps)", seconds(turn["seconds"]))


def sample(result: dict[str, Any]) -> str:
  """Of `sampling.sampling_speed`."""
  rows = [
    ("samples/s", number(result["samples_per_s"])),
    *time_rows(f"batch of {result['batch']}, median", result["batch_seconds"]),
    ("  its network evaluations alone", seconds(result["network_seconds"])),
    ("  all beside them", share(result["overhead"])),
    ("network evaluations per sample", number(result["evaluations"])),
    ("batches timed", number(result["batches"])),
    *stage_rows(result.get("stages")),
    ("FLOPs per batch", si(result["flops"], "FLOP")),
    ("achieved", si(result["flops_per_s"], "FLOP/s")),
    *share_rows(result["peak"], [result]),
    ("compilation", seconds(result["compile_seconds"])),
    *machine_rows(result),
  ]
  knobs = ", ".join(f"{k} {v:g}" for k, v in result["knobs"].items())
  return f"{aligned(rows)}\nknobs: {knobs}"


def stage_rows(stages: dict[str, Any] | None) -> list[Row]:
  """Of `sampling.time_stages`."""
  if not stages:
    return []
  title = f"the chain, in turn with its stages, {stages['rounds']} rounds"
  return [
    (title, seconds(stages["chain_seconds"])),
    *((f"  stage {i} alone", seconds(s)) for i, s in enumerate(stages["stage_seconds"])),
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
  hint = "" if ratio > 1 else ": the device waits; try more data.workers"
  return f"{aligned(rows)}\ndata come {ratio:.3g} x as fast as needed{hint}"


def extraction(result: dict[str, Any]) -> str:
  """Of `extraction.extraction_speed`."""
  rows = [
    (f"images/s of {result['size']}x{result['size']} pixels", number(result["images_per_s"])),
    *time_rows(f"batch of {result['batch']}, median", result["batch_seconds"]),
    ("  the network alone, at best", seconds(result["network_seconds"])),
    (f"{result['images']:,} images, as papers count", seconds(result["evaluation_seconds"])),
    ("batches timed", number(result["batches"])),
    ("FLOPs per image", si(result["flops_per_image"], "FLOP")),
    ("achieved", si(result["flops_per_s"], "FLOP/s")),
    *share_rows(result["peak"], [result]),
    *machine_rows(result),
  ]
  return f"{aligned(rows)}\nprotocol: {result['protocol']}, {result['network']}"


def checkpoint(result: dict[str, Any]) -> str:
  """Of `checkpoints.checkpoint_speed`."""
  speed = result["mb_per_s"]
  names = {"median": "median", "least": "min", "most": "max"}
  numbers = [
    ("MB/s", *speed),
    *((title, *(number(row[key]) for row in speed.values())) for title, key in names.items()),
  ]
  facts = [
    ("bytes of the state", size(result["bytes"])),
    ("leaves", number(result["leaves"])),
    *time_rows("training waits for a save, median", result["blocked_s"]),
  ]
  note = "write and read: plain files of as many bytes; restore and read: what was just written"
  return f"{aligned(numbers)}\n\n{aligned(facts)}\n{note}"


def machine(m: dict[str, Any]) -> str:
  """One line on what a number was measured on."""
  many = f"{m['devices']} x " if m["devices"] > 1 else ""
  hosts = f" on {m['processes']} hosts" if m["processes"] > 1 else ""
  return (
    f"{many}{m['device_kind']}{hosts} ({m['cpu']}, {m['cores']} cores), "
    f"jax {m['jax']}, jaxlib {m['jaxlib']}, Python {m['python']}"
  )


def time_rows(title: str, *columns: dict[str, float]) -> list[Row]:
  """Of `device.median_min_max`."""
  names = {title: "median", "  min": "min", "  max": "max"}
  return [(name, *(seconds(c[key]) for c in columns)) for name, key in names.items()]


def share_rows(peak: dict[str, Any], columns: Sequence[dict[str, Any]]) -> list[Row]:
  """Shares of the peaks that are known."""
  names = {
    "measured": f"  of the measured {peak['dtype']} peak",
    "published_bf16": "  of the published bf16 peak",
  }
  return [
    (name, *(share(c[f"share_of_{k}"]) for c in columns)) for k, name in names.items() if peak[k]
  ]


def machine_rows(result: dict[str, Any]) -> list[Row]:
  """Memory per device; the peaks of all devices together."""
  peak = result["peak"]
  published = peak["published_bf16"]
  memory = {
    "peak_bytes": "memory of the program, per device",
    "bytes_in_use": "most memory in use, per device",
  }
  return [
    *((name, size(result[k])) for k, name in memory.items() if result.get(k)),
    (f"measured peak, {peak['dtype']} matrix products", si(peak["measured"], "FLOP/s")),
    ("published peak, bf16", si(published, "FLOP/s") if published else "not known"),
  ]
