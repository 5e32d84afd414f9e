"""Images of two kinds without pairs: "source" of kind A beside x of kind B.

  unpaired:A,B  each a folder, a .zip, or a built-in data set, perhaps altered:
                unpaired:digits,digits-inverted
  unpaired:PATH a folder with trainA, trainB, testA and testB, as they are published

What is altered is a data set by itself, with labels: "digits-slanted".
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxgen.data.arrays import Arrays, Cut, Example, Source
from jaxgen.data.holdout import Rows
from jaxgen.errors import UserError, nearest

SHEAR = 0.45  # pixels that a row of a slanted image moves against the next
Opener = Callable[[str], Source]  # of a built-in data set's or a folder's name


def invert(x: np.ndarray) -> np.ndarray:
  """Black for white, uint8 [N, H, W, C]."""
  return 255 - x


def slant(x: np.ndarray) -> np.ndarray:
  """Rows moved to the right, the more the higher; what leaves is lost, uint8 [N, H, W, C].

  Between pixels linearly, and zeros come in.
  """
  _, height, width, _ = x.shape
  padded = np.pad(x.astype(np.float32), ((0, 0), (0, 0), (width, width + 1), (0, 0)))
  rows = []
  for i in range(height):
    place = np.arange(width) + width - SHEAR * ((height - 1) / 2 - i)
    low = np.floor(place).astype(int)
    part = (place - low)[:, None]
    rows.append((1 - part) * padded[:, i, low] + part * padded[:, i, low + 1])
  return np.floor(np.stack(rows, 1) + 0.5).astype(np.uint8)


def mirror(x: np.ndarray) -> np.ndarray:
  """Left for right, uint8 [N, H, W, C]."""
  return np.ascontiguousarray(x[:, :, ::-1])


ALTERATIONS = {"inverted": invert, "slanted": slant, "mirrored": mirror}


def alter(source: Source, how: str) -> Arrays:
  """The images of a source that lies in memory, altered by one of ALTERATIONS."""
  if how not in ALTERATIONS:
    raise UserError(f"{source.name}-{how}: there is no {how!r}" + nearest(how, ALTERATIONS))
  x, y = source.arrays()
  name = f"{source.name}-{how}"
  return Arrays(name, ALTERATIONS[how](x), y, source.classes, class_names=source.class_names)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Unpaired:
  """The source of examples {"x", "source"}, uint8 [S, S, C] each, without labels.

  There are as many as the larger kind has images. Who meets whom is drawn once and
  for all; of the smaller kind, images come again.

  Attributes:
    name: "unpaired:..".
    a: Of the sources.
    b: Of x.
    base: Where both kinds are one data set, altered or not: its images of `a`'s
      rows, altered as `b` is: what a perfect translation would be, [N, S, S, C].
  """

  name: str
  a: Source
  b: Source
  base: np.ndarray | None = None

  classes, class_names, brings = 0, (), ("source",)

  @property
  def shape(self) -> tuple[int, ...]:
    return self.b.shape

  @property
  def dtype(self) -> np.dtype:
    return self.b.dtype

  @functools.cached_property
  def fingerprint(self) -> str:
    text = f"{self.a.fingerprint} {self.b.fingerprint}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

  @property
  def skipped(self) -> tuple[str, ...]:
    return (*self.a.skipped, *self.b.skipped)

  @property
  def notes(self) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*self.a.notes, *self.b.notes)))

  @property
  def in_memory(self) -> bool:
    return self.a.in_memory and self.b.in_memory

  def __len__(self) -> int:
    return max(len(self.a), len(self.b))

  def __getitem__(self, i: int) -> Example:
    return {k: v[0] for k, v in self.read(np.array([i])).items()}

  @functools.cached_property
  def order(self) -> np.ndarray:
    """Of the rows of b."""
    return np.random.default_rng(0).permutation(len(self.b))

  def read(self, indices: np.ndarray, cut: Cut | None = None) -> Example:
    indices = np.asarray(indices)
    rows = self.order[indices % len(self.b)]
    source = self.a.read(indices % len(self.a), cut)["x"]
    return {"x": np.array(self.b.read(rows, cut)["x"]), "source": np.array(source)}

  def arrays(self) -> tuple[np.ndarray, None]:
    return self.b.arrays()[0], None


def open_unpaired(argument: str, split: str, opener: Opener) -> Unpaired:
  """Two kinds of images.

  Where both are the same built-in data set, training images of A are never among
  those of B: every other one goes to either.

  Args:
    argument: See above.
    split: "train" or another.
    opener: Name of one kind -> source; "folder:PATH" for files.

  Raises:
    UserError: One of them is not there, or they differ in shape.
  """
  name, parts = f"unpaired:{argument}", argument.split(",")
  if len(parts) == 1 and Path(argument).expanduser().is_dir():
    return of_halves(name, Path(argument).expanduser(), split, opener)
  if len(parts) != 2 or not all(parts):
    raise UserError(f"{name}: want two kinds of images with a comma between, unpaired:A,B")
  a, b = (opener(kind_name(part)) for part in parts)
  stems = [part.partition("-")[0] for part in parts]
  base = None
  if stems[0] == stems[1] and not any(map(is_path, parts)):
    if parts[0] == stems[0]:
      base = b.arrays()[0]
    if split == "train":
      rows = np.arange(len(a))
      a, b = Rows(a, rows[::2]), Rows(b, rows[1::2])
      base = None if base is None else base[::2]
  return of_two(name, a, b, base)


def of_halves(name: str, top: Path, split: str, opener: Opener) -> Unpaired:
  """Of a folder with trainA and trainB, or those of another split."""
  paths = [top / f"{split}{kind}" for kind in "AB"]
  for path in paths:
    if not path.is_dir():
      raise UserError(f"{name} has no folder {path.name}: want {split}A and {split}B")
  return of_two(name, *(opener(f"folder:{path}") for path in paths))


def of_two(name: str, a: Source, b: Source, base: np.ndarray | None = None) -> Unpaired:
  """The two, if they are images of one shape."""
  if a.shape != b.shape or len(a.shape) != 3:
    raise UserError(f"{name}: {a.name} holds {list(a.shape)} and {b.name} {list(b.shape)}: "
                    "want images of one shape, by data.size and data.channels")  # fmt: skip
  return Unpaired(name, a, b, base)


def is_path(part: str) -> bool:
  """Whether a kind is named by where its files lie."""
  return "/" in part or Path(part).expanduser().exists()


def kind_name(part: str) -> str:
  """The name of a data set for one kind."""
  if not is_path(part):
    return part
  return f"zip:{part}" if Path(part).expanduser().is_file() else f"folder:{part}"
