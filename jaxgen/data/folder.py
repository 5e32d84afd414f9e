"""A folder of image files, of all kinds and sizes, some of them broken."""

import dataclasses
import hashlib
import os
from pathlib import Path

from jaxgen.data import image, pack
from jaxgen.data.arrays import Arrays
from jaxgen.errors import UserError

SUFFIXES = frozenset(
  ".png .jpg .jpeg .webp .bmp .gif .tif .tiff .ppm .pgm".split()
)


def open_folder(
  path: str, split: str, size: int | None, channels: int | None, root: Path
) -> Arrays:
  """The images below `path`, cropped to `size`, packed on first use.

  Subfolders are classes, numbered in the order of their names; a folder
  without subfolders is unlabelled. Where there is a subfolder named like
  the split, that is read; without one, everything is "train". The packed
  copy takes size * size * channels bytes an image.

  Raises:
    UserError: for a missing or empty folder, or no size.
  """
  if size is None:
    raise UserError(
      f"folder:{path} needs a size, as images of files vary in theirs: give"
      " one, in a config by --config.data.size=32"
    )
  top = _split_of(Path(path).expanduser(), split)
  names = listing(top)
  classes, labels = _classes(top, names)
  channels = channels or 3

  def load(i: int):
    try:
      return image.decode(top / names[i], size, channels), labels[i]
    except Exception as e:  # a broken file may fail anywhere in a decoder
      raise pack.Unreadable(f"{names[i]}: {_why(e)}") from e

  key = hashlib.blake2b(digest_size=6)
  for name in names:
    stat = (top / name).stat()
    key.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
  label = f"{top.name}-{size}x{channels}-v{pack.VERSION}-{key.hexdigest()}"
  source = pack.packed(
    f"folder:{path}", root / "packed" / label, len(names), load, len(classes)
  )
  read = tuple(names[i] for i in pack.kept(names, source.skipped))
  whole = image.Files(top, read, channels)
  return dataclasses.replace(source, whole=whole)


def listing(top: Path) -> list[str]:
  """Image files below `top`, relative, sorted; links are followed once."""
  names, seen = [], set()
  for folder, below, files in os.walk(top, followlinks=True):
    real = os.path.realpath(folder)
    below[:] = [d for d in below if not d.startswith((".", "__MACOSX"))]
    if real in seen:
      below.clear()
      continue
    seen.add(real)
    for file in files:
      path = Path(folder, file)
      if path.suffix.lower() in SUFFIXES and not file.startswith("."):
        if path.is_file():
          names.append(path.relative_to(top).as_posix())
  if not names:
    raise UserError(
      f"there are no images in {top} (looked for {' '.join(sorted(SUFFIXES))})"
    )
  return sorted(names)


def _split_of(path: Path, split: str) -> Path:
  if not path.is_dir():
    raise UserError(
      f"there is no folder {path}"
      if not path.exists()
      else f"{path} is a file; folder:PATH wants a folder of images"
    )
  if (path / split).is_dir():
    return path / split
  if split != "train":
    raise UserError(f"{path} has no subfolder '{split}' to be that split")
  return path


def _classes(top: Path, names: list[str]) -> tuple[list[str], list[int | None]]:
  """Class names, and the label of each file."""
  firsts = [name.split("/")[0] if "/" in name else None for name in names]
  classes = sorted({first for first in firsts if first is not None})
  if not classes:
    return [], [None] * len(names)
  if None in firsts:
    raise UserError(
      f"{top} holds both images and subfolders with images: images next to"
      f" the subfolders have no class, e.g. {names[firsts.index(None)]}"
    )
  numbers = {name: i for i, name in enumerate(classes)}
  return classes, [numbers[first] for first in firsts]


def _why(e: Exception) -> str:
  """The first line of what the decoder says, without a path."""
  text = str(e) or type(e).__name__
  return text.splitlines()[0].split(" '/")[0][:120]
