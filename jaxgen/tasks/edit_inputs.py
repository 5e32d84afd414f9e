"""Images, masks and names that `jaxgen edit` reads."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen import files
from jaxgen.data import image
from jaxgen.data.folder import listing
from jaxgen.errors import UserError, printable

KEPT = 128  # a mask's pixel this bright is kept


class Original(NamedTuple):
  """An image file as a model takes it.

  Attributes:
    path: The file.
    x: uint8 [H, W, C], cropped and resized.
    size: Width and height that it had.
    sha256: Of the file.
  """

  path: Path
  x: np.ndarray
  size: tuple[int, int]
  sha256: str


def image_paths(text: str) -> list[Path]:
  """ "a.png", "a.png,b.png" or a folder -> files; UserError if one is not there."""
  if files.choose(text, files.path(text).exists(), "," not in text):
    top = files.local(text)
    return [top / name for name in listing(top)] if top.is_dir() else [top]
  paths = [files.local(word.strip()) for word in text.split(",")]
  for path in paths:
    if not path.is_file():
      raise UserError(f"--image={text}: there is no file {path}")
  return paths


def read_image(path: Path, shape: Sequence[int], resize: bool, flag: str = "--image") -> Original:
  """An image cropped to its middle square and resized to `shape` [H, W, C].

  Raises:
    UserError: It cannot be read; or has another size, and is not to be resized.
  """
  height, width, channels = shape
  try:
    content = path.read_bytes()
    upright = image.upright(content, channels)
    size = upright.size
    x = image.pixels(upright)
    if size != (width, height):
      if not resize or height != width:
        raise UserError(
          f"{flag}={printable(path)} is {size[0]}x{size[1]}, and {width}x{height} is wanted"
          + (": leave --no_resize, or resize it" if height == width else ": resize it")
        )
      x = image.pixels(image.crop(upright, height))
  except UserError:
    raise
  except Exception as e:  # a broken file may fail anywhere in a decoder
    raise UserError(f"{flag}={printable(path)}: {image.reason(e)}") from e
  return Original(path, x, size, hashlib.sha256(content).hexdigest())


def read_images(text: str, shape: Sequence[int], resize: bool) -> list[Original]:
  """All of --image; says in one line what was resized."""
  originals = [read_image(path, shape, resize) for path in image_paths(text)]
  height, width = shape[:2]
  others = [o for o in originals if o.size != (width, height)]
  if others:
    first = others[0]
    square = "" if first.size[0] == first.size[1] else "its middle square, "
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    size = f"{first.size[0]}x{first.size[1]} -> {width}x{height}"
    print(f"{printable(first.path.name)}: {size}, {square}resized{more}")
  return originals


def read_masks(
  text: str, originals: Sequence[Original], shape: Sequence[int], invert: bool
) -> tuple[np.ndarray, list[Original]]:
  """Masks to `keep`, float32 [N, H, W, 1], one of each image, and their files.

  White (or what is brighter than the middle) is kept, black is to be filled, as RePaint has
  it; with `invert`, the other way round. A mask has the size of its image before that was
  resized, or after.

  Args:
    text: A file for all, or a folder of files that are named as the images are.
    originals: The images.
    shape: [H, W, C] of the model.
    invert: Whether white is to be filled.

  Raises:
    UserError: A mask is of another size, is missing, or leaves nothing to do.
  """
  top, keeps, masks = files.local(text), [], []
  names = {Path(name).stem: top / name for name in listing(top)} if top.is_dir() else {}
  missing = [o.path.name for o in originals if names and o.path.stem not in names]
  if missing:
    more = f" (and of {len(missing) - 1} more)" if len(missing) > 1 else ""
    raise UserError(f"--mask={text}: there is no mask of {printable(missing[0])}{more}")
  if not names and not top.is_file():
    raise UserError(f"--mask={text}: there is no such file or folder")
  for original in originals:
    mask = read_image(names.get(original.path.stem, top), (*shape[:2], 1), True, "--mask")
    if mask.size not in (original.size, (shape[1], shape[0])):
      raise UserError(
        f"--mask={printable(mask.path)} is {mask.size[0]}x{mask.size[1]}, and "
        f"{printable(original.path.name)} is {original.size[0]}x{original.size[1]}: a mask has the "
        "size of its image"
      )
    keep = (mask.x >= KEPT) != invert
    if keep.all():
      colour = "white" if invert else "black"
      raise UserError(
        f"--mask={printable(mask.path)} has nothing {colour}, which is what is filled: "
        "see --invert_mask"
      )
    keeps.append(keep.astype(np.float32))
    masks.append(mask)
  return np.stack(keeps), masks
