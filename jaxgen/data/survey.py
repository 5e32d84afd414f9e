"""What a data set holds, looked at before anything is trained on it.

How many images of which sizes, classes, what cannot be read, duplicates, the
resolution to work at and why, and what is held out to judge by.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen.data import holdout, pack, phash
from jaxgen.data.arrays import Source
from jaxgen.data.folder import heads, open_files
from jaxgen.data.sources import holds_arrays, open_source, open_split
from jaxgen.data.summary import classes as class_summary
from jaxgen.errors import UserError, printable

SIZES = (256, 128, 64, 32, 16, 8)  # to work at
REACH = 0.9  # share of images that must be as large as that
FEWEST = 16  # different images, without which nothing can be learned or held out
FEW = 200  # of which an answer says little
SHOWN = 3  # files that are named
# Their labels name the photograph that a patch is of, and no test patch has one.
UNLABELLED = ("photos",)


@dataclasses.dataclass(frozen=True)
class Survey:
  """What was seen of a data set.

  Attributes:
    data: config.data as it should be: source, split, size, channels, classes,
      holdout.
    reason: Why this size.
    count: Images that can be read, of the training split and what is held out
      of it.
    sizes: Smallest, median and largest (width, height), if files tell; or ().
    train, test: How many images to train on, and to judge by.
    own_test: Whether the data have a test split of their own.
    classes: Their names and counts, as text.
    skipped: "file: why" of what cannot be read.
    duplicates: Images that are equal to an earlier one.
    near_duplicates: Images that are nearly, but not quite, an earlier one.
    example: Files of a near or exact pair, or ().
    small: Images that are smaller than the size, and are enlarged.
  """

  data: dict[str, Any]
  reason: str
  count: int
  sizes: tuple[tuple[int, int], ...]
  train: int
  test: int
  own_test: bool
  classes: str
  skipped: tuple[str, ...]
  duplicates: int
  near_duplicates: int
  example: tuple[str, ...]
  small: int
  notes: tuple[str, ...]

  def lines(self) -> list[str]:
    """All that for people, a line each."""
    data = self.data
    kind = {1: "grey", 3: "RGB"}[data["channels"]]
    lines = [f"{data['source']}: {self.count:,} {kind} images, {self.classes}"]
    if self.sizes:
      least, median, largest = (f"{w}x{h}" for w, h in self.sizes)
      lines.append(f"sizes: {least} to {largest}, median {median}")
    lines.append(f"resolution {data['size']}: {self.reason}")
    if self.small:
      lines.append(f"{self.small:,} images are smaller than {data['size']} and are enlarged")
    if self.skipped:
      lines.append(f"{len(self.skipped):,} files cannot be read: {listed(self.skipped)}")
    return [printable(line) for line in (*lines, *last_lines(self, "images"))]

  def json(self) -> dict[str, Any]:
    """All that for programs."""
    return dataclasses.asdict(self)


def last_lines(seen: Any, noun: str) -> list[str]:
  """What surveys of images and of clips say alike: duplicates, splits, notes."""
  lines = []
  if seen.duplicates or seen.near_duplicates:
    pair = f", such as {' and '.join(seen.example)}" if seen.example else ""
    lines.append(
      f"{seen.duplicates:,} exact and {seen.near_duplicates:,} near duplicates of others{pair}"
    )
  where = "of a split of their own" if seen.own_test else "held out by content"
  lines.append(f"{seen.train:,} {noun} to train on, {seen.test:,} to judge by, {where}")
  if seen.train + seen.test < FEW:
    lines.append(
      f"so few {noun} carry little: intervals are wide, and copies likely; {FEW} are a beginning"
    )
  return [*lines, *seen.notes]


def survey(data: Mapping[str, Any], most: int = SIZES[0]) -> Survey:
  """Looks at all images of a data set; of large ones this takes minutes.

  Args:
    data: As config.data: source; size (0: by the data), channels (0: as
      stored), split, holdout. What is missing is as in configs/_base.py.
    most: Largest size to choose where `data` gives none: what the machine can
      train on.

  Raises:
    UserError: There is nothing to learn from, or the size cannot be chosen.
  """
  data = {"split": "train", "size": 0, "channels": 0, "holdout": 0.0} | dict(data)
  files, sizes = stored_sizes(data)
  if data["size"]:
    reason = "as asked for"
  else:
    data["size"], reason = resolution([min(size) for size in sizes], most)
  source = open_source(data["source"], data["split"], data["size"], channels=data["channels"])
  x, _ = source.arrays()
  data["channels"] = source.shape[-1]
  data["classes"] = 0 if data["source"] in UNLABELLED else source.classes
  f = phash.describe(x)
  pairs = phash.near_pairs(phash.hashes(x, f), f)
  check_enough(source, phash.groups(len(x), pairs))
  copies, pair = duplicates(x, pairs)
  near = len(x) - len(np.unique(phash.groups(len(x), pairs))) - copies
  names = [files[i] for i in pack.readable_rows(files, source.skipped)] if files else []
  train, test, own_test = splits(data)
  return Survey(
    data=data,
    reason=reason,
    count=len(source),
    sizes=extremes(sizes) if files else (),
    train=len(train),
    test=len(test),
    own_test=own_test,
    classes=class_summary(source) if data["classes"] else "no classes",
    skipped=source.skipped,
    duplicates=copies,
    near_duplicates=near,
    example=tuple(names[i] for i in pair) if names else (),
    small=sum(min(size) < data["size"] for size in sizes) if files else 0,
    notes=(*source.notes, *(n for n in train.notes if n not in source.notes)),
  )


def stored_sizes(data: Mapping[str, Any]) -> tuple[list[str], list[tuple[int, int]]]:
  """Names of image files, if there are any, and (width, height) of all images."""
  kind, _, path = data["source"].partition(":")
  if kind in ("folder", "zip") and not holds_arrays(kind, path):
    _, pictures, stored = open_files(path, data["split"])
    return pictures.names, [size for _, size in heads(stored)]
  source = open_source(data["source"], data["split"], data["size"] or None)
  if len(source.shape) != 3:
    raise UserError(f"{source.name} are points, no images: there is nothing to look at")
  height, width, _ = source.shape
  return [], [(width, height)]


def resolution(short_sides: Sequence[int], most: int) -> tuple[int, str]:
  """The size to work at, and why.

  Raises:
    UserError: Images are too small for any, or cannot be read.
  """
  if not short_sides:
    raise UserError("none of the image files can be read: are they images?")
  reach = sorted(short_sides, reverse=True)[math.ceil(REACH * len(short_sides)) - 1]
  size = next((s for s in SIZES if s <= reach), None)
  if size is None:
    raise UserError(
      f"the images' short sides are {reach} pixels: want {SIZES[-1]} or more, or give --size"
    )
  if size > most:
    return most, f"what this machine can train on; the images would do for {size} (--size={size})"
  share = np.mean(np.array(short_sides) >= size)
  return size, f"{100 * share:.3g}% of the images are at least that large"


def check_enough(source: Source, groups: np.ndarray, noun: str = "image") -> None:
  """UserError if too few examples differ to learn from them and to judge by them.

  `groups`: of near duplicates, the number of each example's; `noun`: what it is.
  """
  different = len(np.unique(groups))
  if different == 1 and len(source) > 1:
    raise UserError(f"all {len(source):,} {noun}s of {source.name} look alike: there is no choice")
  if different < FEWEST:
    raise UserError(
      f"{source.name} has {different} different {noun}{'s' * (different != 1)}: want {FEWEST} or "
      "more, as some are held out to judge by"
    )


def duplicates(x: np.ndarray, pairs: np.ndarray) -> tuple[int, tuple[int, ...]]:
  """How many examples are equal to an earlier one, and a pair to look at, or ()."""
  flat = x.reshape(len(x), -1)
  equal = np.array([np.array_equal(flat[i], flat[j]) for i, j in pairs], bool)
  copies = len(np.unique(pairs[equal, 1]))
  shown = pairs[~equal] if (~equal).any() else pairs
  return copies, tuple(int(i) for i in shown[0]) if len(shown) else ()


def splits(data: Mapping[str, Any]) -> tuple[Source, Source, bool]:
  """What is trained on and judged by, and whether the latter is a split of its own."""
  train, test = open_split(data, "train"), open_split(data, "test")
  return train, test, not isinstance(test, holdout.Rows)


def extremes(sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
  """Smallest, median and largest (width, height), by area."""
  order = sorted(sizes, key=lambda size: (size[0] * size[1], size))
  return order[0], order[len(order) // 2], order[-1]


def listed(items: Sequence[str]) -> str:
  """The first few of many."""
  return "; ".join(items[:SHOWN]) + "; .." * (len(items) > SHOWN)
