"""Writes the zip of a state_dict that torch.load(weights_only=True) reads."""

import pathlib
import struct
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxgen.interop.tensors import Tensor
from jaxgen.interop.torchfile import STORAGES

ALIGNED = 64  # bytes, so that values can be mapped into memory


def write(path: pathlib.Path, tensors: Mapping[str, Any]) -> None:
  """A state_dict, or a dict of such; one tensor in memory at a time.

  Equal input, equal bytes.
  """
  order = []
  with zipfile.ZipFile(path, "w") as f:
    entry(f, "data.pkl", b"\x80\2" + index(tensors, order) + b".")
    entry(f, "byteorder", b"little")
    for i, tensor in enumerate(order):
      values = np.ascontiguousarray(tensor.read())
      entry(f, f"data/{i}", values.reshape(-1).view(np.uint8))
    entry(f, "version", b"3\n")


def entry(f: zipfile.ZipFile, name: str, data: bytes | np.ndarray) -> None:
  """Adds an entry, uncompressed and aligned."""
  info = zipfile.ZipInfo(f"archive/{name}")  # of 1980
  info.file_size = len(data)
  begin = f.fp.tell() + 30 + len(info.filename) + 4
  gap = -begin % ALIGNED
  info.extra = b"FB" + struct.pack("<H", gap) + bytes(gap)
  with f.open(info, "w", force_zip64=False) as out:
    out.write(data)


def index(tensors: Mapping[str, Any], order: list[Tensor]) -> bytes:
  """The pickle (protocol 2) of an OrderedDict of tensors in C order.

  `order` gets the tensors in the order of their storages.
  """
  items = b""
  for name, t in tensors.items():
    items += text(name)
    if isinstance(t, Mapping):
      items += index(t, order)
    else:
      items += rebuilt(str(len(order)), t.shape, t.dtype)
      order.append(t)
  return ORDERED + b"(" + items + b"u"


def rebuilt(key: str, shape: tuple[int, ...], dtype: np.dtype) -> bytes:
  """One tensor that is all of its storage."""
  (kind,) = (k for k, v in STORAGES.items() if np.dtype(v) == dtype)
  numel = int(np.prod(shape, dtype=np.int64))
  strides = [int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape))]
  storage = text("storage"), name("torch", f"{kind}Storage"), text(key), text("cpu"), number(numel)
  identity = b"(" + b"".join(storage) + b"tQ"
  # requires_grad=False, no hooks
  arguments = identity, number(0), numbers(shape), numbers(strides), b"\x89", ORDERED
  return name("torch._utils", "_rebuild_tensor_v2") + b"(" + b"".join(arguments) + b"tR"


def name(module: str, thing: str) -> bytes:
  """GLOBAL."""
  return f"c{module}\n{thing}\n".encode()


def text(words: str) -> bytes:
  """BINUNICODE."""
  data = words.encode()
  return b"X" + struct.pack("<I", len(data)) + data


def number(n: int) -> bytes:
  """BININT, or LONG1 for what is longer."""
  if n < 1 << 31:
    return b"J" + struct.pack("<i", n)
  return b"\x8a\x08" + struct.pack("<q", n)


def numbers(n: Iterable[int]) -> bytes:
  """A tuple of numbers."""
  return b"(" + b"".join(map(number, n)) + b"t"


ORDERED = name("collections", "OrderedDict") + b")R"
