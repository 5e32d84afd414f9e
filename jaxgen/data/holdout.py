"""A test split for data that have none: images held out by what they show.

Clips are held out by how the mel spectrograms of their middles look. On which
side an image lies follows from its perceptual hash alone. So equal images are
on one side under any name, and more images move none of the old ones across.
Where a near duplicate of an image to be held out lies on the other side, that
image is left out of both. A part of the examples is a view of rows, too: see
`some`.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data import cache, phash
from jaxgen.data.arrays import Cut, Example, Source
from jaxgen.data.clips import Clips
from jaxgen.data.sound_hash import near_duplicates
from jaxgen.errors import UserError

TRAIN, TEST, NEITHER = 0, 1, 2  # sides
VERSION = 1  # of how sides are chosen


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rows:
  """The source that holds some rows of another."""

  base: Source
  rows: np.ndarray  # int64 [N], ascending
  notes: tuple[str, ...] = ()
  part: str = ""  # the name of these rows, where they have one

  @property
  def name(self) -> str:
    return self.part or self.base.name

  @property
  def classes(self) -> int:
    return self.base.classes

  @property
  def shape(self) -> tuple[int, ...]:
    return self.base.shape

  @property
  def dtype(self) -> np.dtype:
    return self.base.dtype

  @property
  def class_names(self) -> tuple[str, ...]:
    return self.base.class_names

  @property
  def skipped(self) -> tuple[str, ...]:
    return self.base.skipped

  @property
  def in_memory(self) -> bool:
    return self.base.in_memory

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hex digits of the examples and their order."""
    h = hashlib.blake2b(self.base.fingerprint.encode(), digest_size=8)
    h.update(self.rows.astype(np.int64).tobytes())
    return h.hexdigest()

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, i: int) -> Example:
    return self.base[self.rows[i]]

  def read(self, indices: np.ndarray, cut: Cut | None = None) -> Example:
    return self.base.read(self.rows[indices], cut)

  def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
    x, y = self.base.arrays()
    return x[self.rows], None if y is None else y[self.rows]


def open_side(opener: Callable[[str], Source], split: str, share: float, root: Path) -> Source:
  """A split of data of which `share` is held out, if they have no test split.

  Args:
    opener: Split -> source.
    split: "train", "test", or another that the data have.
    share: In (0, 1).
    root: Folder where sides are kept, for they take reading all images.

  Raises:
    UserError: A side would hold nothing.
  """
  if split not in ("train", "test"):
    return opener(split)
  try:
    test = opener("test")
  except UserError:
    pass
  else:
    return test if split == "test" else opener("train")
  source = opener("train")
  if len(source.shape) != 3 and not isinstance(source, Clips):
    return opener(split)  # that says what there is
  side, noun = sides(source, share, root), "clips" if isinstance(source, Clips) else "images"
  rows = np.flatnonzero(side == (TEST if split == "test" else TRAIN))
  if not len(rows):
    raise UserError(
      f"{source.name} has {len(source):,} {noun}, and with config.data.holdout={share} "
      f"none of them is for {split}: take more {noun}, or another share"
    )
  notes = ()
  if dropped := np.count_nonzero(side == NEITHER):
    notes = (f"{dropped:,} held-out {noun} left out that are near duplicates of training {noun}",)
  return view(source, rows, notes)


def view(source: Source, rows: np.ndarray, notes: tuple[str, ...] = ()) -> Rows | Clips:
  """Some rows of a source, ascending, with more notes."""
  if isinstance(source, Clips):
    return source.take(rows, notes)
  return Rows(source, rows, (*source.notes, *notes))


def some(source: Source, fraction: float) -> Rows | Clips:
  """A fraction of the examples, drawn by chance but always the same.

  Those of a smaller fraction are among those of a larger one.

  Raises:
    UserError: That would be none.
  """
  n = round(fraction * len(source))
  if not n:
    raise UserError(
      f"{source.name} has {len(source):,} examples, and config.data.fraction={fraction} of them "
      "are none: take a larger one"
    )
  order = np.random.default_rng(0).permutation(len(source))
  return view(source, np.sort(order[:n]))


def sides(source: Source, share: float, root: Path) -> np.ndarray:
  """TRAIN, TEST or NEITHER for each example, uint8 [N]; computed once."""
  target = root / "holdout" / f"{source.fingerprint}-{share:g}-v{VERSION}"
  if not target.exists():
    make = lambda tmp: (tmp / target.name).write_bytes(_sides(source, share).tobytes())
    cache.once(target, make)
  return np.fromfile(target, np.uint8)


def _sides(source: Source, share: float) -> np.ndarray:
  x, _ = source.arrays()
  if isinstance(source, Clips):
    h, pairs = near_duplicates(x, source.rate)
  else:
    f = phash.describe(x)
    h = phash.hashes(x, f)
    pairs = phash.near_pairs(h, f)
  unique, where = np.unique(h, return_inverse=True)
  side = np.where(np.array([draw(value) for value in unique]) < share, TEST, TRAIN)[where]
  i, j = pairs.T
  i, j = np.concatenate([i, j]), np.concatenate([j, i])
  side[i[(side[i] == TEST) & (side[j] == TRAIN)]] = NEITHER
  return side.astype(np.uint8)


def draw(value: Any) -> float:
  """A number in [0, 1), uniform over hashes, the same for the same hash."""
  digest = hashlib.blake2b(int(value).to_bytes(8), digest_size=8, person=b"holdout").digest()
  return int.from_bytes(digest) / 2**64
