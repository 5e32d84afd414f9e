"""Sample files: arr_0 uint8 [N, H, W, C], and arr_1 labels where known."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxgen.data import image
from jaxgen.data.arrays import Arrays
from jaxgen.errors import UserError


def open_npz(
  path: str, split: str, size: int | None, channels: int | None
) -> Arrays:
  """The images of a sample file, in its order.

  Raises:
    UserError: for anything but such a file.
  """
  if split != "train":
    raise UserError(f"npz:{path} is one split, called train; not {split}")
  x, y = _read(Path(path).expanduser())
  if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in (1, 3):
    raise UserError(
      f"arr_0 of {path} is {x.dtype} {list(x.shape)}; wanted are images,"
      " uint8 [N, H, W, 1 or 3]"
    )
  if not x.size:
    raise UserError(f"{path} holds no images")
  if y is not None:
    if y.shape != x.shape[:1] or y.dtype.kind not in "iu" or y.min() < 0:
      raise UserError(
        f"arr_1 of {path} is {y.dtype} {list(y.shape)}; wanted are labels"
        f" 0, 1, .. of the {len(x)} images"
      )
    y = y.astype(np.int32)
  classes = 0 if y is None else int(y.max()) + 1
  fitted, whole = image.fitted(x, size, channels)
  return Arrays(f"npz:{path}", fitted, y, classes, whole=whole)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
  try:
    with np.load(path, allow_pickle=False) as file:
      return file["arr_0"], file["arr_1"] if "arr_1" in file else None
  except FileNotFoundError as e:
    raise UserError(f"there is no file {path}") from e
  except (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
  ) as e:
    raise UserError(f"{path} is not a sample file with arr_0: {e}") from e
