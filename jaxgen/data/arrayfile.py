"""Arrays in .npz and .npy files, by their headers: nothing in them is trusted.

A header is a stranger's text: it is matched, never evaluated, and what it
promises is compared with the length of the file before memory is asked for.
Pickled objects are refused.
"""

import contextlib
import dataclasses
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from jaxgen.errors import UserError

MAGIC = b"\x93NUMPY"
LONGEST = 1 << 16  # bytes of a header
PART = 1 << 26  # bytes that are read at a time
INFLATION = 1032  # of deflated data, at the most
ONLY = "arr_0"  # the name of the array of an .npy
BROKEN = (
  OSError, ValueError, LookupError, EOFError, OverflowError, MemoryError,
  NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# What matters of a header: (key, pattern of its value).
FIELDS = (
  ("shape", r"\(([\d\s,L]*)\)"),
  ("descr", r"""['"]([<>|=]?[?biufcSUVOMm]\d{0,9})['"]"""),
  ("fortran_order", "(True|False)"),
)
PICKLED = (
  "holds pickled Python objects, which could run any program: save plain arrays with np.savez"
)


@contextlib.contextmanager
def reading(path: Path, kind: str = "an .npz or .npy file") -> Iterator[None]:
  """Within, what a broken file does to its reader becomes a UserError."""
  try:
    yield
  except FileNotFoundError as e:
    raise UserError(f"there is no file {path}") from e
  except BROKEN as e:
    why = e.strerror if isinstance(e, OSError) else None
    why = (why or str(e) or type(e).__name__).splitlines()[0]
    raise UserError(f"{path} cannot be read as {kind}: {why}") from e


@dataclasses.dataclass(frozen=True)
class Stored:
  """An array as it lies in a file.

  Attributes:
    path: The file.
    name: The array.
    shape: Its shape; the file is long enough for it.
    dtype: Numbers or text, never objects.
    fortran: Whether the first axis is the fastest.
    begin: Bytes before its values, in its member or file.
  """

  path: Path
  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  fortran: bool
  begin: int

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize

  def rows(self, start: int, stop: int, most: int = PART) -> Iterator[np.ndarray]:
    """Rows `start` to `stop`, as many at a time as fit into `most` bytes.

    Raises:
      UserError: the file is damaged.
    """
    row = self.nbytes // self.shape[0]
    each = max(1, most // row)
    with reading(self.path), opened(self.path, self.name) as (file, _):
      file.seek(self.begin + start * row)
      for i in range(start, stop, each):
        n = min(each, stop - i)
        data = file.read(n * row)
        if len(data) < n * row:
          raise EOFError(f"{self.name} ends after row {i + len(data) // row}")
        yield np.frombuffer(data, self.dtype).reshape(n, *self.shape[1:])

  def whole(self) -> np.ndarray:
    """The array.

    Raises:
      UserError: the file is damaged, or this machine's memory is smaller.
    """
    if self.nbytes > memory():
      raise UserError(
        f"{self.name} of {self.path} takes {self.nbytes / 1e9:,.0f} GB of"
        " memory, more than there is"
      )
    flat = np.empty(math.prod(self.shape), self.dtype)
    if flat.nbytes:
      values = flat.view(np.uint8)
      with reading(self.path), opened(self.path, self.name) as (file, _):
        file.seek(self.begin)
        for i in range(0, flat.nbytes, PART):
          data = file.read(min(PART, flat.nbytes - i))
          values[i : i + len(data)] = np.frombuffer(data, np.uint8)
          if len(data) < min(PART, flat.nbytes - i):
            raise EOFError(f"{self.name} ends too early")
    return flat.reshape(self.shape, order="F" if self.fortran else "C")


def names(path: Path) -> list[str]:
  """Names of a file's arrays; UserError if it is no such file."""
  with reading(path):
    check_file(path)
    with open(path, "rb") as file:
      head = file.read(8)
    if head.startswith(MAGIC):
      return [ONLY]
    if head.startswith(b"\x80"):
      raise UserError(f"{path} {PICKLED}")
    if not head.startswith(b"PK"):
      raise ValueError("it begins like neither")
    with zipfile.ZipFile(path) as archive:
      return [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]


def stored(path: Path, name: str) -> Stored:
  """One array of a file, by its header.

  Raises:
    UserError: it is none, of objects, or longer than the file.
  """
  with reading(path), opened(path, name) as (file, size):
    shape, dtype, fortran, begin = header(file, name)
    if dtype.hasobject:
      raise UserError(f"{name} of {path} {PICKLED}")
    promised = math.prod(shape) * dtype.itemsize
    if promised > size - begin:
      raise EOFError(
        f"{name} is to be {dtype} {list(shape)}, {promised:,} bytes, and there are {size - begin:,}"
      )
    return Stored(path, name, shape, dtype, fortran, begin)


@contextlib.contextmanager
def opened(path: Path, name: str) -> Iterator[tuple[IO[bytes], int]]:
  """An array's bytes, header and all, and how many there may be at most."""
  check_file(path)
  size = os.path.getsize(path)
  with open(path, "rb") as file:
    if file.read(len(MAGIC)) == MAGIC:
      file.seek(0)
      yield file, size
      return
  with zipfile.ZipFile(path) as archive:
    entry = archive.getinfo(f"{name}.npy")
    check_entry(entry, size)
    with archive.open(entry) as member:
      yield member, entry.file_size


def check_file(path: Path) -> None:
  """OSError unless it is a file: reading pipes and devices may never end."""
  if not path.exists():
    raise FileNotFoundError
  if not path.is_file():
    raise ValueError("it is no file")


def check_entry(entry: zipfile.ZipInfo, size: int) -> None:
  """ValueError if an entry of a .zip of `size` bytes cannot be what it says."""
  if entry.flag_bits & 1:
    raise ValueError(f"{entry.filename} is encrypted")
  kinds = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: INFLATION}
  if entry.compress_type not in kinds:
    raise ValueError(f"{entry.filename} is compressed in an unknown way")
  most = min(entry.compress_size, size) * kinds[entry.compress_type]
  if entry.file_size > most:
    raise ValueError(
      f"{entry.filename} is to be {entry.file_size:,} bytes long, and there"
      f" are {entry.compress_size:,}"
    )


def header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype, bool, int]:
  """Shape, dtype, Fortran's order and length of a header in .npy format.

  Raises:
    ValueError: it is none, or of something else than numbers and text.
  """
  start = file.read(8)
  if start[:6] != MAGIC or len(start) < 8:
    raise ValueError(f"{name} is no array")
  if start[6] not in (1, 2, 3):
    raise ValueError(f"{name} has .npy format {start[6]}, which is unknown")
  width = 2 if start[6] == 1 else 4
  length = int.from_bytes(file.read(width), "little")
  text = file.read(min(length, LONGEST)).decode("latin-1")
  if len(text) < length:
    raise ValueError(f"the header of {name} is damaged")
  shape, kind, order = (
    re.search(rf"""['"]{key}['"]\s*:\s*{value}""", text) for key, value in FIELDS
  )
  if not shape or not order or not kind and "descr" not in text:
    raise ValueError(f"the header of {name} is damaged")
  try:
    dtype = np.dtype(kind[1] if kind else "V")
  except (TypeError, ValueError, OverflowError) as e:
    raise ValueError(f"{name} is of {kind[1]!r}, which is unknown") from e
  sides = [s.strip().rstrip("L") for s in shape[1].split(",") if s.strip()]
  if any(not re.fullmatch(r"\d{1,19}", s) for s in sides) or len(sides) > 32:
    raise ValueError(f"the header of {name} is damaged")
  if not kind or dtype.kind not in "?biufcSUO":
    raise ValueError(f"{name} holds records, not numbers")
  return tuple(map(int, sides)), dtype, order[1] == "True", 8 + width + length


def memory() -> int:
  """Bytes of this machine's memory, as far as it says so."""
  try:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  except (AttributeError, OSError, ValueError):
    return 1 << 62
