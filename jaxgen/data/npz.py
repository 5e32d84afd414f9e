"""Sample files: arr_0 uint8 [N, H, W, C], and arr_1 labels where known."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxgen import files
from jaxgen.data import arrayfile, image
from jaxgen.data.arrays import Arrays
from jaxgen.errors import UserError


def open_npz(path: str, split: str, size: int | None, channels: int | None) -> Arrays:
  """The images of a sample file .npz, or of an .npy, in its order.

  Raises:
    UserError: for anything but such a file.
  """
  if split != "train":
    raise UserError(f"npz:{path} is one split, called train; not {split}")
  place = files.local(path)
  arrays = arrayfile.names(place)
  if "arr_0" not in arrays:
    shown = ", ".join(arrays[:8]) or "no arrays"
    raise UserError(f"{path} is not a sample file with arr_0: it holds {shown}")
  stored = arrayfile.stored(place, "arr_0")
  shape = stored.shape
  if stored.dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3):
    raise UserError(
      f"arr_0 of {path} is {stored.dtype} {list(shape)}; wanted are images, uint8 [N, H, W, 1 or 3]"
    )
  if not stored.nbytes:
    raise UserError(f"{path} holds no images")
  y = read_labels(place, shape[0]) if "arr_1" in arrays else None
  names = () if y is None else class_names(place, arrays)
  classes = 0 if y is None else max(int(y.max()) + 1, len(names))
  x, original = image.fitted(stored.whole(), size, channels)
  return Arrays(
    f"npz:{path}", x, y, classes, original=original,
    class_names=names if len(names) == classes else (),
    notes=(image.SQUARES,) if size and shape[1] != shape[2] else (),
  )  # fmt: skip


def class_names(path: Path, arrays: Sequence[str]) -> tuple[str, ...]:
  """Names of classes as `jaxgen sample` writes them into `info`, or ()."""
  if "info" not in arrays:
    return ()
  try:
    info = json.loads(str(arrayfile.stored(path, "info").whole()))
    names = info.get("class_names", ())
  except (UserError, ValueError, AttributeError, RecursionError):
    return ()  # of another program
  good = isinstance(names, list) and all(isinstance(n, str) for n in names)
  return tuple(names) if good else ()


def read_labels(path: Path, count: int) -> np.ndarray:
  """arr_1 of a sample file of so many images: int32 [N].

  Raises:
    UserError: these are no labels.
  """
  stored = arrayfile.stored(path, "arr_1")
  y = None
  if stored.shape == (count,) and stored.dtype.kind in "iu":
    y = stored.whole()
  if y is None or y.min() < 0 or y.max() >= 2**31:
    raise UserError(
      f"arr_1 of {path} is {stored.dtype} {list(stored.shape)}; wanted are labels"
      f" 0, 1, .. of its {count} images"
    )
  return y.astype(np.int32)
