"""Pairs of images, to learn one from the other: x of "source".

  pairs:A,B      two folders (or .zip files) whose files have equal names: B of A
  sides:PATH     images of which the left half is the source, the right half x
  sides:PATH,ba  the other way round

The files of a pair have one size, and are cropped alike. A packed copy of all lies
where those of folders do, see `folder.open_folder`.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxgen.data import image, pack
from jaxgen.data.arrays import Arrays, Cut, Example
from jaxgen.data.folder import heads, open_files, stored_channels
from jaxgen.errors import UserError

SHOWN = 4  # names of files that a message spells out


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Halves:
  """The two images of each pair as they are stored, by number: source, x."""

  left: image.Files
  right: image.Files | None  # None: both are halves of the left one
  swapped: bool = False

  def __call__(self, i: int) -> tuple[Image.Image, Image.Image]:
    whole = self.left(i)
    if self.right is not None:
      return whole, self.right(i)
    width, height = whole.size
    first = whole.crop((0, 0, width // 2, height))
    second = whole.crop((width // 2, 0, width, height))
    return (second, first) if self.swapped else (first, second)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Pairs:
  """The source of examples {"x", "source"}, uint8 [S, S, C] each, without labels.

  Attributes:
    packed: Both images side by side, [S, 2S, C], the source on the left.
    original: What they are cropped from.
    names: Of the files, as far as they could be read.
  """

  packed: Arrays
  original: Halves
  names: tuple[str, ...]
  notes: tuple[str, ...] = ()

  classes, class_names, brings = 0, (), ("source",)

  @property
  def name(self) -> str:
    return self.packed.name

  @property
  def shape(self) -> tuple[int, ...]:
    side, _, channels = self.packed.shape
    return side, side, channels

  @property
  def dtype(self) -> np.dtype:
    return self.packed.dtype

  @property
  def fingerprint(self) -> str:
    return self.packed.fingerprint

  @property
  def skipped(self) -> tuple[str, ...]:
    return self.packed.skipped

  @property
  def in_memory(self) -> bool:
    return self.packed.in_memory

  def __len__(self) -> int:
    return len(self.packed)

  def __getitem__(self, i: int) -> Example:
    return {k: v[0] for k, v in self.read(np.array([i])).items()}

  def read(self, indices: np.ndarray, cut: Cut | None = None) -> Example:
    if cut is None:
      both, side = self.packed.x[indices], self.shape[0]
      return {"x": np.array(both[:, :, side:]), "source": np.array(both[:, :, :side])}
    pairs = [self.original(i) for i in indices]
    crop = lambda j: np.stack([image.pixels(cut(k, pair[j])) for k, pair in enumerate(pairs)])
    return {"x": crop(1), "source": crop(0)}

  def arrays(self) -> tuple[np.ndarray, None]:
    return self.packed.x[:, :, self.shape[0] :], None


def open_pairs(
  argument: str, split: str, size: int | None, channels: int | None, root: Path
) -> Pairs:
  """Files of equal names in two folders, "A,B"; endings may differ.

  Raises:
    UserError: A folder is missing, files have no partner (their names are listed),
      or the images of a pair differ in size.
  """
  name = f"pairs:{argument}"
  parts = argument.split(",")
  if len(parts) != 2 or not all(parts):
    raise UserError(f"{name}: want two folders with a comma between, pairs:sources,images")
  check_size(name, size)
  opened = [open_files(path, split, channels or 3) for path in parts]
  stems = [
    by_stem(path, pictures.names) for path, (_, pictures, _) in zip(parts, opened, strict=True)
  ]
  common = sorted(stems[0].keys() & stems[1].keys())
  check_partners(name, parts, stems, common)
  files = []
  for (_, pictures, whole), stem in zip(opened, stems, strict=True):
    names = [pictures.base + stem[s] for s in common]
    files.append(dataclasses.replace(whole, names=names))
  stamps = [s for (place, *_), f in zip(opened, files, strict=True) for s in place.stamps(f.names)]
  return packed(name, Halves(*files), common, stamps, size, channels, root)


def open_sides(
  argument: str, split: str, size: int | None, channels: int | None, root: Path
) -> Pairs:
  """Images side by side in one file, "PATH" or "PATH,ba", as they are published.

  Raises:
    UserError: There is no such folder, or an image is of odd width.
  """
  name = f"sides:{argument}"
  path, comma, way = argument.rpartition(",")
  path, way = (path, way) if comma else (argument, "ab")
  if way not in ("ab", "ba"):
    raise UserError(f"{name}: want sides:PATH (left is the source) or sides:PATH,ba (right is)")
  check_size(name, size)
  place, pictures, files = open_files(path, split, channels or 3)
  stamps = list(place.stamps(files.names))
  halves = Halves(files, None, way == "ba")
  return packed(name, halves, list(pictures.names), stamps, size, channels, root)


def check_size(name: str, size: int | None) -> None:
  """UserError for files without a size that they are to have."""
  if size is None:
    raise UserError(f"{name} needs a size, as images of files vary in theirs: --config.data.size=")


def by_stem(path: str, names: Sequence[str]) -> dict[str, str]:
  """{"a/b": "a/b.png"}; UserError if two files differ by their ending alone."""
  stems = {}
  for name in names:
    stem = name.rpartition(".")[0]
    if stem in stems:
      raise UserError(f"{path} holds {stems[stem]} and {name}: which is of the pair? rename one")
    stems[stem] = name
  return stems


def check_partners(
  name: str, folders: Sequence[str], stems: Sequence[dict[str, str]], common: Sequence[str]
) -> None:
  """UserError that lists names which one folder has and the other lacks."""
  alone = [sorted(own.keys() - set(common)) for own in stems]
  if not any(alone):
    return
  listed = [
    f"{len(names)} only in {folder} ({few([stem[s] for s in names])})"
    for folder, names, stem in zip(folders, alone, stems, strict=True)
    if names
  ]
  raise UserError(
    f"{name} do not pair: {' and '.join(listed)}, {len(common)} in both: give both files of a pair "
    "one name"
  )


def few(names: Sequence[str]) -> str:
  """Some names, with commas."""
  return ", ".join(names[:SHOWN]) + (", .." if len(names) > SHOWN else "")


def packed(
  name: str,
  halves: Halves,
  names: Sequence[str],
  stamps: Sequence[str],
  size: int,
  channels: int | None,
  root: Path,
) -> Pairs:
  """The pairs, cropped to `size` and packed on first use."""
  sides = [f for f in (halves.left, halves.right) if f is not None]
  if channels == 0:
    channels = max(map(stored_channels, sides))
  channels = channels or 3
  sides = [dataclasses.replace(f, channels=channels) for f in sides]
  halves = Halves(*(sides if len(sides) == 2 else [*sides, None]), halves.swapped)
  key = hashlib.blake2b(f"{halves.swapped}".encode(), digest_size=6)
  for word in (*names, *stamps):
    key.update(os.fsencode(word) + b"\0")
  kind = name.partition(":")[0]
  target = root / "packed" / f"{kind}-{size}x{channels}-v{pack.VERSION}-{key.hexdigest()}"
  if not target.exists():
    check_sizes(name, halves, names)

  def load(i: int) -> tuple[np.ndarray, None]:
    try:
      both = [image.pixels(image.crop(half, size)) for half in halves(i)]
    except Exception as e:  # a broken file may fail anywhere in a decoder
      raise pack.Unreadable(f"{names[i]}: {image.reason(e)}") from e
    return np.ascontiguousarray(np.concatenate(both, 1)), None

  arrays = pack.packed(name, target, len(names), load, 0)
  rows = pack.readable_rows(names, arrays.skipped)
  sides = [dataclasses.replace(f, names=tuple(f.names[i] for i in rows)) for f in sides]
  halves = Halves(*(sides if len(sides) == 2 else [*sides, None]), halves.swapped)
  notes = (image.SQUARES,) if not all(square(halves, i) for i in range(min(len(rows), 16))) else ()
  return Pairs(arrays, halves, tuple(names[i] for i in rows), notes)


def check_sizes(name: str, halves: Halves, names: Sequence[str]) -> None:
  """UserError for a pair of two sizes, or a file that has no middle."""
  for i, label in enumerate(names):
    width, height = size_of(halves.left, i) or (0, 0)
    if halves.right is None:
      if width % 2:
        raise UserError(
          f"{name}: {label} is {width}x{height}, and two images side by side are of even width"
        )
      continue
    other = size_of(halves.right, i)
    if other and width and other != (width, height):
      raise UserError(
        f"{name}: {label} is {width}x{height} in the one and {other[0]}x{other[1]} in the other: "
        "the images of a pair are of one size"
      )


def size_of(files: image.Files, i: int) -> tuple[int, int] | None:
  """Width and height of a file, by its head; None if it cannot be read."""
  head = next(heads(dataclasses.replace(files, names=[files.names[i]])), None)
  return head and head[1]


def square(halves: Halves, i: int) -> bool:
  """Whether the images of a pair are squares."""
  width, height = size_of(halves.left, i) or (1, 1)
  return (width if halves.right is not None else width // 2) == height
