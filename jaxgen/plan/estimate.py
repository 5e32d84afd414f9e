"""Compiles programs ahead of time, and reads what the compiler made of them."""

import re
import time
import warnings
from collections.abc import Sequence
from typing import Any

import jax

from jaxgen import experiment
from jaxgen.errors import UserError
from jaxgen.plan import hlo, network, profile
from jaxgen.plan.programs import Program
from jaxgen.plan.topology import Topology

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
REFUSED = re.compile(r"(?:\(|Used )([\d.]+)([KMGT]?) ?(?:\) exceeds|of)")


def estimate(program: Program, topology: Topology | None, chips: int) -> dict[str, Any]:
  """What one program needs, and how long it would take.

  Args:
    program: To be compiled.
    topology: The machine it is for; None: our own, of which less is known.
    chips: Devices of either.

  Returns: name, share, flops; memory: bytes per device by kind, `total` and
    None for the rest where it does not fit; compile_seconds; and, if it fits,
    cycles, seconds, share_of_peak (None where the compiler tells no cycles);
    network, see `network.summary`; network_seconds, exposed_seconds;
    step_seconds; profile.

  Raises:
    UserError: The compiler fails, and not for lack of memory.
  """
  row = {"name": program.name, "share": program.share, "flops": program.flops}
  begun = time.perf_counter()
  lowered = program.lower()
  row["lower_seconds"] = time.perf_counter() - begun
  begun = time.perf_counter()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as e:
    needed = refused(str(e))
    if needed is None:
      raise UserError(f"the compiler gave up on {program.name}: {str(e).splitlines()[0]}") from e
    return row | {
      "compile_seconds": time.perf_counter() - begun,
      "memory": {**program.arguments, "total": needed},
      "refused": True,
    }
  row["compile_seconds"] = time.perf_counter() - begun
  row["memory"] = memory(compiled, program.arguments)
  return row | {"refused": False} | times(read(compiled), program, topology, chips)


def read(compiled: jax.stages.Compiled) -> hlo.Module:
  """A program's text; of no lines, with a warning, if jax cannot read it.

  Compilers of TPUs are newer or older than jax's own, and so may their texts.
  """
  try:
    return hlo.parse(compiled.as_text())
  except jax.errors.JaxRuntimeError as e:
    warnings.warn(
      "this jax cannot read what the compiler made, so nothing is "
      f"known of cycles and network: {str(e).splitlines()[0]}",
      stacklevel=2,
    )
    return hlo.Module({"": []}, "")


def times(
  module: hlo.Module, program: Program, topology: Topology | None, chips: int
) -> dict[str, Any]:
  """Cycles and traffic, as seconds where the machine is known."""
  cycles = module.cycles(program.turns)
  sent = network.summary(network.transfers(module, program.turns), topology)
  row = {
    "cycles": cycles or None,
    "seconds": None,
    "share_of_peak": None,
    "network": sent,
    "network_seconds": None,
    "exposed_seconds": None,
    "step_seconds": None,
    "profile": profile.shares(module, program.turns),
  }
  if topology and cycles:
    chip = topology.chip
    took = cycles / chip.clock
    exposed = sum(r["exposed_seconds"] for r in sent)
    row |= {
      "seconds": took,
      "exposed_seconds": exposed,
      "step_seconds": took + exposed,
      "network_seconds": sum(r["seconds"] for r in sent),
      "share_of_peak": program.flops / chips / chip.peak / took,
    }
  return row


def memory(compiled: jax.stages.Compiled, arguments: dict[str, int]) -> dict[str, int]:
  """Bytes per device by kind; what layouts add to the arguments is padding."""
  m = compiled.memory_analysis()
  if m is None:
    return {**arguments, "total": sum(arguments.values())}
  known = sum(arguments.values())
  kinds = {
    "padding": max(0, m.argument_size_in_bytes - known),
    "temporaries": m.temp_size_in_bytes,
    "results": m.output_size_in_bytes - m.alias_size_in_bytes,
  }
  return {**arguments, **kinds, "total": experiment.memory(compiled)}


def refused(message: str) -> int | None:
  """Bytes that a program would need, of a compiler that refuses it."""
  found = REFUSED.search(message)
  if "RESOURCE_EXHAUSTED" not in message or not found:
    return None
  return int(float(found[1]) * UNITS[found[2]])


def over_cycle(rows: Sequence[dict[str, Any]], key: str) -> float | None:
  """A mean over all steps, each program as often as it is run."""
  if any(row.get(key) is None for row in rows):
    return None
  return sum(row["share"] * row[key] for row in rows)


def level() -> str:
  """How hard the compiler tries: at less than O2 its cycles mean little."""
  name = jax.config.values.get("jax_optimization_level", "UNKNOWN")
  return "O2" if name == "UNKNOWN" else name
