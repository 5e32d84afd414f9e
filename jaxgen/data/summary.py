"""What a data set is, in a line that is shown when it is opened."""

import sys
from typing import TextIO

import numpy as np

from jaxgen.data.arrays import Arrays, Source
from jaxgen.data.clips import Clips
from jaxgen.errors import printable

SHOWN = 8  # classes that are named, of many
_shown = set()  # by this process


def introduce(source: Source, split: str, stream: TextIO | None = None) -> None:
  """Writes the summary of a data set, but of points, once in each process."""
  if len(source.shape) == 1:
    return
  line = f"jaxgen: {summary(source, split)}"
  if line not in _shown:
    _shown.add(line)
    print(line, file=sys.stderr if stream is None else stream, flush=True)


def summary(source: Source, split: str) -> str:
  """Examples, their shape, classes by name and count, and what was left out."""
  look = "x".join(map(str, source.shape))
  kind = "images" if len(source.shape) == 3 else "examples"
  if isinstance(source, Clips):
    kind, look = "clips", f"{source.shape[0] / source.rate:.3g} s at {source.rate:,} Hz"
  parts = [f"{source.name}, {split}: {len(source):,} {kind} of {look}", classes(source)]
  if source.skipped:
    parts.append(
      f"{len(source.skipped):,} left out that cannot be read, such as {source.skipped[0]}"
    )
  return printable("; ".join(parts + list(source.notes)))


def classes(source: Source) -> str:
  """The classes of a data set: "2 classes: cat (20), dog (30)"."""
  count = source.classes
  if not count:
    return "no classes"
  names = source.class_names or tuple(map(str, range(count)))
  head = f"{count:,} {'class' if count == 1 else 'classes'}"
  if not isinstance(source, Arrays):  # to count takes reading them all
    return f"{head}: {', '.join(names[:SHOWN])}" + ", .." * (count > SHOWN)
  counts = np.bincount(source.arrays()[1], minlength=count)
  shown = [f"{n} ({k:,})" for n, k in zip(names, counts, strict=True)]
  if count > SHOWN:
    head += f" of {counts.min():,} to {counts.max():,}"
    shown = [*shown[: SHOWN - 1], "..", shown[-1]]
  return f"{head}: {', '.join(shown)}"
