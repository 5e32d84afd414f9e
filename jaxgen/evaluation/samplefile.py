"""Sample files, x.npz: arr_0 uint8 [N, H, W, 3], arr_1 labels; streamed.

ADM's format, and DiT's. A file of 50,000 images of 256 pixels holds 10 GB: it
is read out of the archive as it is needed.
"""
import contextlib
import dataclasses
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.evaluation.images import first, quantise, three
from jaxgen.interop import files

SPANS = ("signed", "unit", "bytes")
BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile,
          zlib.error, NotImplementedError)


@contextlib.contextmanager
def refuse(path: Path) -> Iterator[None]:
  """Within, what broken archives do becomes a line."""
  try:
    yield
  except FileNotFoundError as e:
    raise UserError(f"there is no file {path}") from e
  except BROKEN as e:
    why = str(e).splitlines()[0] if str(e) else type(e).__name__
    if "allow_pickle" in why or "Object arrays" in why:
      raise UserError(f"{path} holds pickled Python objects, which could run "
                      "any program: save plain arrays with np.savez") from e
    raise UserError(f"{path} cannot be read as an .npz file: {why}") from e


def header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Of an array in .npy format: shape, whether in Fortran's order, dtype."""
  version = np.lib.format.read_magic(file)
  read = {(1, 0): np.lib.format.read_array_header_1_0,
          (2, 0): np.lib.format.read_array_header_2_0}.get(version)
  if not read:
    raise ValueError(f"unknown .npy format {version}")
  shape, fortran, dtype = read(file)
  if dtype.hasobject:
    raise ValueError("Object arrays")
  return shape, fortran, dtype


@dataclasses.dataclass(eq=False)
class SampleFile:
  """The images of one file.

  Floats need `span`, one of SPANS, and are made bytes by `rule`, see
  `images.quantise`.
  """
  path: Path
  shape: tuple[int, ...]
  dtype: np.dtype
  labels: np.ndarray | None
  count: int
  rule: str
  span: str | None
  warnings: list[str] = dataclasses.field(default_factory=list)
  _hash: str = ""

  @classmethod
  def open(cls, path: str, rule: str, span: str | None = None,
           convert: bool = False, num: int | None = None) -> "SampleFile":
    """Reads the header and the labels alone.

    Raises:
      UserError: it is no such file, or one of pickles, floats of unknown
        range, grey or transparent images, or channels in front.
    """
    path = Path(path).expanduser()
    with refuse(path), zipfile.ZipFile(path) as archive:
      if "arr_0.npy" not in archive.namelist():
        names = ", ".join(n.removesuffix(".npy") for n in archive.namelist())
        raise UserError(f"{path} is no sample file: it has no arr_0, but "
                        f"{names or 'nothing'}")
      with archive.open("arr_0.npy") as file:
        shape, fortran, dtype = header(file)
      labels = None
      if "arr_1.npy" in archive.namelist():
        with archive.open("arr_1.npy") as file:
          labels = np.lib.format.read_array(file, allow_pickle=False)
    if fortran:
      raise UserError(f"arr_0 of {path} is in Fortran's order: save "
                      "np.ascontiguousarray of it")
    check_shape(path, shape, dtype, convert)
    if labels is not None and (
        labels.shape != shape[:1] or labels.dtype.kind not in "iu"):
      raise UserError(
          f"arr_1 of {path} is {labels.dtype} {list(labels.shape)}; wanted are "
          f"labels of its {shape[0]} images")
    count = first(path, shape[0], num)
    self = cls(path, shape, dtype, None if labels is None else labels[:count],
               count, rule, None if dtype == np.uint8 else span)
    if dtype != np.uint8:
      self._check_span(next(self._raw(0, min(count, 64))))
    return self

  @property
  def card(self) -> dict[str, Any]:
    """Identified by the sha256 of the file."""
    self._hash = self._hash or files.sha256(self.path)
    return {"kind": "file", "name": self.path.name, "sha256": self._hash,
            "images": self.count} | ({"floats": self.span} if self.span else {})

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    """See Images."""
    for x in self._raw(start, stop):
      if self.dtype != np.uint8:
        if not np.isfinite(x).all():
          raise UserError(f"arr_0 of {self.path} holds NaN or infinity among "
                          f"images {start} to {stop}")
        x = quantise(x, self.rule, self.span)
      yield three(x[..., :3])

  def _raw(self, start, stop, most=1 << 26) -> Iterator[np.ndarray]:
    """Rows as they are stored, at most so many bytes at a time."""
    row = int(np.prod(self.shape[1:])) * self.dtype.itemsize
    each = max(1, most // row)
    with refuse(self.path), zipfile.ZipFile(self.path) as archive, \
        archive.open("arr_0.npy") as file:
      header(file)
      file.seek(file.tell() + start * row)
      for i in range(start, stop, each):
        n = min(each, stop - i)
        data = file.read(n * row)
        if len(data) < n * row:
          raise EOFError(f"it ends after image {i + len(data) // row}")
        yield np.frombuffer(data, self.dtype).reshape(n, *self.shape[1:])

  def _check_span(self, x: np.ndarray) -> None:
    """UserError unless it was said what floats mean, and may be so."""
    lo, hi = float(np.min(x)), float(np.max(x))
    if not np.isfinite([lo, hi]).all():
      raise UserError(f"arr_0 of {self.path} holds NaN or infinity")
    looks = ("bytes" if hi > 2 else "signed" if lo < 0 else "unit")
    means = {"signed": "[-1, 1]", "unit": "[0, 1]", "bytes": "0 .. 255"}
    if self.span is None:
      raise UserError(
          f"arr_0 of {self.path} is {self.dtype}, not uint8: it looks like "
          f"{means[looks]}; say --floats={looks}, or save bytes")
    if (looks == "bytes") != (self.span == "bytes"):
      raise UserError(
          f"arr_0 of {self.path} goes from {lo:.3g} to {hi:.3g}, which is not "
          f"{means[self.span]}: --floats={self.span} cannot be")


def check_shape(path: Path, shape: tuple[int, ...], dtype: np.dtype,
                convert: bool) -> None:
  """UserError unless these are images, channels last, red, green and blue."""
  what = f"arr_0 of {path} is {dtype} {list(shape)}"
  if dtype.kind not in "uf" or dtype.kind == "u" and dtype != np.uint8:
    raise UserError(f"{what}; wanted are bytes, uint8 [N, H, W, 3]")
  if len(shape) != 4 or not all(shape):
    raise UserError(f"{what}; wanted are images, uint8 [N, H, W, 3]")
  if shape[-1] not in (1, 3, 4):
    front = shape[1] in (1, 3, 4)
    raise UserError(f"{what}: " + (
        "channels come first; save x.transpose(0, 2, 3, 1)" if front else
        "wanted are 3 channels, last"))
  if shape[-1] != 3 and not convert:
    kind = "grey" if shape[-1] == 1 else "transparent"
    raise UserError(f"{what}, which is {kind}, not RGB; --convert does what "
                    "reference evaluators do: repeats grey, drops alpha")
