"""A .zip of image files, as StyleGAN2 and EDM pack data sets; dataset.json."""

import functools
import io
import json
import os
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from jaxgen.data.arrayfile import check_entry, check_file, reading
from jaxgen.data.image import SUFFIXES
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
    raise UserError(f"there are no images in {path} (looked for {' '.join(sorted(SUFFIXES))})")
  return sorted({e.filename for e in entries})


def is_image(name: str) -> bool:
  """Whether an entry of that name is an image, and nothing hidden."""
  place = PurePosixPath(name)
  return place.suffix.lower() in SUFFIXES and not any(
    part.startswith((".", "__MACOSX")) for part in place.parts
  )


def is_archive(path: Path) -> bool:
  """Whether a file is a .zip, whatever its name."""
  with reading(path, KIND):
    check_file(path)
    return zipfile.is_zipfile(path)


def stamps(path: Path) -> dict[str, str]:
  """For each entry of a .zip a string that changes when it does."""
  with reading(path, KIND), zipfile.ZipFile(path) as archive:
    return {e.filename: f"{e.file_size}\0{e.CRC}" for e in archive.infolist()}


def member(path: Path, name: str) -> IO[bytes]:
  """An entry of a .zip, read; many threads may ask.

  Raises:
    ValueError, OSError, or what else a broken archive may do.
  """
  archive, lock = _opened(path, os.getpid())
  with lock:
    return io.BytesIO(archive.read(name))


@functools.lru_cache(maxsize=4)
def _opened(path: Path, process: int) -> tuple[zipfile.ZipFile, threading.Lock]:
  """Its directory is read once in each process, which share no place in it."""
  return zipfile.ZipFile(path), threading.Lock()


def labels_in(path: Path, names: Sequence[str], base: str = "") -> np.ndarray | None:
  """Labels int32 [N] of the images of a .zip, if its dataset.json has them.

  `names` are below the folder `base`, and so is dataset.json.
  """
  with reading(path, KIND), zipfile.ZipFile(path) as archive:
    if base + LABELS not in archive.namelist():
      return None
    entry = archive.getinfo(base + LABELS)
    check_entry(entry, os.path.getsize(path))
    if entry.file_size > LARGEST:
      raise ValueError(f"{LABELS} is larger than any list of labels")
    text = archive.read(entry)
  return labels_of(text, names, f"{LABELS} of {path}")


def labels_of(text: str | bytes, names: Sequence[str], what: str) -> np.ndarray | None:
  """Labels int32 [N] of images by name, by the text of a dataset.json.

  That is {"labels": [["00000/img00000000.png", 6], ..]}; null: there are none.

  Raises:
    UserError: it is something else, or lacks an image.
  """
  try:
    pairs = json.loads(text)["labels"]
    if pairs is None:
      return None
    labels = {name: y for name, y in pairs if type(y) is int and 0 <= y < 2**31}
    if len(labels) < len(pairs):
      raise ValueError
  except (ValueError, KeyError, TypeError, RecursionError):
    raise UserError(
      f'{what} is not {{"labels": [["name.png", 3], ..]}}, with a whole number'
      " for each image, or null"
    ) from None
  if missing := [name for name in names if name not in labels]:
    raise UserError(f"{what} has no label of {missing[0]}")
  return np.array([labels[name] for name in names], np.int32)
