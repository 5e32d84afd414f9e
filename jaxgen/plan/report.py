"""A plan as plain text."""

from typing import Any

from jaxgen.monitor.table import aligned, number, seconds, share, si, size
from jaxgen.plan.planner import fits

LESS = (
  "it needs less with --config.mesh.fsdp=N (weights in parts), "
  "--config.accumulate=N\n(batches in parts) or what is made again for the "
  "gradient: remat of the net, such as\n--config.model.net.remat=HEIGHT,HEIGHT "
  "of a U-Net or =True of a transformer"
)


def plan(result: dict[str, Any]) -> str:
  """Of `planner.plan`."""
  return "\n\n".join(
    part for part in (headline(result), memory(result), speed(result), network(result)) if part
  )


def headline(r: dict[str, Any]) -> str:
  """What it is, and the answer."""
  what = "sampling" if r["what"] == "sample" else "a train step"
  mesh = " x ".join(f"{k}={v}" for k, v in r["mesh"].items() if v > 1)
  versions = ", ".join(f"{k} {v}" for k, v in r["versions"].items())
  example = " x ".join(map(str, r["example"]))
  lines = [
    f"{what} of {r['model']} on {r['chips']} x {r['device_kind']}"
    f" ({r['topology']}), batch {r['batch']:,} of {example}: "
    f"{number(r['per_chip'])} per chip" + (f"; mesh {mesh}" if mesh else ""),
    f"compiled by {versions}, optimisation level {r['level']}, in {seconds(r['compile_seconds'])}",
    answer(r),
  ]
  if "largest" in r:
    lines.append(
      f"largest batch that fits: {r['largest']} per chip, {r['largest'] * r['chips']:,} in all"
    )
  return "\n".join(lines)


def answer(r: dict[str, Any]) -> str:
  """Does it fit?"""
  needs, ok = gib(r["memory"]["total"]), fits(r)
  if ok is None:
    return f"needs {needs} per device; what there is is not known"
  if ok:
    return f"fits: needs {needs} of {gib(r['hbm'])} per chip"
  line = f"does not fit: needs {needs} of {gib(r['hbm'])} per chip"
  return line if r["what"] == "sample" else f"{line}\n{LESS}"


def memory(r: dict[str, Any]) -> str:
  """By kind, of the program that needs most."""
  rows = [(f"  {kind}", size(n)) for kind, n in r["memory"].items()]
  return aligned([("memory per chip", ""), *rows])


def speed(r: dict[str, Any]) -> str:
  """Operations, and how long they take."""
  rows = [
    (f"FLOPs of a {'batch' if r['what'] == 'sample' else 'step'}", si(r["flops"], "FLOP")),
    ("  per chip", si(r["flops"] / r["chips"], "FLOP")),
  ]
  if r["least_seconds"]:
    rows.append(("at the published peak it would take", seconds(r["least_seconds"])))
  if r["seconds"]:
    rows += [
      ("the compiler's estimate", seconds(r["seconds"])),
      ("  cycles", number(r["cycles"])),
      ("  share of the published peak", share(r["share_of_peak"])),
      ("network, at best", seconds(r["network_seconds"])),
      ("  not hidden behind other work", seconds(r["exposed_seconds"])),
      ("both together", seconds(r["step_seconds"])),
      ("  share of the published peak", share(r["share_with_network"])),
      ("  images/s", number(r["batch"] / r["step_seconds"])),
    ]
    if r["level"] != "O2":
      rows.append((f"(cycles at {r['level']} mean little)", ""))
  if len(r["programs"]) > 1:
    rows += map(turn, r["programs"])
  return aligned(rows)


def turn(program: dict[str, Any]) -> tuple[str, str]:
  """One of several programs."""
  facts = [si(program["flops"], "FLOP"), size(program["memory"]["total"])]
  if program.get("seconds"):
    facts += [seconds(program["seconds"]), share(program["share_of_peak"])]
  return f"{program['name']} ({share(program['share'])} of steps)", ", ".join(facts)


def network(r: dict[str, Any]) -> str:
  """What is sent, by kind, of each program."""
  rows = [("sent, per chip", "arrays", "bytes", "at best", "not hidden")]
  for program in r["programs"]:
    if len(r["programs"]) > 1:
      rows.append((program["name"], "", "", "", ""))
    for row in program.get("network", ()):
      times = (row["seconds"], row["exposed_seconds"])
      times = ["not known" if s is None else seconds(s) for s in times]
      rows.append((f"  {row['kind']}", number(row["count"]), size(row["bytes"]), *times))
  return aligned(rows) if any(row[1] for row in rows[1:]) else ""


def profile(r: dict[str, Any]) -> str:
  """Where the cycles go, of each program."""
  parts = []
  for program in r["programs"]:
    tables, total = program.get("profile"), program.get("cycles")
    if not tables or not total:
      continue
    row = lambda name, n, total=total: (f"  {name}", number(n), share(n / total))
    rows = [(f"{program['name']}, cycles by", number(total), "")]
    for title in ("kinds", "places", "directions"):
      rows += [(title, "", ""), *(row(name, n) for name, n in tables[title].items())]
    rows.append(("longest", "", ""))
    rows += [
      row(f"{line['name']} {line['op_name'][-60:]}", line["cycles"]) for line in tables["top"]
    ]
    parts.append(aligned(rows))
  return "\n\n".join(parts) or "the compiler tells no cycles here"


def gib(n: int) -> str:
  """Bytes -> "15.75 GiB"."""
  return f"{n / 2**30:.4g} GiB" if n >= 2**28 else size(n)
