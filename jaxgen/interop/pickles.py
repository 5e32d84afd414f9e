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
BROKEN = (
  AttributeError, EOFError, LookupError, MemoryError, NotImplementedError,
  OverflowError, RecursionError, TypeError, ValueError, struct.error,
)  # fmt: skip


class Unreadable(Exception):  # noqa: N818
  """Why a file is not read, worded to follow the file's name."""


class Stub(NamedTuple):
  """Stands for a name that a pickle may ask for."""

  name: str
  make: Callable | None  # called in its place; None: it cannot be called

  def __str__(self) -> str:
    return self.name


class Buildable:
  """Whose attributes a pickle may set; here they are dropped.

  Attributes:
    state: Type of the attributes.
  """

  state: type = object

  def build(self, state: Any) -> None:
    """Takes attributes."""


class Nothing(Buildable):
  """In the place of what is of no interest: sets, numpy's scalars."""


class Ordered(dict, Buildable):
  """In the place of an OrderedDict."""


class Namespace(dict, Buildable):
  """In the place of an argparse.Namespace: its values."""

  state = dict

  def build(self, state: dict) -> None:
    self.update(state)


KEYS = str | int | float | bytes | Stub | None  # of dicts: they hash in no time


def nothing(*_: Any) -> Nothing:
  """In the place of what no tensor depends on."""
  return Nothing()


def plain(text: Any) -> str:
  """A name out of a file, fit for a terminal."""
  text = str(text)
  text = text if text.isprintable() else ascii(text)[1:-1]
  return text if len(text) <= 100 else f"{text[:97]}..."


def is_count(n: Any, limit: int = 1 << 48) -> bool:
  """Whether it is a whole number from 0 to `limit`, and no bool."""
  return type(n) is int and 0 <= n < limit


@contextlib.contextmanager
def guarded() -> Iterator[None]:
  """Unreadable in the place of what fails on a file that lies.

  Whatever touches what a file contains belongs in here.
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
  long_text = isinstance(key, str | bytes) and len(key) > LONGEST_KEY
  if long_text or (type(key) is int and key.bit_length() > 64):
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
    """Spends on all that a call can look into."""
    if type(value) in (list, tuple) or isinstance(value, dict):
      self.spend(len(value))
      if near:
        for item in value.values() if isinstance(value, dict) else value:
          self.spend_on(item, near - 1)


class Bounded:
  """A stream of which no more than `longest` bytes are read."""

  longest = LONGEST

  def __init__(self, stream: BinaryIO):
    self.stream, self.left, self.tell = stream, self.longest, stream.tell

  def read(self, n: int) -> bytes:
    return self._count(self.stream.read(min(n, self.left + 1)))

  def readline(self) -> bytes:
    return self._count(self.stream.readline(self.left + 1))

  def _count(self, data: bytes) -> bytes:
    self.left -= len(data)
    if self.left < 0:
      raise Unreadable(f"has an index of more than {self.longest >> 20} MB")
    return data


def interpret(
  stream: BinaryIO,
  names: Mapping[str, Stub],
  persistent: Callable[[Any], Any],
  bounded: Callable[[BinaryIO], Any] = Bounded,
  budget: Budget | None = None,
) -> Any:
  """The value that the next pickle in a stream describes.

  Args:
    stream: Stands after the pickle in the end.
    names: "module.name" -> what stands for it.
    persistent: Gives the value for a persistent id: what lies outside.
    bounded: Limits what is read of the stream.
    budget: Of this and other pickles of a file; None: its own.

  Raises:
    Unreadable: The pickle is damaged, asks for another name, or for more than
      any checkpoint does.
  """
  machine = Machine(names, persistent, budget or Budget())
  with guarded():
    for opcode, argument, _ in pickletools.genops(bounded(stream)):
      machine.step(opcode.name, argument)
    (value,) = machine.stack
  return value


class Machine:
  """Stack, marks and memo; OPCODES has what it can do."""

  def __init__(self, names: Mapping[str, Stub], persistent: Callable[[Any], Any], budget: Budget):
    self.names, self.persistent, self.budget = names, persistent, budget
    self.stack, self.marks, self.memo = [], [], {}

  def step(self, opcode: str, argument: Any) -> None:
    """Carries out one opcode."""
    self.budget.spend(1)
    if opcode not in OPCODES:
      raise Unreadable(f"holds an opcode that PyTorch never writes, {opcode}")
    OPCODES[opcode](self, argument)

  def push(self, value: Any) -> None:
    if type(value) is int and value.bit_length() > LONGEST_INT:
      raise OverflowError("a number without end")
    self.stack.append(value)

  def pop_marked(self) -> list[Any]:
    """Takes what was pushed since the last mark."""
    at = self.marks.pop()
    items = self.stack[at:]
    del self.stack[at:]
    return items

  def tuple_of(self, n: int) -> None:
    """A tuple in the place of the last n values."""
    if len(self.stack) < n:
      raise IndexError("tuple from an empty stack")
    self.stack[-n:] = [tuple(self.stack[-n:])]

  def dict_of(self, items: list[Any]) -> None:
    self.stack.append({})
    self.set_items(items)

  def extend(self, items: list[Any]) -> None:
    """Appends to the list on top."""
    if type(self.stack[-1]) is not list:
      raise TypeError("append to no list")
    self.stack[-1].extend(items)

  def set_items(self, items: list[Any]) -> None:
    """Sets keys and values, in turn, in the dict on top."""
    if not isinstance(self.stack[-1], dict):
      raise TypeError("item of no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
      check_key(key)
      self.stack[-1][key] = value

  def memorise(self, key: int) -> None:
    self.memo[key] = self.stack[-1]

  def find(self, module: Any, name: Any) -> None:
    """Pushes what stands for a name; no name is ever imported."""
    if not isinstance(module, str) or not isinstance(name, str):
      raise TypeError("a name that is no text")
    stub = self.names.get(f"{module}.{name}")
    if stub is None:
      raise Unreadable(
        f"asks for {plain(f'{module}.{name}')}: refused, a checkpoint that needs code is not read"
      )
    self.stack.append(stub)

  def call(self) -> None:
    arguments, stub = self.stack.pop(), self.stack.pop()
    if not isinstance(stub, Stub) or stub.make is None:
      raise TypeError("call of what is no function")
    if type(arguments) is not tuple:
      raise TypeError(f"call with {type(arguments).__name__}")
    self.budget.spend_on(arguments)
    self.stack.append(stub.make(*arguments))

  def build(self) -> None:
    state, target = self.stack.pop(), self.stack[-1]
    if not isinstance(target, Buildable) or not isinstance(state, type(target).state):
      raise TypeError(f"attributes for {type(target).__name__}")
    self.budget.spend_on(state)
    target.build(state)


PUSHED = (  # opcodes whose argument is the value
  "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING"
  " UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
OPCODES: dict[str, Callable[[Machine, Any], Any]] = {
  **dict.fromkeys(PUSHED.split(), Machine.push),
  **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, _: None),
  **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.memorise),
  **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, key: m.stack.append(m.memo[key])),
  **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m.call()),
  "NONE": lambda m, _: m.push(None),
  "NEWTRUE": lambda m, _: m.push(True),
  "NEWFALSE": lambda m, _: m.push(False),
  "EMPTY_TUPLE": lambda m, _: m.push(()),
  "EMPTY_LIST": lambda m, _: m.push([]),
  "EMPTY_DICT": lambda m, _: m.push({}),
  "EMPTY_SET": lambda m, _: m.push(Nothing()),
  "MARK": lambda m, _: m.marks.append(len(m.stack)),
  "POP": lambda m, _: m.stack.pop(),
  "LIST": lambda m, _: m.push(m.pop_marked()),
  "TUPLE": lambda m, _: m.push(tuple(m.pop_marked())),
  "TUPLE1": lambda m, _: m.tuple_of(1),
  "TUPLE2": lambda m, _: m.tuple_of(2),
  "TUPLE3": lambda m, _: m.tuple_of(3),
  "DICT": lambda m, _: m.dict_of(m.pop_marked()),
  "ADDITEMS": lambda m, _: m.pop_marked(),
  "APPEND": lambda m, _: m.extend([m.stack.pop()]),
  "APPENDS": lambda m, _: m.extend(m.pop_marked()),
  "SETITEM": lambda m, _: m.set_items([m.stack.pop(-2), m.stack.pop()]),
  "SETITEMS": lambda m, _: m.set_items(m.pop_marked()),
  "MEMOIZE": lambda m, _: m.memorise(len(m.memo)),
  "GLOBAL": lambda m, text: m.find(*text.split(" ", 1)),
  "STACK_GLOBAL": lambda m, _: m.find(m.stack.pop(-2), m.stack.pop()),
  "BUILD": lambda m, _: m.build(),
  "BINPERSID": lambda m, _: m.push(m.persistent(m.stack.pop())),
}
