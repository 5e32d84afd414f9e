"""What a data set is, in a line that is shown when it is opened."""

import sys
from typing import TextIO

import numpy as np

from jaxgen.data.arrays import Arrays, Source
from jaxgen.errors import printable

SHOWN = 8  # classes that are named, of many
_said = set()  # by this process


def introduce(source: Source, split: str, stream: TextIO | None = None) -> None:
  """Writes the summary of a data set of images, once in each process."""
  if len(source.shape) == 1:
    return  # of points all is known
  line = f"jaxgen: {summary(source, split)}"
  if line not in _said:
    _said.add(line)
    print(line, file=sys.stderr if stream is None else stream, flush=True)


def summary(source: Source, split: str) -> str:
  """Images, their size, classes by name and count, and what was left out."""
  shape = "x".join(map(str, source.shape))
  parts = [f"{source.name}, {split}: {len(source):,} images of {shape}"]
  parts += [classes(source)]
  if source.skipped:
    parts.append(
      f"{len(source.skipped):,} left out that cannot be read, such as {source.skipped[0]}"
    )
  return printable("; ".join(parts + list(source.notes)))


def classes(source: Source) -> str:
  """Of a data set: "2 classes: cat (20), dog (30)"."""
  count = source.classes
  if not count:
    return "no classes"
  names = source.class_names or tuple(map(str, range(count)))
  head = f"{count:,} {'class' if count == 1 else 'classes'}"
  if not isinstance(source, Arrays):  # to count takes reading them all
    return f"{head}: {', '.join(names[:SHOWN])}" + ", .." * (count > SHOWN)
  many = np.bincount(source.arrays()[1], minlength=count)
  shown = [f"{n} ({k:,})" for n, k in zip(names, many, strict=True)]
  if count > SHOWN:
    head += f" of {many.min():,} to {many.max():,}"
    shown = [*shown[: SHOWN - 1], "..", shown[-1]]
  return f"{head}: {', '.join(shown)}"
