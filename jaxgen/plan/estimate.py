"""Compiles programs ahead of time, and reads what the compiler made of them."""

import re
import time
import warnings
from typing import Any

import jax

from jaxgen import experiment
from jaxgen.errors import UserError
from jaxgen.plan import hlo, network, profile
from jaxgen.plan.programs import Program
from jaxgen.plan.topology import Topology

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SECONDS = ("seconds", "exposed_seconds", "step_seconds", "network_seconds", "share_of_peak")
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
  start = time.perf_counter()
  lowered = program.lower()
  row["lower_seconds"] = time.perf_counter() - start
  start = time.perf_counter()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as e:
    needed = bytes_refused(str(e))
    if needed is None:
      raise UserError(f"the compiler gave up on {program.name}: {str(e).splitlines()[0]}") from e
    row |= {"refused": True, "memory": {**program.arguments, "total": needed}}
  row["compile_seconds"] = time.perf_counter() - start
  if row.get("refused"):
    return row
  row |= {"refused": False, "memory": memory(compiled, program.arguments)}
  return row | times(parse_text(compiled), program, topology, chips)


def parse_text(compiled: jax.stages.Compiled) -> hlo.Module:
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
  traffic = network.summary(network.transfers(module, program.turns), topology)
  row = {
    "cycles": cycles or None,
    "network": traffic,
    "profile": profile.shares(module, program.turns),
  }
  if not topology or not cycles:
    return row | dict.fromkeys(SECONDS)
  seconds = cycles / topology.chip.clock
  exposed = sum(r["exposed_seconds"] for r in traffic)
  return row | {
    "seconds": seconds,
    "exposed_seconds": exposed,
    "step_seconds": seconds + exposed,
    "network_seconds": sum(r["seconds"] for r in traffic),
    "share_of_peak": program.flops / chips / topology.chip.peak / seconds,
  }


def memory(compiled: jax.stages.Compiled, arguments: dict[str, int]) -> dict[str, int]:
  """Bytes per device by kind; what layouts add to the arguments is padding."""
  m = compiled.memory_analysis()
  if m is None:
    return {**arguments, "total": sum(arguments.values())}
  kinds = {
    "padding": max(0, m.argument_size_in_bytes - sum(arguments.values())),
    "temporaries": m.temp_size_in_bytes,
    "results": m.output_size_in_bytes - m.alias_size_in_bytes,
  }
  return {**arguments, **kinds, "total": experiment.memory(compiled)}


def bytes_refused(message: str) -> int | None:
  """Bytes that a program would need, by a compiler's refusal; None: it is none."""
  match = REFUSED.search(message)
  if "RESOURCE_EXHAUSTED" not in message or not match:
    return None
  return int(float(match[1]) * UNITS[match[2]])


def level() -> str:
  """How hard the compiler tries: at less than O2 its cycles mean little."""
  name = jax.config.values.get("jax_optimization_level", "UNKNOWN")
  return "O2" if name == "UNKNOWN" else name
