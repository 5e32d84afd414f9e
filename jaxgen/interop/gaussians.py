"""EDM2's pickles of statistics: means and covariances, and nothing run.

{"num_images": 50000, "fid": {"mu": [D], "sigma": [D, D]}, "fd_dinov2": ..}
"""

import math
import pathlib
from typing import Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop import pickles
from jaxgen.interop.pickles import Nothing, Stub, Unreadable, is_count

FLOATS, WHOLE = ("f4", "f8"), ("i4", "i8", "u4", "u8")


class Stream(pickles.Bounded):
  """A stream whose arrays lie within the pickle."""

  longest = 1 << 28


class Dtype(pickles.Buildable):
  """In the place of a numpy.dtype: of plain numbers alone."""

  state = tuple

  def __init__(self, kind: str, *flags: Any):
    if type(kind) is not str or kind not in FLOATS + WHOLE:
      raise TypeError("an array of no floats")
    self.kind, self.order = kind, "="

  def build(self, state: tuple) -> None:
    """(version, byte order, ...)."""
    if state[1] not in ("<", ">", "=", "|"):
      raise ValueError("an unknown byte order")
    self.order = state[1]

  @property
  def dtype(self) -> np.dtype:
    return np.dtype(self.order.replace("|", "=") + self.kind)


class Array(pickles.Buildable):
  """In the place of a numpy.ndarray."""

  state = tuple

  def __init__(self, *flags: Any):
    self.values = None

  def build(self, state: tuple) -> None:
    """(version, shape, dtype, whether in Fortran's order, bytes)."""
    _, shape, dtype, fortran, data = state
    self.fill(data, dtype, shape, "F" if fortran else "C")

  def fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> "Array":
    """Takes its values, if they are as many as its shape says."""
    if not (
      isinstance(shape, tuple)
      and len(shape) <= 2
      and all(is_count(n, 2**31) for n in shape)
      and is_of(dtype, FLOATS)
      and order in ("C", "F")
      and isinstance(data, bytes | bytearray)
    ):
      raise TypeError("an array that is none")
    if len(data) != math.prod(shape) * dtype.dtype.itemsize:
      raise ValueError("an array of another length")
    self.values = np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
    return self


def is_of(dtype: Any, kinds: tuple[str, ...]) -> bool:
  """Whether it is a dtype of one of these kinds."""
  return isinstance(dtype, Dtype) and dtype.kind in kinds


def scalar(dtype: Any, data: Any) -> Any:
  """A whole number of numpy's; others are of no interest."""
  if is_of(dtype, WHOLE) and isinstance(data, bytes) and len(data) == dtype.dtype.itemsize:
    return int(np.frombuffer(data, dtype.dtype)[0])
  return Nothing()


NAMES = {"numpy.ndarray": Stub("ndarray", None), "numpy.dtype": Stub("dtype", Dtype)}
for core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
  NAMES |= {
    f"{core}.multiarray._reconstruct": Stub("_reconstruct", Array),
    f"{core}.multiarray.scalar": Stub("scalar", scalar),
    f"{core}.numeric._frombuffer": Stub("_frombuffer", lambda *args: Array().fill(*args)),
  }


def outside(_: Any) -> Any:
  """Refuses persistent ids: there is nothing outside of the pickle."""
  raise Unreadable("refers to something outside of it")


def read(path: pathlib.Path) -> tuple[dict[str, dict[str, np.ndarray]], int]:
  """Statistics by name ("fid", "fd_dinov2"), and of how many images (0: ?).

  Raises:
    UserError: it is no such pickle, or wants code to be run.
  """
  try:
    with path.open("rb") as f:
      root = pickles.interpret(f, NAMES, outside, Stream)
  except Unreadable as e:
    raise UserError(f"{path} {e}") from e
  root = root if isinstance(root, dict) else {}
  statistics = {}
  for name, value in root.items():
    pair = {k: value.get(k) for k in ("mu", "sigma")} if isinstance(value, dict) else {}
    if pair and all(isinstance(v, Array) and v.values is not None for v in pair.values()):
      statistics[str(name)] = {k: v.values for k, v in pair.items()}
  if not statistics:
    raise UserError(
      f"{path} holds no statistics, such as EDM2's: "
      '{"num_images": 50000, "fid": {"mu": .., "sigma": ..}}'
    )
  count = root.get("num_images")
  return statistics, count if is_count(count) else 0
