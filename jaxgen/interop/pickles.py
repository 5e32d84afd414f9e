"""Reads the pickles in PyTorch's files, and runs nothing that they ask for.

A pickle is a program for a stack machine. This machine knows the opcodes that
make plain data; of all names that a pickle may ask for, it knows the few that
its caller gives it. What else a pickle asks for is refused by name.
"""

import contextlib
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

# Bytes of one pickle. Weights lie beside it: it only says what they are.
LONGEST = 1 << 24
MOST = 2_000_000  # of what a file may ask for: opcodes, and things they touch
NEAR = 5  # containers within each other that a call may look into
LONGEST_KEY, LONGEST_INT = 1000, 1024  # letters and bits
PUSHED = {  # opcodes whose argument is the value
  "INT",
  "BININT",
  "BININT1",
  "BININT2",
  "LONG",
  "LONG1",
  "LONG4",
  "FLOAT",
  "BINFLOAT",
  "STRING",
  "BINSTRING",
  "SHORT_BINSTRING",
  "UNICODE",
  "BINUNICODE",
  "SHORT_BINUNICODE",
  "BINUNICODE8",
  "BINBYTES",
  "SHORT_BINBYTES",
  "BINBYTES8",
  "BYTEARRAY8",
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
IDLE = {"PROTO", "FRAME", "STOP"}
KEYS = str | int | float | bytes | None  # of dicts: they hash in no time
BROKEN = (
  AttributeError,
  EOFError,
  IndexError,
  KeyError,
  MemoryError,
  NotImplementedError,
  OverflowError,
  RecursionError,
  TypeError,
  ValueError,
  struct.error,
)


class Unreadable(Exception):  # noqa: N818
  """Why a file is not read, worded to follow the file's name."""


class Known(NamedTuple):
  """What stands for a name that a pickle may ask for."""

  name: str
  make: Callable | None  # called in its place; None: it cannot be called


class Nothing:
  """Of no interest: sets, numpy's scalars."""

  def build(self, attributes: dict) -> None:
    """Attributes that a pickle sets are dropped."""


class Ordered(dict):
  """An OrderedDict."""

  def build(self, attributes: dict) -> None:
    """Attributes that a pickle sets are dropped."""


class Namespace(dict):
  """An argparse.Namespace, as no more than its values."""

  def build(self, attributes: dict) -> None:
    """Its attributes are its values."""
    self.update(attributes)


def plain(text: Any) -> str:
  """A name out of a file, fit for a terminal."""
  text = str(text)
  text = text if text.isprintable() else ascii(text)[1:-1]
  return text if len(text) <= 100 else f"{text[:97]}..."


@contextlib.contextmanager
def guarded() -> Iterator[None]:
  """Unreadable in the place of what fails on a file that lies.

  Whatever touches what a file gave belongs in here.
  """
  try:
    yield
  except BROKEN as e:
    raise Unreadable(f"is damaged: its index fails by {type(e).__name__}, {plain(e)}") from e


def check_key(key: Any) -> None:
  """TypeError for what no checkpoint has as a key, or what hashes slowly.

  Before it is hashed: hashes of deep tuples overflow the stack, those of long
  numbers are computed anew each time, and alike for many of them.
  """
  if not isinstance(key, KEYS):
    raise TypeError(f"{type(key).__name__} as a key")
  if (
    isinstance(key, str | bytes)
    and len(key) > LONGEST_KEY
    or (type(key) is int and key.bit_length() > 64)
  ):
    raise TypeError(f"a very long {type(key).__name__} as a key")


class Budget:
  """How much more a file may ask for, in opcodes and things they touch.

  A short pickle can make a large thing once and have it copied a million times.
  """

  def __init__(self, left: int = MOST):
    self.left = left

  def spend(self, n: int) -> None:
    """Unreadable, if it is not there."""
    self.left -= n
    if self.left < 0:
      raise Unreadable("asks for more work than any checkpoint does")

  def spend_on(self, value: Any, near: int = NEAR) -> None:
    """For all that a call can look into."""
    if type(value) in (list, tuple) or isinstance(value, dict):
      self.spend(len(value))
      if near:
        for item in value.values() if isinstance(value, dict) else value:
          self.spend_on(item, near - 1)


def interpret(
  stream: BinaryIO,
  names: Mapping[str, Known],
  persistent: Callable[[Any], Any],
  bounded: Callable[[BinaryIO], Any] | None = None,
  budget: Budget | None = None,
) -> Any:
  """The value that the next pickle in a stream describes.

  Args:
    stream: Stands after the pickle in the end.
    names: "module.name" -> what stands for it.
    persistent: Gives the value for a persistent id: what lies outside.
    bounded: Limits what is read of the stream; None: `Bounded`.
    budget: Of this and other pickles of a file; None: its own.

  Raises:
    Unreadable: The pickle is damaged, asks for another name, or for more than
      any checkpoint does.
  """
  machine = Machine(names, persistent, budget or Budget())
  with guarded():
    for opcode, argument, _ in pickletools.genops((bounded or Bounded)(stream)):
      machine.step(opcode.name, argument)
    (value,) = machine.stack
  return value


class Bounded:
  """A stream of which no more than `longest` bytes are read."""

  longest = LONGEST

  def __init__(self, stream: BinaryIO):
    self.stream, self.left, self.tell = stream, self.longest, stream.tell

  def read(self, n: int) -> bytes:
    """n bytes, or up to the end."""
    return self.counted(self.stream.read(min(n, self.left + 1)))

  def readline(self) -> bytes:
    """Up to the end of a line."""
    return self.counted(self.stream.readline(self.left + 1))

  def counted(self, data: bytes) -> bytes:
    """The data, if all that was read is not too much."""
    self.left -= len(data)
    if self.left < 0:
      raise Unreadable(f"has an index of more than {self.longest >> 20} MB")
    return data


class Machine:
  """Stack, marks and memo; an `_on_` method for each opcode that it knows."""

  def __init__(self, names: Mapping[str, Known], persistent: Callable[[Any], Any], budget: Budget):
    self.names, self.persistent, self.budget = names, persistent, budget
    self.stack, self.marks, self.memo = [], [], {}

  def step(self, opcode: str, argument: Any) -> None:
    """Carries out one opcode."""
    self.budget.left -= 1
    if self.budget.left < 0:
      self.budget.spend(0)
    if opcode in PUSHED:
      if type(argument) is int and argument.bit_length() > LONGEST_INT:
        raise OverflowError("a number without end")
      self.stack.append(argument)
    elif opcode in CONSTANTS:
      self.stack.append(CONSTANTS[opcode])
    elif opcode not in IDLE:
      do = getattr(self, f"_on_{opcode.lower()}", None)
      if do is None:
        raise Unreadable(f"holds an opcode that PyTorch never writes, {opcode}")
      do(argument)

  def marked(self) -> list[Any]:
    """Takes what was pushed since the last mark."""
    at = self.marks.pop()
    items = self.stack[at:]
    del self.stack[at:]
    return items

  def _on_mark(self, _):
    self.marks.append(len(self.stack))

  def _on_pop(self, _):
    self.stack.pop()

  def _on_empty_set(self, _):
    self.stack.append(Nothing())

  def _on_additems(self, _):
    self.marked()

  def _on_empty_list(self, _):
    self.stack.append([])

  def _on_empty_dict(self, _):
    self.stack.append({})

  def _on_list(self, _):
    self.stack.append(self.marked())

  def _on_tuple(self, _):
    self.stack.append(tuple(self.marked()))

  def _on_tuple1(self, _):
    self.last(1)

  def _on_tuple2(self, _):
    self.last(2)

  def _on_tuple3(self, _):
    self.last(3)

  def last(self, n: int) -> None:
    """A tuple in the place of the last n values."""
    if len(self.stack) < n:
      raise IndexError("tuple from an empty stack")
    self.stack[-n:] = [tuple(self.stack[-n:])]

  def _on_dict(self, _):
    items = self.marked()
    self.stack.append({})
    self.put(items)

  def _on_append(self, _):
    self.extend([self.stack.pop()])

  def _on_appends(self, _):
    self.extend(self.marked())

  def extend(self, items: list[Any]) -> None:
    """Appends to the list on top."""
    if type(self.stack[-1]) is not list:
      raise TypeError("append to no list")
    self.stack[-1].extend(items)

  def _on_setitem(self, _):
    value = self.stack.pop()
    self.put([self.stack.pop(), value])

  def _on_setitems(self, _):
    self.put(self.marked())

  def put(self, items: list[Any]) -> None:
    """Sets keys and values, in turn, in the dict on top."""
    if not isinstance(self.stack[-1], dict):
      raise TypeError("item of no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
      check_key(key)
      self.stack[-1][key] = value

  def _on_binput(self, argument):
    self.memo[argument] = self.stack[-1]

  _on_put = _on_long_binput = _on_binput

  def _on_memoize(self, _):
    self.memo[len(self.memo)] = self.stack[-1]

  def _on_binget(self, argument):
    self.stack.append(self.memo[argument])

  _on_get = _on_long_binget = _on_binget

  def _on_global(self, argument):
    self.find(*argument.split(" ", 1))

  def _on_stack_global(self, _):
    name = self.stack.pop()
    self.find(self.stack.pop(), name)

  def find(self, module: Any, name: Any) -> None:
    """Pushes what stands for a name; no name is ever imported."""
    if not isinstance(module, str) or not isinstance(name, str):
      raise TypeError("a name that is no text")
    known = self.names.get(f"{module}.{name}")
    if known is None:
      raise Unreadable(
        f"asks for {plain(f'{module}.{name}')}: refused, a checkpoint that needs code is not read"
      )
    self.stack.append(known)

  def _on_reduce(self, _):
    arguments, known = self.stack.pop(), self.stack.pop()
    if not isinstance(known, Known) or known.make is None:
      raise TypeError("call of what is no function")
    if type(arguments) is not tuple:
      raise TypeError(f"call with {type(arguments).__name__}")
    self.budget.spend_on(arguments)
    self.stack.append(known.make(*arguments))

  _on_newobj = _on_reduce

  def _on_build(self, _):
    attributes, target = self.stack.pop(), self.stack[-1]
    state = getattr(type(target), "state", dict)  # what it is built of
    if not hasattr(type(target), "build") or not (
      isinstance(attributes, state) or type(target) in (Ordered, Nothing)
    ):
      raise TypeError(f"attributes for {type(target).__name__}")
    self.budget.spend_on(attributes)
    target.build(attributes)

  def _on_binpersid(self, _):
    self.stack.append(self.persistent(self.stack.pop()))
