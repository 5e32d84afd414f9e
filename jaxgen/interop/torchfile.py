"""PyTorch's files, read and written without PyTorch.

Since 1.6 they are zips: NAME/data.pkl says what there is, NAME/data/0.. hold
the values, uncompressed. Before that: five pickles (a magic number, a version,
facts of the machine, what there is, keys of storages), then the storages, each
a count in eight bytes and its values. (torch/serialization.py of PyTorch 2.)
"""

import functools
import math
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from jaxgen.interop import pickles
from jaxgen.interop.pickles import Stub, Unreadable, guarded, is_count, nothing, plain
from jaxgen.interop.tensors import Tensor

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
  "Float": np.float32,
  "Double": np.float64,
  "Half": np.float16,
  "BFloat16": ml_dtypes.bfloat16,
  "Long": np.int64,
  "Int": np.int32,
  "Short": np.int16,
  "Char": np.int8,
  "Byte": np.uint8,
  "Bool": np.bool_,
  "ComplexFloat": np.complex64,
  "ComplexDouble": np.complex128,
}
DIMS = 32  # of a tensor, at most


class Storage(NamedTuple):
  """Values that tensors share: `numel` of them, from `start` on."""

  key: str
  dtype: np.dtype
  start: int
  numel: int


class View(NamedTuple):
  """A tensor, as a pickle describes it."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]  # in elements


class Place(NamedTuple):
  """Where a storage lies in its file, and its CRC-32 if the file tells."""

  offset: int
  size: int
  crc: int | None


def read(path: pathlib.Path) -> tuple[Any, dict[str, Place]]:
  """What a file holds: plain data with a View for each tensor; and storages.

  Raises:
    Unreadable: The file is damaged, or not made of plain data and tensors.
  """
  with path.open("rb") as f, guarded():
    if f.read(4) == b"PK\3\4":
      return read_zip(f)
    f.seek(0)
    return read_legacy(f)


def read_zip(f: BinaryIO) -> tuple[Any, dict[str, Place]]:
  """The format since PyTorch 1.6."""
  try:
    entries = zipfile.ZipFile(f).infolist()
  except (zipfile.BadZipFile, OSError) as e:
    raise Unreadable(f"is damaged or cut short: {plain(e)}") from e
  names = {e.filename for e in entries}
  indices = [n for n in names if n.endswith("/data.pkl") and n.count("/") == 1]
  if len(indices) != 1 or len(names) < len(entries):
    raise Unreadable("is a zip, but not one of PyTorch's")
  stem = indices[0].removesuffix("data.pkl")
  if stem + "constants.pkl" in names:
    raise Unreadable("is a TorchScript program: save its state_dict instead")
  places = {
    e.filename.removeprefix(stem): place(f, e) for e in entries if e.filename.startswith(stem)
  }
  if (order := places.get("byteorder")) and (order.size != 6 or contents(f, order) != b"little"):
    raise Unreadable("was written by a big-endian machine: save it elsewhere")
  f.seek(places["data.pkl"].offset)
  root = pickles.interpret(f, NAMES, storage)
  return root, {
    name.removeprefix("data/"): p for name, p in places.items() if name.startswith("data/")
  }


def place(f: BinaryIO, entry: zipfile.ZipInfo) -> Place:
  """Where the bytes of a zip's entry begin."""
  end = os.fstat(f.fileno()).st_size - entry.file_size
  stored = entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size
  if not stored or entry.flag_bits & 1:
    raise Unreadable(
      f"holds {plain(entry.filename)} compressed or encrypted, as PyTorch never does"
    )
  f.seek(min(max(entry.header_offset, 0), end))
  header = f.read(30)
  if len(header) < 30 or header[:4] != b"PK\3\4":
    raise Unreadable(f"is damaged: {plain(entry.filename)} is not where it should be")
  offset = f.tell() + sum(struct.unpack("<HH", header[26:]))
  if offset > end:
    raise Unreadable(f"is cut short: {plain(entry.filename)} ends after it")
  return Place(offset, entry.file_size, entry.CRC or None)  # 0: not computed


def read_legacy(f: BinaryIO, budget: pickles.Budget | None = None) -> tuple[Any, dict[str, Place]]:
  """The format before PyTorch 1.6."""
  storages = {}
  next_value = functools.partial(pickles.interpret, f, budget=budget or pickles.Budget())

  def root_storage(identity):
    if type(identity) is not tuple or len(identity) != 6:
      raise ValueError("persistent id of no storage")
    view, parent = identity[-1], storage(identity[:-1])
    if storages.setdefault(parent.key, parent) != parent:
      raise ValueError(f"storage {plain(parent.key)} of two kinds")
    if view is None:
      return parent
    if type(view) is not tuple or len(view) != 3 or not all(map(is_count, view[1:])):
      raise ValueError("view of strange shape")
    _, start, numel = view
    if start + numel > parent.numel:
      raise ValueError(f"view beyond storage {plain(parent.key)}")
    return parent._replace(start=start, numel=numel)

  if next_value({}, storage) != MAGIC or next_value({}, storage) != 1001:
    raise Unreadable("is a pickle, but not one of PyTorch's")
  machine = next_value({}, storage)
  if type(machine) is not dict or machine.get("little_endian") is not True:
    raise Unreadable("was written by a big-endian machine: save it elsewhere")
  root, keys = next_value(NAMES, root_storage), next_value({}, storage)
  places, at = {}, f.tell()
  size = f.seek(0, os.SEEK_END)
  f.seek(at)
  for key in keys if type(keys) is list else ():
    one, count = storages.get(key) if type(key) is str else None, f.read(8)
    if one is None or count != struct.pack("<q", one.numel):
      raise Unreadable("is damaged: one of its storages is another size")
    places[key] = Place(f.tell(), one.numel * one.dtype.itemsize, None)
    if sum(places[key][:2]) > size:
      raise Unreadable(f"is cut short: it ends within storage {plain(key)}")
    f.seek(places[key].size, os.SEEK_CUR)
  return root, places


def storage(identity: Any) -> Storage:
  """The storage of a persistent id."""
  if type(identity) is not tuple or len(identity) != 5:
    raise ValueError("persistent id of no storage")
  word, kind, key, _, numel = identity
  if word != "storage" or type(kind) is not Stub or type(key) is not str or not is_count(numel):
    raise ValueError("persistent id of no storage")
  return Storage(key, np.dtype(STORAGES[kind.name]), 0, numel)


def view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> View:
  """In the place of torch._utils._rebuild_tensor: a tensor within a storage."""
  if not (
    isinstance(storage, Storage)
    and type(shape) is type(strides) is tuple
    and len(shape) == len(strides) <= DIMS
    and all(map(is_count, (offset, *shape, *strides)))
  ):
    raise ValueError("tensor of strange shape")
  count = math.prod(shape)
  last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
  if count > storage.numel or (count and last >= storage.numel):
    raise ValueError(f"tensor beyond its storage: {list(shape)} of {storage.numel}")
  return View(storage, offset, shape, strides)


def size(dims: Any = ()) -> tuple:
  """In the place of torch.Size."""
  if type(dims) not in (list, tuple) or len(dims) > DIMS:
    raise ValueError("size of strange shape")
  return tuple(dims)


def ordered(items: Any = ()) -> pickles.Ordered:
  """In the place of OrderedDict; Python 2 gave it a list of pairs."""
  if not isinstance(items, dict):
    for pair in items if type(items) in (list, tuple) else (items,):
      if type(pair) not in (list, tuple) or len(pair) != 2:
        raise TypeError(f"{type(pair).__name__} as a pair")
      pickles.check_key(pair[0])
  return pickles.Ordered(items)


def parameter(data: View, *_: Any) -> View:
  """In the place of torch._utils._rebuild_parameter."""
  if not isinstance(data, View):
    raise TypeError("parameter of no tensor")
  return data


NAMES = {
  "collections.OrderedDict": Stub("OrderedDict", ordered),
  "argparse.Namespace": Stub("Namespace", lambda: pickles.Namespace()),
  "torch._utils._rebuild_tensor": Stub("tensor", view),
  "torch._utils._rebuild_tensor_v2": Stub("tensor", view),
  "torch._utils._rebuild_parameter": Stub("parameter", parameter),
  # Beside the tensors of PyTorch Lightning: whose state a dict is, best scores.
  "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": Stub("ModelCheckpoint", None),
  "numpy.dtype": Stub("dtype", nothing),
  "_codecs.encode": Stub("encode", nothing),
  **{f"numpy.{core}.multiarray.scalar": Stub("scalar", nothing) for core in ("core", "_core")},
  "torch.Size": Stub("Size", size),
  "torch.device": Stub("device", lambda *words: words),
  **{f"{m}.{name}Storage": Stub(name, None) for name in STORAGES for m in ("torch", "torch.cuda")},
  **{f"torch.{np.dtype(t)}": Stub(str(np.dtype(t)), None) for t in STORAGES.values()},
}


def tensors(
  path: pathlib.Path, views: Mapping[str, View], places: Mapping[str, Place]
) -> dict[str, Tensor]:
  """Tensors that can be read, one storage in memory at a time."""

  @functools.lru_cache(1)
  def stored(key):
    with path.open("rb") as f:
      return contents(f, places[key])

  def values(view):
    item = view.storage.dtype.itemsize
    if 0 in view.shape:
      return np.zeros(view.shape, view.storage.dtype)
    return np.ndarray(
      view.shape,
      view.storage.dtype,
      stored(view.storage.key),
      (view.storage.start + view.offset) * item,
      [s * item for s in view.strides],
    )

  for name, v in views.items():
    p, item = places.get(v.storage.key), v.storage.dtype.itemsize
    if p is None or p.size < (v.storage.start + v.storage.numel) * item:
      raise Unreadable(f"is damaged: it lacks the values of {plain(name)}")
  return {
    name: Tensor(v.shape, v.storage.dtype, functools.partial(values, v))
    for name, v in views.items()
  }


def contents(f: BinaryIO, place: Place) -> bytes:
  """The bytes of a storage, if they are what was written."""
  f.seek(place.offset)
  data = f.read(place.size)
  if len(data) < place.size:
    raise Unreadable("is cut short")
  if place.crc is not None and zlib.crc32(data) != place.crc:
    raise Unreadable(
      f"is damaged: its bytes from {place.offset} on are not those that were written"
    )
  return data
