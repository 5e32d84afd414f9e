"""Files of tensors by name, PyTorch's and safetensors, without their code."""

import collections
import contextlib
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes  # noqa: F401  (numpy then knows bfloat16)
import numpy as np
import safetensors.numpy

from jaxgen import files
from jaxgen.errors import UserError
from jaxgen.interop import nvlabs, torchfile, torchwrite
from jaxgen.interop.pickles import LONGEST, Unreadable, guarded, is_count, plain
from jaxgen.interop.tensors import Tensor

DEEPEST, MOST = 16, 1_000_000  # containers within each other; things in all
LETTERS = 1 << 25  # of the names of sets, in all
PREFIXES = ("module.", "_orig_mod.")  # of data-parallel, of compiled modules
SUFFIXES = dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), "torch") | {
  ".safetensors": "safetensors"
}
TYPES = {
  "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bfloat16", "I64": "i8",
  "I32": "i4", "I16": "i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
STRANGERS = {  # how files begin that people take for checkpoints
  b"version https://git-lfs": "points to a file in git-lfs: fetch that one",
  b"<": "is a web page: the download went wrong",
  b"\x89HDF": "is HDF5, which is not read",
  b"\x1f\x8b": "is compressed: unpack it first",
}


def read(name: str | os.PathLike, key: str | None = None) -> dict[str, Tensor]:
  """The tensors of a file by name; their values are not read yet.

  Reading values checks what checksums there are. A prefix that data-parallel
  training gave to all names is taken off.

  Args:
    name: Of a .pt, .pth, .bin or .ckpt of PyTorch, a .safetensors, or a .pkl
      of NVLabs.
    key: Where a file holds several sets of tensors, such as a model and its
      average: "ema", or "state/ema" for what lies deeper.

  Raises:
    UserError: It cannot be read, is not made of plain data and tensors, or
      holds several sets and `key` names none of them.
  """
  path = pathlib.Path(name)
  return select(path, sets(path), key)


def sets(name: str | os.PathLike) -> dict[str, dict[str, Tensor]]:
  """All sets of tensors of a file, by where they are: "", "ema", ...

  UserError if it cannot be read, or is not made of plain data and tensors.
  """
  path = pathlib.Path(name)
  if not path.is_file():
    raise UserError(f"there is no file {path}")
  with about(path):
    with path.open("rb") as f:
      head = f.read(300)
    if is_safetensors(head):
      tensor_sets = {"": from_safetensors(path)}
    else:
      check_head(head)
      alone = path.suffix == ".pkl" and head.startswith(b"\x80")
      root, places = (nvlabs if alone else torchfile).read(path)
      tensor_sets = {k: torchfile.tensors(path, views, places) for k, views in groups(root).items()}

  def checked(tensor: Tensor) -> Tensor:
    def read():
      with about(path):
        return tensor.read()

    return tensor._replace(read=read)

  return {
    at: without_prefix({k: checked(t) for k, t in tensors.items()})
    for at, tensors in tensor_sets.items()
  }


def facts(name: str | os.PathLike, key: str) -> dict[str, Any]:
  """What a file of PyTorch's says under a key beside its tensors; {} if nothing."""
  path = pathlib.Path(name)
  with about(path):
    with path.open("rb") as f:
      head = f.read(300)
    if is_safetensors(head):
      return {}
    check_head(head)
    root, _ = torchfile.read(path)
  value = root.get(key) if isinstance(root, dict) else None
  return dict(value) if isinstance(value, dict) else {}


@contextlib.contextmanager
def about(path: pathlib.Path) -> Iterator[None]:
  """Within, what is damaged is a UserError about the file."""
  try:
    with guarded():
      yield
  except Unreadable as e:
    raise UserError(f"{path} {e}") from e


def check_head(head: bytes) -> None:
  """Unreadable unless it is how a file of PyTorch begins."""
  for begin, why in STRANGERS.items():
    if head.lstrip().startswith(begin):
      raise Unreadable(why)
  if not head:
    raise Unreadable("is empty")
  if head[257:262] == b"ustar":
    raise Unreadable("is a tar file: load it with PyTorch and save it anew")
  if not head.startswith((b"PK\3\4", b"\x80")):
    raise Unreadable("is no file of PyTorch or safetensors")


def groups(root: Any) -> dict[str, dict[str, torchfile.View]]:
  """All sets of tensors in plain data, by where they are: "", "ema", ..."""
  views, queue, things, letters = {}, collections.deque(), 0, 0
  if isinstance(root, dict | list | tuple):
    queue.append(((), root))
  while queue:
    path, node = queue.popleft()
    if len(path) > DEEPEST:
      raise Unreadable("nests deeper than any checkpoint does")
    for k, v in node.items() if isinstance(node, dict) else enumerate(node):
      things += 1
      if things > MOST:
        raise Unreadable(f"holds more than {MOST} things")
      if isinstance(v, torchfile.View):
        at = "/".join(path)
        letters += 0 if at in views else len(at)
        if letters > LETTERS:
          raise Unreadable("holds more sets of tensors than any checkpoint")
        views.setdefault(at, {})[str(k)] = v
      elif type(v) in (tuple, list) or isinstance(v, dict):
        queue.append(((*path, str(k)), v))
  return views


def select(path: pathlib.Path, tensor_sets: Mapping[str, Any], key: str | None) -> Any:
  """The set of that key; without one, the only one of size."""
  if not tensor_sets:
    raise UserError(f"{path} holds no tensors by name: save a state_dict")
  if key is not None:
    if key.strip("./") not in tensor_sets:
      raise UserError(f"{path} holds no tensors under --key={key}; {list_sets(tensor_sets)}")
    return tensor_sets[key.strip("./")]
  # What an optimiser holds for each tensor is many sets, but all small.
  most = max(map(len, tensor_sets.values()))
  large = {k: tensors for k, tensors in tensor_sets.items() if 2 * len(tensors) > most}
  if len(large) > 1:
    raise UserError(
      f"{path} holds several sets of tensors: choose one with --key; {list_sets(large)}"
    )
  return next(iter(large.values()))


def list_sets(tensor_sets: Mapping[str, Any]) -> str:
  """Names and sizes of the largest."""
  order = sorted(tensor_sets.items(), key=lambda item: -len(item[1]))[:8]
  return "there are " + ", ".join(f"{plain(k) or '.'} ({len(t)} tensors)" for k, t in order)


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
  """The same by shorter names, if all begin alike."""
  for prefix in PREFIXES:
    if tensors and all(name.startswith(prefix) for name in tensors):
      tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
  return tensors


def is_safetensors(head: bytes) -> bool:
  """Eight bytes of length, then JSON."""
  return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30


def from_safetensors(path: pathlib.Path) -> dict[str, Tensor]:
  """The tensors of a .safetensors: a length, an index in JSON, the values."""
  with path.open("rb") as f, guarded():
    length = int.from_bytes(f.read(8), "little")
    if length > LONGEST:
      raise Unreadable(f"has an index of more than {LONGEST >> 20} MB")
    index = json.loads(f.read(length).decode(), object_pairs_hook=unique)
    size = os.fstat(f.fileno()).st_size - 8 - length
    index.pop("__metadata__", None)
    at = 0
    for name, info in sorted(index.items(), key=lambda item: item[1]["data_offsets"]):
      start, end = info["data_offsets"]
      if start != at:
        raise ValueError(f"{plain(name)} begins elsewhere than it should")
      at = end
    if at != size:
      raise Unreadable(f"is damaged or cut short: it has {size} bytes of values, and says {at}")
    return {name: part(path, name, info, 8 + length) for name, info in index.items()}


def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
  """A dict; ValueError if a key comes twice."""
  if len(mapping := dict(items)) < len(items):
    raise ValueError("one name for two tensors")
  return mapping


def part(path: pathlib.Path, name: str, info: Any, begin: int) -> Tensor:
  """One tensor, by its entry of the index; values are from `begin` on."""
  shape, (start, end) = info["shape"], info["data_offsets"]
  if info["dtype"] not in TYPES:
    raise Unreadable(f"holds {plain(name)} as {plain(info['dtype'])}, which is not read")
  dtype = np.dtype(TYPES[info["dtype"]])
  if (
    type(shape) is not list
    or len(shape) > torchfile.DIMS
    or not all(map(is_count, (start, end, *shape)))
    or end - start != math.prod(shape) * dtype.itemsize
  ):
    raise ValueError(f"{plain(name)} is of strange shape")

  def values():
    with path.open("rb") as f:
      f.seek(begin + start)
      data = f.read(end - start)
    if len(data) < end - start:
      raise Unreadable("is cut short")
    return np.frombuffer(data, dtype).reshape(shape)

  return Tensor(tuple(shape), dtype, values)


def write(name: str | os.PathLike, tensors: Mapping[str, Any]) -> None:
  """Writes tensors by name, all or nothing: PyTorch's zip, or safetensors.

  PyTorch's may hold several sets, {"g_ema": {"conv1.weight": ..}}.

  Raises:
    UserError: For another ending of the name.
  """
  path = files.path(name)
  kind = kind_of(path)
  if kind != "torch" and any(isinstance(t, Mapping) for t in tensors.values()):
    raise UserError(
      f"{path}: these are several sets of tensors, for which "
      "there is PyTorch's format alone: want x.pt"
    )
  with files.atomic(path) as draft:
    if kind == "torch":
      torchwrite.write(draft, tensors)
    else:
      draft.touch()
      mode = draft.stat().st_mode
      values = {k: np.asarray(t.read(), order="C") for k, t in tensors.items()}
      # The format is what transformers asks for.
      safetensors.numpy.save_file(values, draft, metadata={"format": "pt"})
      draft.chmod(mode)  # it makes it private


def kind_of(path: pathlib.Path) -> str:
  """ "torch" or "safetensors", by how the name ends; UserError otherwise."""
  kind = SUFFIXES.get(pathlib.Path(path).suffix)
  if kind is None:
    raise UserError(f"{path}: want a name that ends in " + ", ".join(sorted(SUFFIXES)))
  return kind


def sha256(name: str | os.PathLike) -> str:
  """Hex digits of a file's contents."""
  with open(name, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()
