"""What a program's estimated cycles are spent on."""

import re
from collections import Counter
from typing import Any

from jaxgen.plan.hlo import Instruction, Module
from jaxgen.plan.network import PASSES

# What instructions do that compute nothing.
MOVES = {
  "parameter",
  "constant",
  "copy",
  "copy-start",
  "copy-done",
  "transpose",
  "reshape",
  "bitcast",
  "bitcast-convert",
  "slice",
  "pad",
  "concatenate",
  "broadcast",
  "tuple",
  "get-tuple-element",
  "convert",
  "dynamic-slice",
  "dynamic-update-slice",
  "fusion",
  "slice-start",
  "slice-done",
  "iota",
  "reverse",
}
# Of the names that modules and functions have in our nets; the first counts.
PLACES = {
  "attention": "attention|attend|attn|qkv|softmax",
  "normalisation": "norm",
  "convolutions": "conv",
  "spectral norms": "spectral",
  "dense layers": "dense|linear",
  "resampling": "resize|pool|resample|upfirdn|fir|reduce_window",
}


def kind(module: Module, instruction: Instruction) -> str:
  """What an instruction does, by the most costly thing fused into it."""
  found = {i.opcode.removesuffix("-start") for i in module.inside(instruction)}
  if found & {"convolution", "dot"}:  # what is sent meanwhile is not waited for
    return "convolutions and products"
  if found & set(PASSES):
    return "communication"
  if "custom-call" in found:
    return "kernels"
  if found & {"rng-bit-generator", "shift-right-logical", "xor"}:
    return "random numbers"
  if found & {"gather", "scatter", "sort"}:
    return "gathers, scatters, sorts"
  if found <= MOVES:
    return "copies and layouts"
  if found & {"reduce", "reduce-window", "select-and-scatter"}:
    return "reductions"
  return "elementwise"


def place(instruction: Instruction) -> str:
  """Which part of the model it belongs to, by the names of its functions."""
  path = instruction.op_name
  if not path:
    return "the compiler's own"
  if "jvp" not in path:
    return "optimiser, averages, input"
  for name, words in PLACES.items():
    if re.search(words, path, re.IGNORECASE):
      return name
  return "elsewhere in the networks"


def direction(instruction: Instruction) -> str:
  """Forward, backward, or beside the networks."""
  path = instruction.op_name
  if "transpose(" in path:
    return "backward"
  return "forward" if "jvp(" in path else "beside"


def shares(module: Module, turns: int = 1, top: int = 10) -> dict[str, Any]:
  """Cycles by kind, by part of the model and by direction; the top lines.

  Args:
    module: A compiled program.
    turns: As for `Module.running`.
    top: How many single instructions to name.

  Returns: {"kinds", "places", "directions": {name: cycles}, "top": rows of
    name, kind, cycles, times, op_name}.
  """
  kinds, places, ways = Counter(), Counter(), Counter()
  lines = []
  for i, times in module.running(turns):
    if not i.cycles:
      continue
    spent, what = i.cycles * times, kind(module, i)
    kinds[what] += spent
    # What is fused into a product follows its name: the convolution's.
    places[place(i)] += spent
    ways[direction(i)] += spent
    lines.append(
      {
        "name": i.name,
        "kind": what,
        "cycles": spent,
        "times": times,
        "op_name": i.op_name,
        "shape": i.shape,
      }
    )
  lines.sort(key=lambda line: -line["cycles"])
  return {
    "kinds": dict(kinds.most_common()),
    "places": dict(places.most_common()),
    "directions": dict(ways.most_common()),
    "top": lines[:top],
  }
