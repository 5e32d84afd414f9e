"""Packed data that stay where they are: packed:gs://bucket/folder, by ranges.

The folder is one that `pack` wrote, below JAXGEN_DATA/packed, copied to a bucket
as it is. Nobody copies it back: a batch asks for its own rows, all at once, and
what was read is kept on this machine, of each such folder up to JAXGEN_COPIES_GB
(100), so that a later epoch asks for nothing. Of a folder here `packed:PATH` maps the file.

  $XDG_CACHE_HOME/jaxgen/rows/<digest>/x.bin     sparse: the rows that were read
                                       sums.bin  uint32 [N]: their CRC, or 0
"""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen import files
from jaxgen.data import image
from jaxgen.data.arrays import Cut, Example, mapped
from jaxgen.errors import UserError

META = {"count": int, "shape": list, "classes": int, "fingerprint": str, "skipped": list}


def open_packed(path: str, split: str, size: int | None, channels: int | None) -> Any:
  """The examples of a packed folder, here or in a bucket.

  Raises:
    UserError: there is none, or of another size, or not whole.
  """
  name = f"packed:{path}"
  if split != "train":
    raise UserError(f"{name} is one split, called train; not {split}")
  place = files.path(path)
  try:
    meta = json.loads((place / "meta.json").read_text())
    if any(type(meta.get(k)) is not kind for k, kind in META.items()):
      raise ValueError("meta.json is not as `pack` writes it")
  except FileNotFoundError as e:
    raise UserError(f"there are no packed data in {path}: no meta.json") from e
  except (ValueError, AttributeError) as e:
    raise UserError(f"the packed data in {path} are damaged: {e}") from e
  shape = meta["shape"]
  if len(shape) != 3 or (size or shape[0]) != shape[0] or (channels or shape[2]) != shape[2]:
    raise UserError(
      f"{name} holds {shape}: pack it anew for another size, or leave out size and channels"
    )
  return files.choose(path, mapped, Rows)(place, name)


class Rows:
  """The source of a packed folder in a bucket; see data.arrays.Source."""

  notes: tuple[str, ...] = ()
  in_memory = False

  def __init__(self, folder: Path, name: str):
    self.folder, self.name = folder, name
    meta = json.loads((folder / "meta.json").read_text())
    self.count, self.classes = meta["count"], meta["classes"]
    self.shape, self.dtype = tuple(meta["shape"]), np.dtype(np.uint8)
    self.fingerprint = meta["fingerprint"]
    self.skipped, self.class_names = tuple(meta["skipped"]), tuple(meta.get("class_names", ()))
    self.y = np.frombuffer((folder / "y.bin").read_bytes(), np.int32) if self.classes else None
    if self.y is not None and len(self.y) != self.count:
      raise UserError(f"the packed data in {folder} are damaged: labels of {len(self.y)} examples")
    self.row = int(np.prod(self.shape))
    self.kept = Kept(f"{folder} {files.version(folder / 'x.bin')}", self.count, self.row)

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, i: int) -> Example:
    example = self.read(np.array([i]))
    return {"x": example["x"][0]} | ({"y": np.int32(example["y"][0])} if "y" in example else {})

  def read(self, indices: np.ndarray, cut: Cut | None = None) -> Example:
    indices = np.asarray(indices) % self.count
    x = np.empty((len(indices), self.row), np.uint8)
    missing = self.kept.fill(x, indices)
    wanted = np.unique(indices[missing])
    parts = files.read_parts(self.folder / "x.bin", [int(i) * self.row for i in wanted], self.row)
    rows = {int(i): np.frombuffer(part, np.uint8) for i, part in zip(wanted, parts, strict=True)}
    for k in np.flatnonzero(missing):
      x[k] = rows[int(indices[k])]
    self.kept.put(rows)
    x = x.reshape(-1, *self.shape)
    if cut is not None:
      original = image.Stack(x, self.shape[-1])
      x = np.stack([image.pixels(cut(k, original(k))) for k in range(len(indices))])
    return {"x": x} | ({} if self.y is None else {"y": self.y[indices]})

  def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
    """All of it, copied here first."""
    return mapped(files.local(self.folder), self.name).arrays()

  def __getstate__(self):  # to a worker process goes the address
    return {"folder": str(self.folder), "name": self.name}

  def __setstate__(self, state):
    self.__init__(files.path(state["folder"]), state["name"])


class Kept:
  """Rows that were read before, in a sparse file that several processes share.

  A row counts if its CRC is the one beside it: a machine that crashed may have
  written down the one and not the other.
  """

  def __init__(self, key: str, count: int, row: int):
    home = files.cache() / "rows" / files.digest([key, count, row])
    home.mkdir(parents=True, exist_ok=True)
    self.x = _shared(home / "x.bin", np.uint8, (count, row))
    self.sums = _shared(home / "sums.bin", np.uint32, (count,))
    self.room = int(files.copies_limit() // row)

  def fill(self, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Writes rows into x [B, row] -> bool [B], which of them are missing."""
    missing = np.array(self.sums[indices] == 0)
    for k in np.flatnonzero(~missing):
      x[k] = self.x[indices[k]]
      missing[k] = crc(x[k]) != self.sums[indices[k]]
    return missing

  def put(self, rows: dict[int, np.ndarray]) -> None:
    """Keeps rows, while there is room."""
    if not rows or np.count_nonzero(self.sums) + len(rows) > self.room:
      return
    for i, row in rows.items():
      self.x[i], self.sums[i] = row, crc(row)


def crc(row: np.ndarray) -> int:
  """Of a row, and never 0."""
  return zlib.crc32(row) or 1


def _shared(path: Path, dtype: Any, shape: Sequence[int]) -> np.memmap:
  size = int(np.prod(shape)) * np.dtype(dtype).itemsize
  with open(path, "ab") as file:
    if os.fstat(file.fileno()).st_size != size:
      file.truncate(size)
  return np.memmap(path, dtype, "r+", shape=tuple(shape))
