"""The compiler's own text of a program: what runs, how often, at what cost.

XLA prints a module as computations of instructions, one a line:

  %fusion.3 = bf16[8,64]{1,0:T(8,128)} fusion(%a, %b), kind=kOutput,
    calls=%fused.5, metadata={op_name="jit(f)/dot"}, backend_config={...}

For TPUs most lines hold "estimated_cycles", the compiler's guess of how long a
core is busy with them; what moves between chips has none.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
LINE = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
BRACKET = re.compile(r"[()]")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
CONDITION = re.compile(r"condition=%?([\w.\-]+)")
CONSTANT = re.compile(r"constant\((\d+)\)")
NAMED = re.compile(r'op_name="([^"]*)"')
CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|true_computation|"
  r"false_computation)=%?([\w.\-]+)"
)
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
FLOW = {"while", "call", "conditional", "async-start"}


class Instruction(NamedTuple):
  """One line."""

  name: str  # as other lines call it
  opcode: str  # "fusion", "all-reduce-start", ...
  shape: str  # of its result, as printed
  cycles: int  # as estimated; 0 where the compiler says nothing
  op_name: str  # where in the traced function it comes from
  calls: tuple[str, ...]  # names of the computations it runs
  turns: int | None  # how often it runs them; None: the compiler does not tell
  operands: tuple[str, ...]
  text: str  # the whole line

  @property
  def bytes(self) -> int:
    """Of the result, without padding."""
    return size(self.shape)


class Module(NamedTuple):
  """A program: its computations by name, and the one that runs first."""

  computations: dict[str, list[Instruction]]
  entry: str

  def running(
    self, turns: int = 1, name: str | None = None, times: int = 1
  ) -> Iterator[tuple[Instruction, int]]:
    """(instruction, how often it runs), those in fusions left out.

    Args:
      turns: Of loops whose number of turns is not known before they run.
      name: The computation to begin with; default: the entry.
      times: How often that one runs.
    """
    for i in self.computations[name or self.entry]:
      yield i, times
      if i.opcode in FLOW:
        n = (self.turns_of(i) or turns) if i.opcode == "while" else 1
        for callee in i.calls:
          yield from self.running(turns, callee, times * n)

  def turns_of(self, loop: Instruction) -> int | None:
    """How often a loop turns: as printed, or as its condition counts from 0."""
    name = CONDITION.search(loop.text)
    if loop.turns is not None or not name:
      return loop.turns
    lines = {i.name: i for i in self.computations.get(name[1], ())}
    for i in lines.values():
      bound = lines.get(i.operands[-1]) if i.operands else None
      if i.opcode == "compare" and "direction=LT" in i.text and bound:
        limit = CONSTANT.match(bound.text)
        return int(limit[1]) if limit else None
    return None

  def inside(self, instruction: Instruction) -> Iterator[Instruction]:
    """The instruction, and all that is fused into it."""
    yield instruction
    if instruction.opcode == "fusion":
      for name in instruction.calls:
        for i in self.computations.get(name, ()):
          yield from self.inside(i)

  def cycles(self, turns: int = 1) -> int:
    """The sum of all estimates; `turns` as for `running`."""
    return sum(i.cycles * times for i, times in self.running(turns))


def parse(text: str) -> Module:
  """Reads what `jax.stages.Compiled.as_text` gives."""
  computations, entry, lines = {}, "", None
  for line in text.splitlines():
    if head := HEAD.match(line):
      lines = computations[head[2]] = []
      entry = head[2] if head[1] else entry
    elif line.startswith("}"):
      lines = None
    elif lines is not None and (match := LINE.match(line)):
      lines.append(parse_instruction(match[1], match[2]))
  return Module(computations, entry)


def parse_instruction(name: str, line: str) -> Instruction:
  """Reads what stands right of "name = "."""
  end = closing(line, 0) if line.startswith("(") else line.find(" ")
  shape, text = line[:end], line[end:].lstrip()
  opcode, _, _ = text.partition("(")
  start = len(opcode)
  stop = closing(text, start) if start < len(text) else start
  calls = tuple(CALLED.findall(text, stop))
  if branches := BRANCHES.search(text, stop):
    calls += tuple(b.strip(" %") for b in branches[1].split(","))
  cycles, turns, op_name = (p.search(text, stop) for p in (CYCLES, TURNS, NAMED))
  return Instruction(
    name,
    opcode,
    shape,
    int(cycles[1]) if cycles else 0,
    op_name[1] if op_name else "",
    calls,
    int(turns[1]) if turns else None,
    tuple(re.findall(r"%([\w.\-]+)", text[start:stop])),
    text,
  )


def closing(text: str, start: int) -> int:
  """Behind the bracket that closes the one at `start`."""
  depth = 0
  for bracket in BRACKET.finditer(text, start):
    depth += 1 if bracket[0] == "(" else -1
    if not depth:
      return bracket.end()
  return len(text)


def size(shape: str) -> int:
  """Bytes of "bf16[8,64]{1,0}" or of a tuple of such."""
  return sum(arrays(shape))


def arrays(shape: str) -> list[int]:
  """Bytes of each array of a shape."""
  return [
    math.ceil(width(dtype) * math.prod(int(d.lstrip("<=")) for d in dims.split(",") if d))
    for dtype, dims in ARRAY.findall(shape)
  ]


def width(dtype: str) -> float:
  """Bytes of one element; 0 for what is no number, such as a token."""
  if dtype == "pred":
    return 1
  bits = re.match(r"(?:bf|[sufc])(\d+)", dtype)
  return int(bits[1]) / 8 if bits else 0
