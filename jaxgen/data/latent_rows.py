"""Latents of a data set, written once by a codec and mapped from then on.

A folder: one file of raw numbers for each array, x's labels, and `meta.json`,
which is written last. Until then `progress.json` says how many rows are whole,
so whoever is killed goes on from there. Row i * copies is image i; where
`copies` is 2, the next one is its mirror image, for what a codec writes of a
mirrored image is not what it wrote mirrored.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen import files
from jaxgen.data.arrays import Example
from jaxgen.errors import UserError

VERSION = 1
META, PROGRESS, LABELS = "meta.json", "progress.json", "y"
NAME = re.compile(r"[a-z]{1,20}")  # of an array: no path
DTYPES = ("float16", "float32", "uint16", "int32")
Leaves = Mapping[str, tuple[tuple[int, ...], np.dtype]]  # of one row, by name


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Latents:
  """Random access to examples {"z": {name: array}, "y": label}; no x.

  `shape` and `dtype` are those of the images that they were written of.
  """

  name: str
  folder: Path
  meta: Mapping[str, Any]
  z: Mapping[str, np.ndarray]  # [N * copies, ...] each
  y: np.ndarray | None

  skipped, notes = (), ()

  @property
  def in_memory(self) -> bool:
    """Whether reading waits for no disk: all of it, or little, is mapped."""
    return sum(a.nbytes for a in self.z.values()) < 2**30

  @property
  def shape(self) -> tuple[int, ...]:
    return tuple(self.meta["data"]["shape"])

  @property
  def dtype(self) -> np.dtype:
    return np.dtype(self.meta["data"]["dtype"])

  @property
  def classes(self) -> int:
    return self.meta["data"]["classes"]

  @property
  def class_names(self) -> tuple[str, ...]:
    return tuple(self.meta["data"]["class_names"])

  @property
  def images(self) -> dict[str, Any]:
    """config.data of the images."""
    return dict(self.meta["data"]["config"])

  @property
  def codec(self) -> str:
    """Digest of the weights that wrote them."""
    return self.meta["codec"]["digest"]

  @property
  def mirrored(self) -> bool:
    """Whether there are latents of mirror images, too."""
    return self.meta["copies"] == 2

  @property
  def stored(self) -> Leaves:
    """Shape and dtype of one row, by name."""
    return {k: (a.shape[1:], a.dtype) for k, a in self.z.items()}

  @property
  def fingerprint(self) -> str:
    """Of images, codec and form; not of what rounding makes of them."""
    return files.digest(identity(self.meta))

  def __len__(self) -> int:
    return self.meta["count"]

  def __getitem__(self, i: int) -> Example:
    row = self.read(np.array([i]))
    own = {"z": {k: a[0] for k, a in row["z"].items()}}
    return own if self.y is None else own | {"y": row["y"][0]}

  def read(
    self, indices: np.ndarray, cut: None = None, mirror: np.ndarray | None = None
  ) -> Example:
    """The examples at `indices`, stacked; of mirror images where `mirror` is true."""
    del cut  # crops are refused: see pipeline.check_crop
    rows = indices * self.meta["copies"] + (0 if mirror is None else mirror)
    batch = {"z": {k: a[rows] for k, a in self.z.items()}}
    return batch if self.y is None else batch | {"y": self.y[indices]}

  def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
    """UserError: there are no images here."""
    raise UserError(f"{self.name} holds latents, not images: name the images' own source")

  def __reduce__(self):  # a worker process maps the files itself
    return open_latents, (str(self.folder),)


def check_bucket(address: files.Address) -> None:
  """UserError if a folder in a bucket holds something; others are `Writer`'s to check."""
  if files.choose(address, False, files.path(address).exists()):
    raise UserError(f"{address} holds something: take a new --out, or remove it")


def open_latents(path: str) -> Latents:
  """Maps the folder that `jaxgen encode` wrote.

  Raises:
    UserError: There is none, it is not finished, or it is damaged.
  """
  folder = files.local(path)
  if not (folder / META).is_file():
    how = "write them by `jaxgen encode --workdir CODEC --data SOURCE --out " + path + "`"
    if (folder / PROGRESS).is_file():
      how = "they are not finished: run the same `jaxgen encode` again, which goes on"
    raise UserError(f"there are no latents in {path}: {how}")
  try:
    meta = json.loads((folder / META).read_text())
    check_meta(meta)
    count, rows = meta["count"], meta["count"] * meta["copies"]
    z = {
      k: mapped(folder / f"{k}.bin", (rows, *shape), dtype)
      for k, (shape, dtype) in leaves_of(meta).items()
    }
    y = mapped(folder / f"{LABELS}.bin", (count,), np.dtype(np.int32))
    y = np.array(y) if meta["data"]["classes"] else None
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
    raise UserError(f"the latents in {path} are damaged ({e}): write them anew") from e
  return Latents(f"latents:{path}", folder, meta, z, y)


def check_meta(meta: Mapping[str, Any]) -> None:
  """ValueError, or that of a missing part, unless it is as `Writer` writes it."""
  data, images = meta["data"], meta["data"]["config"]
  whole = (meta["version"], meta["count"], meta["copies"], data["classes"], *data["shape"])
  texts = (meta["codec"]["digest"], data["fingerprint"], images["source"], images["split"])
  if not all(type(n) is int and n >= 0 for n in whole) or not all(type(t) is str for t in texts):
    raise ValueError("meta.json is of another form")
  if meta["version"] != VERSION or meta["copies"] not in (1, 2) or not meta["count"]:
    raise ValueError("meta.json is of another version")
  if len(data["shape"]) not in (1, 3) or np.dtype(data["dtype"]).hasobject:
    raise ValueError("they are of no images")


def leaves_of(meta: Mapping[str, Any]) -> Leaves:
  """Shapes and dtypes that a meta.json tells; ValueError for what none can be."""
  leaves = {}
  for name, (shape, dtype) in meta["leaves"].items():
    sides = all(type(n) is int and 0 < n < 2**20 for n in shape) and len(shape) <= 4
    if not NAME.fullmatch(name) or name == LABELS or dtype not in DTYPES or not sides:
      raise ValueError(f"{name!r} is no array of latents")
    leaves[name] = tuple(shape), np.dtype(dtype)
  if not leaves:
    raise ValueError("there are no arrays")
  return leaves


def mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
  """A file of raw numbers; ValueError unless it is exactly so long."""
  size, want = path.stat().st_size, math.prod(shape) * dtype.itemsize
  if size != want:
    raise ValueError(f"{path.name} has {size:,} bytes of {want:,}")
  return np.asarray(np.memmap(path, dtype, "r", shape=shape))


def identity(meta: Mapping[str, Any]) -> dict[str, Any]:
  """What tells latents from others: the rest of a meta is for people."""
  return {
    "version": meta["version"],
    "codec": meta["codec"]["digest"],
    "data": meta["data"]["fingerprint"],
    "copies": meta["copies"],
    "leaves": files.plain(meta["leaves"]),
  }


class Writer:
  """Appends rows of latents, and remembers how many are safe on the disk."""

  def __init__(self, folder: Path, meta: Mapping[str, Any]):
    """`meta`: all of meta.json. Rows of an earlier run stay where they fit.

    Raises:
      UserError: The folder holds other things, or too little room is left.
    """
    self.folder, self.meta = folder, meta
    self.leaves = leaves_of(meta)
    self.rows = self.check_folder()
    self.sizes = {k: math.prod(s) * d.itemsize for k, (s, d) in self.leaves.items()}
    self.check_room()

  @property
  def count(self) -> int:
    """Images whose rows are safe."""
    return self.rows // self.meta["copies"]

  def check_folder(self) -> int:
    """Rows that are there already."""
    if not self.folder.exists() or not any(self.folder.iterdir()):
      return 0
    for name in (META, PROGRESS):
      with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        past = json.loads((self.folder / name).read_text())
        rows = past["count"] * past["copies"] if name == META else past["rows"]
        if identity(past) == identity(self.meta) and type(rows) is int and rows >= 0:
          return rows
    raise UserError(
      f"{self.folder} holds other files, or latents of another codec, of other images or in "
      "another form: take a new --out"
    )

  def check_room(self) -> None:
    """UserError if the rest does not fit on the disk."""
    rest = self.meta["count"] * self.meta["copies"] - self.rows
    need = rest * sum(self.sizes.values())
    place = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if need > free:
      raise UserError(
        f"latents of {self.meta['count']:,} images take {need / 2**30:.1f} GiB, and there are "
        f"{free / 2**30:.1f} at {self.folder}"
      )

  @contextlib.contextmanager
  def writing(self) -> Iterator[None]:
    """Within, `append` and `sync`; at the end, if all is there, meta.json."""
    self.folder.mkdir(parents=True, exist_ok=True)
    self.sync_progress()
    with contextlib.ExitStack() as stack:
      self.files = {}
      for name, size in (self.sizes | {LABELS: 4}).items():
        path = self.folder / f"{name}.bin"
        if path.is_symlink():  # what it points at is no file of ours
          raise UserError(f"{path} is a link: move it away, or take a new --out")
        path.touch()
        file = self.files[name] = stack.enter_context(open(path, "r+b"))
        rows = self.count if name == LABELS else self.rows
        file.truncate(rows * size)  # what came after the last sync may be torn
        file.seek(rows * size)
      yield
      self.sync()
    if self.count == self.meta["count"]:
      files.write_json(self.folder / META, self.meta)
      (self.folder / PROGRESS).unlink(missing_ok=True)

  def append(self, z: Mapping[str, np.ndarray], y: np.ndarray | None) -> None:
    """Arrays [n, copies, ...] of n images by name, labels [n] or none.

    Raises:
      UserError: Numbers are too large for the dtype, or not finite.
    """
    n = len(next(iter(z.values())))
    for name, (_, dtype) in self.leaves.items():
      with np.errstate(over="ignore"):
        values = np.ascontiguousarray(z[name], dtype)
      if not np.isfinite(values).all():
        raise UserError(
          f"latents are not finite as {dtype}: their codec has diverged, or take --dtype=float32"
        )
      if dtype.kind in "iu" and (values != z[name]).any():
        raise UserError(f"codes are larger than {dtype} holds: {z[name].max():,}")
      self.files[name].write(values.data)
    self.files[LABELS].write(np.zeros(n, np.int32) if y is None else np.asarray(y, np.int32))
    self.rows += n * self.meta["copies"]

  def sync(self) -> None:
    """What was appended is safe from now on."""
    for file in self.files.values():
      file.flush()
      os.fsync(file.fileno())
    self.sync_progress()

  def sync_progress(self) -> None:
    """Says how many rows are safe."""
    files.write_json(self.folder / PROGRESS, {**self.meta, "rows": self.rows})
