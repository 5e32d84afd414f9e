"""Files of tensors by name, PyTorch's and safetensors, without their code."""
import collections
import functools
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes  # noqa: F401  (numpy then knows bfloat16)
import numpy as np
import safetensors
import safetensors.numpy

from jaxgen.errors import UserError
from jaxgen.interop import nvlabs, torchfile, torchwrite
from jaxgen.interop.pickles import Unreadable, guarded, plain
from jaxgen.interop.tensors import Tensor

DEEPEST, MOST = 16, 1_000_000  # containers within each other; things in all
LETTERS = 1 << 25  # of the names of sets, in all
PREFIXES = ("module.", "_orig_mod.")  # of data-parallel, of compiled modules
SUFFIXES = {".pt": "torch", ".pth": "torch", ".bin": "torch",
            ".safetensors": "safetensors"}
TYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bfloat16",
         "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U8": "u1",
         "BOOL": "?"}
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
  try:
    with path.open("rb") as f:
      head = f.read(300)
    if is_safetensors(head):
      return {"": without_prefix(from_safetensors(path))}
    for begin, why in STRANGERS.items():
      if head.lstrip().startswith(begin):
        raise Unreadable(why)
    if not head.startswith((b"PK\3\4", b"\x80")):
      tar = head[257:262] == b"ustar"
      raise Unreadable("is a tar file: load it with PyTorch and save it anew"
                       if tar else "is empty" if not head else
                       "is no file of PyTorch or safetensors")
    alone = path.suffix == ".pkl" and head.startswith(b"\x80")
    form = nvlabs if alone else torchfile
    root, places = form.read(path)
    with guarded():
      found = {k: torchfile.tensors(path, views, places)
               for k, views in groups(root).items()}
  except Unreadable as e:
    raise UserError(f"{path} {e}") from e
  return {at: without_prefix({
      k: t._replace(read=functools.partial(tell, path, t))
      for k, t in one.items()}) for at, one in found.items()}


def tell(path: pathlib.Path, tensor: Tensor) -> np.ndarray:
  """Its values; UserError if they are damaged."""
  try:
    with guarded():
      return tensor.read()
  except Unreadable as e:
    raise UserError(f"{path} {e}") from e


def groups(root: Any) -> dict[str, dict[str, torchfile.View]]:
  """All sets of tensors in plain data, by where they are: "", "ema", ..."""
  found, todo, met, letters = {}, collections.deque(), 0, 0
  if isinstance(root, dict | list | tuple):
    todo.append(((), root))
  while todo:
    path, node = todo.popleft()
    if len(path) > DEEPEST:
      raise Unreadable("nests deeper than any checkpoint does")
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for k, v in items:
      met += 1
      if met > MOST:
        raise Unreadable(f"holds more than {MOST} things")
      if isinstance(v, torchfile.View):
        at = "/".join(path)
        if at not in found:
          letters += len(at)
          if letters > LETTERS:
            raise Unreadable("holds more sets of tensors than any checkpoint")
        found.setdefault(at, {})[str(k)] = v
      elif type(v) in (tuple, list) or isinstance(v, dict):
        todo.append(((*path, str(k)), v))
  return found


def select(path: pathlib.Path, found: Mapping[str, Any], key: str | None
           ) -> Any:
  """The set that was asked for, or that it must be."""
  if not found:
    raise UserError(f"{path} holds no tensors by name: save a state_dict")
  if key is not None:
    if key.strip("./") not in found:
      raise UserError(f"{path} holds no tensors under --key={key}; "
                      + there_are(found))
    return found[key.strip("./")]
  # What an optimiser holds for each tensor is many sets, but all small.
  large = max(map(len, found.values()))
  chosen = [k for k in found if 2 * len(found[k]) > large]
  if len(chosen) > 1:
    raise UserError(f"{path} holds several sets of tensors: choose one with "
                    f"--key; {there_are({k: found[k] for k in chosen})}")
  return found[chosen[0]]


def there_are(found: Mapping[str, Any]) -> str:
  """The largest sets by name."""
  order = sorted(found, key=lambda k: -len(found[k]))[:8]
  return "there are " + ", ".join(
      f"{plain(k) or '.'} ({len(found[k])} tensors)" for k in order)


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
  """The tensors of a .safetensors."""
  def values(name):
    with safetensors.safe_open(path, "np") as f:
      return f.get_tensor(name)

  try:
    with safetensors.safe_open(path, "np") as f:
      parts = {k: f.get_slice(k) for k in f.keys()}  # noqa: SIM118
      for name, part in parts.items():
        if part.get_dtype() not in TYPES:
          raise Unreadable(f"holds {plain(name)} as {part.get_dtype()}, which "
                           "is not read")
      return {k: Tensor(tuple(p.get_shape()), np.dtype(TYPES[p.get_dtype()]),
                        functools.partial(values, k))
              for k, p in parts.items()}
  except safetensors.SafetensorError as e:
    raise Unreadable(f"is damaged: {plain(e)}") from e


def write(name: str | os.PathLike, tensors: Mapping[str, Any]) -> None:
  """Writes tensors by name, all or nothing: PyTorch's zip, or safetensors.

  PyTorch's may hold several sets, {"g_ema": {"conv1.weight": ..}}.

  Raises:
    UserError: For another ending of the name.
  """
  path = pathlib.Path(name)
  kind = kind_of(path)
  if kind != "torch" and any(isinstance(t, Mapping) for t in tensors.values()):
    raise UserError(f"{path}: these are several sets of tensors, for which "
                    "there is PyTorch's format alone: want x.pt")
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=path.parent, prefix=".jaxgen-") as tmp:
    draft = pathlib.Path(tmp) / "draft"
    if kind == "torch":
      torchwrite.write(draft, tensors)
    else:
      safetensors.numpy.save_file(
          {k: np.asarray(t.read(), order="C") for k, t in tensors.items()},
          draft, metadata={"format": "pt"})  # what transformers asks for
      (pathlib.Path(tmp) / "usual").touch()
      shutil.copymode(pathlib.Path(tmp) / "usual", draft)  # it makes it private
    draft.replace(path)


def kind_of(path: pathlib.Path) -> str:
  """"torch" or "safetensors", by how the name ends; UserError otherwise."""
  kind = SUFFIXES.get(pathlib.Path(path).suffix)
  if kind is None:
    raise UserError(f"{path}: want a name that ends in "
                    + ", ".join(sorted(SUFFIXES)))
  return kind


def sha256(name: str | os.PathLike) -> str:
  """Of a file's contents."""
  with open(name, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()
