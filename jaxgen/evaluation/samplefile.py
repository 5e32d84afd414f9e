"""Sample files: x.npz of arr_0 uint8 [N, H, W, 3] and arr_1 labels, x.npy.

ADM's format, and DiT's. A file of 50,000 images of 256 pixels holds 10 GB: it
is read out of the archive as it is needed.
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen import files
from jaxgen.data import arrayfile
from jaxgen.data.arrayfile import Stored
from jaxgen.data.npz import class_names
from jaxgen.errors import UserError
from jaxgen.evaluation.images import SPANS, first, quantise, three
from jaxgen.interop import tensor_files


@dataclasses.dataclass(eq=False)
class SampleFile:
  """The images of one file.

  Floats need `span`, one of images.SPANS, and are made bytes by `rule`, see
  `images.quantise`.
  """

  stored: Stored
  labels: np.ndarray | None
  count: int
  rule: str
  span: str | None
  warnings: list[str] = dataclasses.field(default_factory=list)
  class_names: tuple[str, ...] = ()

  @classmethod
  def open(
    cls,
    path: str,
    rule: str,
    span: str | None = None,
    convert: bool = False,
    num: int | None = None,
  ) -> "SampleFile":
    """Reads headers and labels; and floats once, for what they may mean.

    Raises:
      UserError: it is no such file, or one of pickles, floats of another
        range, grey or transparent images, or channels in front.
    """
    path = files.local(path)
    names = arrayfile.names(path)
    if "arr_0" not in names:
      raise UserError(
        f"{path} is no sample file: it has no arr_0, but {', '.join(names[:8]) or 'nothing'}"
      )
    stored = arrayfile.stored(path, "arr_0")
    check_shape(stored, convert)
    labels = read_labels(path, stored.shape[0]) if "arr_1" in names else None
    count, is_bytes = first(path, stored.shape[0], num), stored.dtype == np.uint8
    self = cls(stored, labels, count, rule, None if is_bytes else span)
    if labels is not None:
      self.labels, self.class_names = labels[:count], class_names(path, names)
    if not is_bytes:
      self.warnings += doubts_of_range(stored, span, self._range())
    return self

  @property
  def sizes(self) -> list[tuple[int, int]]:
    return [self.stored.shape[1:3]]

  @functools.cached_property
  def card(self) -> dict[str, Any]:
    """Identified by the sha256 of the file."""
    path, floats = self.stored.path, {"floats": self.span} if self.span else {}
    sha256 = tensor_files.sha256(path)
    return {"kind": "file", "name": path.name, "sha256": sha256, "images": self.count} | floats

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    for x in self.stored.rows(start, stop):
      if x.dtype != np.uint8:
        x = quantise(x, self.rule, self.span)
      yield three(x[..., :3])

  def _range(self) -> "Range":
    """Of all floats that are going to be looked at."""
    values = Range()
    for x in self.stored.rows(0, self.count):
      if not np.isfinite(x).all():
        raise UserError(f"arr_0 of {self.stored.path} holds NaN or infinity")
      values.add(np.asarray(x[..., :3], np.float32))
    return values


class Range:
  """Least and greatest of values, and how many lie outside of each span."""

  def __init__(self):
    self.least, self.most, self.n = np.inf, -np.inf, 0
    self.outside = dict.fromkeys(SPANS, 0)

  def add(self, x: np.ndarray) -> None:
    self.least = min(self.least, float(x.min()))
    self.most = max(self.most, float(x.max()))
    self.n += x.size
    for span, (low, high) in SPANS.items():
      slack = (high - low) / 100  # of rounding and resizing
      self.outside[span] += int(np.count_nonzero((x < low - slack) | (x > high + slack)))

  def share(self, span: str) -> float:
    """Of values outside of a span, in [0, 1]."""
    return self.outside[span] / self.n

  @property
  def likely(self) -> str:
    """The span that they seem to have."""
    return "bytes" if self.most > 2 else "signed" if self.share("unit") > 0.01 else "unit"

  def fits(self, span: str) -> bool:
    """Whether values may be meant so: a few beyond the ends are clipped."""
    low, high = SPANS[span]
    far = (high - low) / 2
    return (
      self.share(span) <= 0.05
      and low - far <= self.least
      and self.most <= high + far
      and (span == "bytes") == (self.most > 2)
    )


def doubts_of_range(stored: Stored, span: str | None, values: Range) -> list[str]:
  """Warnings of what floats are unlikely to mean.

  Raises:
    UserError: nobody said what they mean, or they cannot mean that.
  """
  what, likely = f"{stored.name} of {stored.path}", values.likely
  if span is None:
    raise UserError(
      f"{what} is {stored.dtype}, not uint8: it looks like {interval(likely)}; say "
      f"--floats={likely}, or save bytes"
    )
  goes = f"{what} goes from {values.least:.3g} to {values.most:.3g}"
  if not values.fits(span):
    other = f"; it looks like --floats={likely}" if likely != span else ""
    raise UserError(f"{goes}, which is not {interval(span)}: --floats={span} cannot be{other}")
  warnings, (low, high) = [], SPANS[span]
  if share := values.share(span):
    warnings.append(f"{goes}: {100 * share:.2g}% of it is beyond {interval(span)}, and was clipped")
  if span == "signed" and values.least >= -0.01:
    warnings.append(
      f"{goes}, with nothing below 0: --floats=signed is unlikely, it looks like --floats=unit"
    )
  elif values.most - values.least < 0.6 * (high - low):
    warnings.append(f"{goes}, a small part of {interval(span)}: is --floats={span} right?")
  return warnings


def interval(span: str) -> str:
  """What a span goes from and to, as text."""
  low, high = SPANS[span]
  return f"{low} .. {high}" if span == "bytes" else f"[{low}, {high}]"


def read_labels(path: Path, count: int) -> np.ndarray:
  """arr_1 of a sample file of so many images, [N]."""
  stored = arrayfile.stored(path, "arr_1")
  if stored.shape != (count,) or stored.dtype.kind not in "iu":
    raise UserError(
      f"arr_1 of {path} is {stored.dtype} {list(stored.shape)}; "
      f"wanted are labels of its {count} images"
    )
  return stored.whole()


def check_shape(stored: Stored, convert: bool) -> None:
  """UserError unless these are images, channels last, red, green and blue."""
  shape, dtype = stored.shape, stored.dtype
  what = f"{stored.name} of {stored.path} is {dtype} {list(shape)}"
  if stored.fortran:
    raise UserError(
      f"{stored.name} of {stored.path} is in Fortran's order: save np.ascontiguousarray of it"
    )
  if dtype.kind not in "uf" or dtype.kind == "u" and dtype != np.uint8:
    raise UserError(f"{what}; wanted are bytes, uint8 [N, H, W, 3]")
  if len(shape) != 4 or not all(shape):
    raise UserError(f"{what}; wanted are images, uint8 [N, H, W, 3]")
  if shape[-1] not in (1, 3, 4):
    front = shape[1] in (1, 3, 4)
    raise UserError(
      f"{what}: "
      + (
        "channels come first; save x.transpose(0, 2, 3, 1)"
        if front
        else "wanted are 3 channels, last"
      )
    )
  if shape[-1] != 3 and not convert:
    kind = "grey" if shape[-1] == 1 else "transparent"
    raise UserError(
      f"{what}, which is {kind}, not RGB; --convert does what "
      "reference evaluators do: repeats grey, drops alpha"
    )
