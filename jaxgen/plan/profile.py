"""Where the estimated cycles of a program go."""

import re
from collections import Counter
from typing import Any

from jaxgen.plan.hlo import Instruction, Module
from jaxgen.plan.network import PASSES

# Instructions that compute nothing.
MOVES = set(
  "parameter constant copy copy-start copy-done transpose reshape bitcast bitcast-convert slice "
  "pad concatenate broadcast tuple get-tuple-element convert dynamic-slice dynamic-update-slice "
  "fusion slice-start slice-done iota reverse".split()
)
# The kinds of work, the most costly first, and the instructions of each.
KINDS = {
  "convolutions and products": {"convolution", "dot"},  # which hide what is sent meanwhile
  "communication": set(PASSES),
  "kernels": {"custom-call"},
  "random numbers": {"rng-bit-generator", "shift-right-logical", "xor"},
  "gathers, scatters, sorts": {"gather", "scatter", "sort"},
}
REDUCTIONS = {"reduce", "reduce-window", "select-and-scatter"}
# Of the names that modules and functions have in our nets; the first counts.
PLACES = {
  "attention": "attention|attend|attn|qkv|softmax",
  "normalisation": "norm",
  "perceptrons": "mlp|fc1|fc2",
  "what conditions shift and scale": "/ada/",
  "slices of a loop's arrays": "index_in_dim",
  "convolutions": "conv",
  "spectral norms": "spectral",
  "dense layers": "dense|linear",
  "resampling": "resize|pool|resample|upfirdn|fir|reduce_window",
}


def kind(module: Module, instruction: Instruction) -> str:
  """What an instruction does, by the most costly thing fused into it."""
  opcodes = {i.opcode.removesuffix("-start") for i in module.inside(instruction)}
  for name, instructions in KINDS.items():
    if opcodes & instructions:
      return name
  if opcodes <= MOVES:
    return "copies and layouts"
  return "reductions" if opcodes & REDUCTIONS else "elementwise"


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
  """Forward, again for the gradient, backward, or beside the networks."""
  path = instruction.op_name
  if "rematted_computation" in path:
    return "forward again"
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
  counters = Counter(), Counter(), Counter()
  lines = []
  for i, times in module.running(turns):
    if not i.cycles:
      continue
    cycles, what = i.cycles * times, kind(module, i)
    # What is fused into a product follows its name: the convolution's.
    for counter, name in zip(counters, (what, place(i), direction(i)), strict=True):
      counter[name] += cycles
    line = {"name": i.name, "kind": what, "cycles": cycles, "times": times}
    lines.append(line | {"op_name": i.op_name, "shape": i.shape})
  lines.sort(key=lambda line: -line["cycles"])
  tables = (dict(c.most_common()) for c in counters)
  return dict(zip(("kinds", "places", "directions"), tables, strict=True)) | {"top": lines[:top]}
