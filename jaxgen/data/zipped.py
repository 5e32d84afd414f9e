"""A .zip of image files, as StyleGAN2 and EDM pack data sets; dataset.json."""

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from jaxgen.data.arrayfile import check_entry, check_file, reading
from jaxgen.data.folder import SUFFIXES
from jaxgen.errors import UserError

LABELS = "dataset.json"
KIND = "a .zip of images"
LARGEST = 1 << 28  # bytes of one image, or of dataset.json


def listing(path: Path) -> list[str]:
  """Image files in a .zip, sorted.

  Raises:
    UserError: it is no .zip, holds no images, or lies about their lengths.
  """
  with reading(path, KIND):
    check_file(path)
    size = os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
      entries = [e for e in archive.infolist() if is_image(e.filename)]
      for entry in entries:
        check_entry(entry, size)
        if entry.file_size > LARGEST:
          raise ValueError(f"{entry.filename} is larger than any image")
  if not entries:
    raise UserError(
      f"there are no images in {path} (looked for {' '.join(sorted(SUFFIXES))})"
    )
  return sorted({e.filename for e in entries})


def is_image(name: str) -> bool:
  """Whether an entry of that name is an image, and nothing hidden."""
  place = PurePosixPath(name)
  return place.suffix.lower() in SUFFIXES and not any(
    part.startswith((".", "__MACOSX")) for part in place.parts
  )


def labels_in(path: Path, names: Sequence[str]) -> np.ndarray | None:
  """Labels int32 [N] of the images of a .zip, if its dataset.json has them."""
  with reading(path, KIND), zipfile.ZipFile(path) as archive:
    if LABELS not in archive.namelist():
      return None
    entry = archive.getinfo(LABELS)
    check_entry(entry, os.path.getsize(path))
    if entry.file_size > LARGEST:
      raise ValueError(f"{LABELS} is larger than any list of labels")
    text = archive.read(entry)
  return labels_of(text, names, f"{LABELS} of {path}")


def labels_of(
  text: str | bytes, names: Sequence[str], what: str
) -> np.ndarray | None:
  """Labels int32 [N] of images by name, as a dataset.json says them.

  That is {"labels": [["00000/img00000000.png", 6], ..]}; null: there are none.

  Raises:
    UserError: it is something else, or lacks an image.
  """
  try:
    pairs = json.loads(text)["labels"]
    known = None if pairs is None else {
      k: v for k, v in pairs if type(v) is int and 0 <= v < 2**31
    }
    bad = pairs is not None and len(known) != len(pairs)
  except (ValueError, KeyError, TypeError, RecursionError):
    bad = True
  if bad:
    raise UserError(
      f'{what} is not {{"labels": [["name.png", 3], ..]}}, with a whole number'
      " for each image, or null"
    )
  if known is None:
    return None
  for name in names:
    if name not in known:
      raise UserError(f"{what} has no label of {name}")
  return np.array([known[name] for name in names], np.int32)
