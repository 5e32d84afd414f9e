"""The published weights that metrics look through: found, checked, read.

Files are only ever read as tensors: nothing in them is run. Inception as
TensorFlow published it is a frozen graph, read without TensorFlow: a GraphDef is
a protocol buffer, that is, numbered fields one after another, and of it we want
those of graph.proto, node_def.proto, attr_value.proto and tensor.proto that lead
to constants of float32.
"""

import math
import os
import pathlib
import shutil
import tarfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxgen.errors import UserError
from jaxgen.files import atomic, cache
from jaxgen.interop import tensor_files
from jaxgen.nets import dinov2 as dino
from jaxgen.nets import inception as incept

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
FLOAT = 1  # DT_FLOAT
DIMS = 8  # of a constant, at most
LARGEST_CONSTANT = 1 << 22  # values that are all alike, likewise
NODES = 1 << 16  # of a graph; Inception has about a thousand

BLOCKS = {
  "mixed": "A 5b",
  "mixed_1": "A 5c",
  "mixed_2": "A 5d",
  "mixed_3": "B 6a",
  "mixed_4": "C 6b",
  "mixed_5": "C 6c",
  "mixed_6": "C 6d",
  "mixed_7": "C 6e",
  "mixed_8": "D 7a",
  "mixed_9": "E 7b",
  "mixed_10": "E 7c",
}
BRANCHES = {  # of each kind of block: TensorFlow's towers, convs in order
  "A": {
    "": "1x1",
    "tower": "5x5_1 5x5_2",
    "tower_1": "3x3dbl_1 3x3dbl_2 3x3dbl_3",
    "tower_2": "_pool",
  },
  "B": {"": "3x3", "tower": "3x3dbl_1 3x3dbl_2 3x3dbl_3"},
  "C": {
    "": "1x1",
    "tower": "7x7_1 7x7_2 7x7_3",
    "tower_2": "_pool",
    "tower_1": "7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5",
  },
  "D": {"tower": "3x3_1 3x3_2", "tower_1": "7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4"},
  "E": {
    "": "1x1",
    "tower": "3x3_1",
    "tower/mixed": "3x3_2a 3x3_2b",
    "tower_1": "3x3dbl_1 3x3dbl_2",
    "tower_1/mixed": "3x3dbl_3a 3x3dbl_3b",
    "tower_2": "_pool",
  },
}
STEM = "1a_3x3 2a_3x3 2b_3x3 3b_1x1 4a_3x3"


def constants(graph: bytes) -> dict[str, np.ndarray]:
  """A serialised GraphDef -> its float32 constants by name.

  Raises:
    ValueError: It is damaged, or something else.
  """
  found = {}
  for i, node in enumerate(every(memoryview(graph), 1)):  # GraphDef.node
    if i >= NODES:
      raise ValueError("it has more nodes than any Inception")
    if b"".join(every(node, 2)) == b"Const":
      for attribute in every(node, 5):  # NodeDef.attr, a map
        if b"".join(every(attribute, 1)) == b"value":
          for value in every(attribute, 2):
            for data in every(value, 8):  # AttrValue.tensor
              array = tensor(data)
              if array is not None:
                found[b"".join(every(node, 1)).decode("utf-8")] = array
  return found


def tensor(data: memoryview) -> np.ndarray | None:
  """A TensorProto of float32; None for other types."""
  dtype = [v for n, v in fields(data) if n == 1]
  if dtype != [FLOAT]:
    return None
  shape = []
  for dim in (d for s in every(data, 2) for d in every(s, 2)):
    shape.append(dict(fields(dim)).get(1, 0))  # TensorShapeProto.dim.size
  if len(shape) > DIMS or any(not isinstance(n, int) or n > 1 << 40 for n in shape):
    raise ValueError("a constant has a strange shape")
  # As bytes; or as numbers, all in one field or each in its own.
  values = np.frombuffer(b"".join(every(data, 4)) or b"".join(every(data, 5)), "<f4")
  count = math.prod(shape)
  if len(values) == 1 and 1 < count <= LARGEST_CONSTANT:
    values = np.broadcast_to(values, count)  # all alike are stored once
  if len(values) != count:
    raise ValueError("a constant has another size than its shape")
  return values.reshape(shape)


def every(data: memoryview, number: int) -> Iterator[memoryview]:
  """The fields of a message that have a number and hold bytes."""
  for n, value in fields(data):
    if n == number:
      if isinstance(value, int):
        raise ValueError("there is a number in the place of bytes")
      yield value


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
  """The fields of a message: numbers, and values as integers or bytes."""
  at = 0
  while at < len(data):
    key, at = varint(data, at)
    number, kind = key >> 3, key & 7
    if kind == VARINT:
      value, at = varint(data, at)
    else:
      if kind == BYTES:
        size, at = varint(data, at)
      elif kind in (FIXED32, FIXED64):
        size = 4 if kind == FIXED32 else 8
      else:
        raise ValueError(f"no such wire type: {kind}")
      if size > len(data) - at:
        raise ValueError("it is cut short")
      value, at = data[at : at + size], at + size
    yield number, value


def varint(data: memoryview, at: int) -> tuple[int, int]:
  """An integer of 7 bits per byte, and where it ends."""
  value = 0
  for shift in range(0, 70, 7):
    if at >= len(data):
      raise ValueError("it is cut short")
    value |= (data[at] & 127) << shift
    at += 1
    if data[at - 1] < 128:
      return value, at
  raise ValueError("an integer is too long")


def scopes() -> dict[str, str]:
  """TensorFlow's scope of each convolution -> pytorch-fid's module."""

  def numbered(prefix, names, scope):
    for i, name in enumerate(names.split()):
      yield "/".join(filter(None, (scope, f"conv_{i}" if i else "conv"))), (prefix + name)

  found = dict(numbered("Conv2d_", STEM, ""))
  for block, (kind, name) in ((k, v.split()) for k, v in BLOCKS.items()):
    for tower, names in BRANCHES[kind].items():
      scope = "/".join(filter(None, (block, tower)))
      found |= numbered(f"Mixed_{name}.branch", names, scope)
  return found


def frozen_inception(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """TensorFlow's constants -> tensors by PyTorch's names, in its layout."""
  result = {}
  norm = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
  }
  for scope, module in scopes().items():
    kernel = found.get(f"{scope}/conv2d_params")
    if kernel is not None and kernel.ndim == 4:
      result[f"{module}.conv.weight"] = kernel.transpose(3, 2, 0, 1)
    for theirs, ours in norm.items():
      if f"{scope}/batchnorm/{theirs}" in found:
        result[f"{module}.bn.{ours}"] = found[f"{scope}/batchnorm/{theirs}"]
  if "softmax/weights" in found:
    result["fc.weight"] = found["softmax/weights"].T
  if "softmax/biases" in found:
    result["fc.bias"] = found["softmax/biases"]
  return result


GRAPH = "classify_image_graph_def.pb"  # as TensorFlow publishes Inception
LARGEST = 1 << 27  # bytes of a graph
ENTRIES = 100  # of the archive that it lies in


class Published(NamedTuple):
  """A file of weights that the world agrees on.

  Attributes:
    what: For messages.
    name: Of the file in caches.
    url: Where it is.
    sha256: Of its contents.
    variable: Of the environment, naming a file to take instead.
    flag: Likewise, of the command line.
    others: By which it lies in PyTorch's cache.
  """

  what: str
  name: str
  url: str
  sha256: str
  variable: str
  flag: str
  others: tuple[str, ...] = ()


INCEPTION = Published(
  "Inception's weights",
  "pt_inception-2015-12-05-6726825d.pth",
  "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
  "pt_inception-2015-12-05-6726825d.pth",
  "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
  "JAXGEN_INCEPTION",
  "--inception",
  ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
)  # torch-fidelity's
DINOV2 = Published(
  "DINOv2's weights",
  "dinov2_vitl14_pretrain.pth",
  "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
  "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
  "JAXGEN_DINOV2",
  "--dinov2",
  ("dinov2_vitl14_pretrain.pth",),
)


class Weights(NamedTuple):
  """What a network is applied with, and where it is from.

  Attributes:
    params: A pytree of float32 arrays.
    sha256: Of the file.
    file: Its name.
    published: Whether it is the file that the world agrees on.
  """

  params: dict[str, Any]
  sha256: str
  file: str
  published: bool


def inception(name: str | os.PathLike | None = None) -> Weights:
  """FID's Inception, of a file or of wherever its weights are found.

  Args:
    name: A .pth of pytorch-fid or torch-fidelity; or TensorFlow's frozen
      graph, inception-2015-12-05.tgz or the .pb in it.

  Raises:
    UserError: There is none, or it is no such file.
  """
  return load(INCEPTION, name, inception_tensors, incept.folded)


def dinov2(name: str | os.PathLike | None = None) -> Weights:
  """DINOv2's ViT-L/14, likewise; `name` is dinov2_vitl14_pretrain.pth."""
  return load(DINOV2, name, tensors, dino.converted)


def load(
  wanted: Published,
  name: str | os.PathLike | None,
  read: Callable[[pathlib.Path], Mapping[str, np.ndarray]],
  convert: Callable[[Mapping[str, np.ndarray]], dict],
) -> Weights:
  """Finds a file, reads its tensors by name and makes parameters of them."""
  path = pathlib.Path(name).expanduser() if name else find(wanted)
  if not path.is_file():
    raise UserError(f"there is no file {path}: wanted are {wanted.what}")
  found = read(path)
  try:
    params = convert(found)
  except KeyError as e:
    raise UserError(f"{path} does not hold {wanted.what}: there is no {e.args[0]}") from e
  except ValueError as e:
    raise UserError(f"{path} does not hold {wanted.what}: {e}") from e
  sha256 = tensor_files.sha256(path)
  return Weights(params, sha256, path.name, sha256 == wanted.sha256)


def find(wanted: Published) -> pathlib.Path:
  """Where the environment says; or in our cache, or PyTorch's; or the web."""
  if os.environ.get(wanted.variable):
    return pathlib.Path(os.environ[wanted.variable]).expanduser()
  torch = pathlib.Path(os.environ.get("TORCH_HOME") or cache().with_name("torch"))
  ours = cache() / "weights" / wanted.name
  for path in (ours, *(torch.expanduser() / "hub" / "checkpoints" / n for n in wanted.others)):
    if path.is_file():
      if tensor_files.sha256(path) != wanted.sha256:
        raise UserError(f"{path} is damaged or not {wanted.what}: remove it")
      return path
  download(wanted, ours)
  return ours


def download(wanted: Published, path: pathlib.Path) -> None:
  """Fetches a file, whole and with the right checksum or not at all."""
  try:
    with atomic(path) as draft:
      with urllib.request.urlopen(wanted.url, timeout=30) as source, draft.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
      if tensor_files.sha256(draft) != wanted.sha256:
        raise OSError("what came has another checksum")
  except (OSError, ValueError) as e:
    reason = getattr(e, "reason", None) or e
    raise UserError(
      f"{wanted.what} cannot be downloaded ({reason}): fetch {wanted.url} "
      f"elsewhere and put it at {path}, or say {wanted.flag}=FILE"
    ) from e


def tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Of a file of PyTorch or safetensors."""
  return {name: t.read() for name, t in tensor_files.read(path).items()}


def inception_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Of either kind of file, under pytorch-fid's names, in PyTorch's layout.

  Raises:
    UserError: It cannot be read, or is torchvision's Inception.
  """
  with path.open("rb") as f:
    head = f.read(2)
  if head == b"\x1f\x8b" or path.suffix == ".pb":
    try:
      found = constants(graph(path))
    except (ValueError, OSError, EOFError, OverflowError, tarfile.TarError, zlib.error) as e:
      raise UserError(f"{path} is no frozen graph of Inception: {e}") from e
    return frozen_inception(found)
  found = tensors(path)
  if "fc.weight" in found and found["fc.weight"].shape[0] == 1000:
    raise UserError(
      f"{path} is torchvision's Inception, which gives other "
      f"numbers than FID's: fetch {INCEPTION.url}"
    )
  return found


def graph(path: pathlib.Path) -> bytes:
  """A frozen graph, that may lie in TensorFlow's archive."""
  if path.suffix == ".pb":
    with path.open("rb") as f:
      return f.read(LARGEST)
  with tarfile.open(path, "r:gz") as archive:
    for i, entry in enumerate(archive):
      if entry.size > LARGEST or i >= ENTRIES:
        raise ValueError("its archive holds more than TensorFlow's")
      if entry.isfile() and pathlib.PurePath(entry.name).name == GRAPH:
        return archive.extractfile(entry).read(LARGEST)
  raise ValueError(f"there is no {GRAPH} in it")
