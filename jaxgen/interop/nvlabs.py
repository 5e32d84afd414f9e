"""NVLabs' pickles of networks, read without the code that they carry.

StyleGAN2-ADA, StyleGAN3, EDM and EDM2 save whole modules, with the source of their
classes beside (torch_utils/persistence.py); whoever unpickles them runs that.
Here the source is a string like any other. Of a module we take the tensors, by
the names that its state_dict would give them. The values stand within the
pickle, each as a file of PyTorch of old; they stay in the file until wanted.
"""

import io
import pathlib
from typing import Any, BinaryIO, NamedTuple

from jaxgen.interop import pickles, torchfile
from jaxgen.interop.pickles import Stub, Unreadable, guarded, nothing
from jaxgen.interop.torchfile import MAGIC, Place, Storage, View

LARGE = 1 << 20  # bytes that are not read at once
WORD = 64  # bytes that cannot be a file
MOST, LONGEST_NAME = 100_000, 500  # tensors of a module, letters of a name


class Module(dict, pickles.Buildable):
  """A torch.nn.Module, as its tensors and those of all below it, by name."""

  state = dict

  def build(self, state: dict) -> None:
    for kind in ("_parameters", "_buffers"):
      self.take({str(k): v for k, v in branch(state, kind).items() if isinstance(v, View)})
    for name, child in branch(state, "_modules").items():
      if isinstance(child, Module):
        self.take({f"{name}.{k}": v for k, v in child.items()})

  def take(self, tensors: dict[str, View]) -> None:
    """Adds some, but no more than any network has."""
    self.update(tensors)
    if len(self) > MOST or any(len(k) > LONGEST_NAME for k in tensors):
      raise Unreadable("holds a larger module than any network is")


class Bytes(bytes):
  """Bytes that know where in the file they begin."""

  offset = 0


class Stretch(NamedTuple):
  """In the place of many bytes: where they are."""

  offset: int
  length: int

  def __len__(self) -> int:
    return self.length


class Stream(pickles.Bounded):
  """A stream that does not read what is large."""

  longest = 1 << 28

  def __init__(self, stream: BinaryIO):
    super().__init__(stream)
    at = stream.tell()
    self.size = stream.seek(0, io.SEEK_END)
    stream.seek(at)

  def read(self, n: int) -> Any:
    """Bytes, or where they are."""
    at = self.tell()
    if n < LARGE:
      data = super().read(n)
      if n > WORD:
        data = Bytes(data)
        data.offset = at
      return data
    if at + n > self.size:
      raise EOFError("it ends too early")
    self.stream.seek(n, io.SEEK_CUR)
    return Stretch(at, n)


class Part(io.RawIOBase):
  """A file that is part of another."""

  def __init__(self, f: BinaryIO, offset: int, size: int):
    self.f, self.offset, self.size, self.at = f, offset, size, 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
    return self.at

  def tell(self) -> int:
    return self.at

  def readinto(self, buffer: memoryview) -> int:
    self.f.seek(self.offset + self.at)
    data = self.f.read(max(min(len(buffer), self.size - self.at), 0))
    buffer[: len(data)] = data
    self.at += len(data)
    return len(data)


def read(path: pathlib.Path) -> tuple[Any, dict[str, Place]]:
  """Like torchfile.read: what a pickle holds, with a View for each tensor.

  Raises:
    Unreadable: It is damaged, or not made of plain data, tensors and modules.
  """
  places, loads, budget = {}, {}, pickles.Budget()
  with path.open("rb") as f, guarded():

    def load(data: Any) -> Storage:
      if not isinstance(data, Bytes | Stretch):
        raise TypeError("storage of no bytes")
      if data.offset in loads:
        return loads[data.offset]
      at = f.tell()
      part = io.BufferedReader(Part(f, data.offset, len(data)))
      storage, inner = torchfile.read_legacy(part, budget)
      f.seek(at)
      if not isinstance(storage, Storage) or storage.key not in inner:
        raise ValueError("storage without its values")
      place, key = inner[storage.key], f"{data.offset}/{storage.key}"
      places[key] = place._replace(offset=place.offset + data.offset)
      return loads.setdefault(data.offset, storage._replace(key=key))

    names = NAMES | {"torch.storage._load_from_bytes": Stub("storage", load)}
    root = pickles.interpret(f, names, outside, Stream, budget)
    if type(root) is not int or root != MAGIC:
      return root, places
  return torchfile.read(path)


def outside(identity: Any) -> Any:
  """There is nothing outside of these pickles."""
  raise ValueError("persistent id in a pickle by itself")


def reconstruct(meta: Any) -> Module:
  """In the place of _reconstruct_persistent_obj: its state, not its source."""
  if not isinstance(meta, dict):
    raise TypeError(f"module of {type(meta).__name__}")
  module = Module()
  module.build(branch(meta, "state"))
  return module


def branch(tree: dict, name: str) -> dict:
  """The dict of that name; {} if there is none."""
  value = tree.get(name)
  return value if isinstance(value, dict) else {}


NAMES = torchfile.NAMES | {
  "torch_utils.persistence._reconstruct_persistent_obj": Stub("module", reconstruct),
  **{
    f"torch.nn.modules.container.{name}": Stub(name, lambda: Module())
    for name in ("ModuleDict", "ModuleList", "Sequential")
  },
  # Beside Diffusion-GAN's nets: its diffusion, with what it augments by.
  "training.diffusion.Identity": Stub("Identity", lambda: Module()),
  "training.diffaug.DiffAugment": Stub("DiffAugment", lambda: Module()),
  "dnnlib.util.EasyDict": Stub("EasyDict", torchfile.ordered),
  # Arrays of what is no network, such as the scales of EDM2's encoder.
  "numpy.ndarray": Stub("ndarray", None),
  **{f"numpy.{core}.multiarray._reconstruct": Stub("array", nothing) for core in ("core", "_core")},
  **{f"{module}.set": Stub("set", nothing) for module in ("builtins", "__builtin__")},
}
