"""The published weights of InceptionV3, DINOv2 and VGGish: found, checked, read.

Files are only ever read as tensors: nothing in them is run. Inception as
TensorFlow published it is a frozen graph (a GraphDef, which is a protocol
buffer), of whose nodes we want the constants of float32.
"""

import math
import os
import pathlib
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from jaxgen import files
from jaxgen.errors import UserError
from jaxgen.interop import tensor_files
from jaxgen.nets import dinov2 as dino
from jaxgen.nets import inception as incept
from jaxgen.nets import vggish as vgg

if TYPE_CHECKING:
  from tensorboardX.proto.tensor_pb2 import TensorProto

VARINT, BYTES = 0, 2  # wire types
FLOAT = 1  # DT_FLOAT
DIMS = 8  # of a constant, at most
LARGEST_CONSTANT = 1 << 22  # values that are all alike, likewise
NODES = 1 << 16  # of a graph; Inception has about a thousand
LARGEST_NODE = 1 << 24  # bytes; Inception's have up to 8 million

# TensorFlow's mixed, mixed_1, .., mixed_10: their kind, and PyTorch's name.
BLOCKS = "A5b A5c A5d B6a C6b C6c C6d C6e D7a E7b E7c"
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

  Node by node, each of bounded size: a parsed message may take fifty times as
  much memory as its bytes.

  Raises:
    ValueError: It is damaged, or something else.
  """
  from tensorboardX.proto.node_def_pb2 import NodeDef  # here, for it brings boto3

  arrays = {}
  for i, data in enumerate(nodes(graph)):
    if i >= NODES or len(data) > LARGEST_NODE:
      raise ValueError("it has more nodes than any Inception, or larger ones")
    try:
      node = NodeDef.FromString(data)
    except DecodeError as e:
      raise ValueError("a node is damaged") from e
    if node.op == "Const" and node.attr["value"].tensor.dtype == FLOAT:
      arrays[node.name] = tensor(node.attr["value"].tensor)
  return arrays


def nodes(graph: bytes) -> Iterator[bytes]:
  """The serialised nodes of a GraphDef: its fields of number 1."""
  at = 0
  while at < len(graph):
    key, at = varint(graph, at)
    if key & 7 not in (VARINT, BYTES):
      raise ValueError(f"no such wire type: {key & 7}")
    value, at = varint(graph, at)
    if key & 7 == BYTES:
      if value > len(graph) - at:
        raise ValueError("it is cut short")
      if key >> 3 == 1:
        yield graph[at : at + value]
      at += value


def varint(data: bytes, at: int) -> tuple[int, int]:
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


def tensor(data: "TensorProto") -> np.ndarray:
  """A tensor of float32: stored as bytes, as numbers, or once if all are alike."""
  shape = [dim.size for dim in data.tensor_shape.dim]
  if len(shape) > DIMS or any(not 0 <= n <= 1 << 40 for n in shape):
    raise ValueError("a constant has a strange shape")
  values = np.frombuffer(data.tensor_content, "<f4")
  if not values.size:
    values = np.array(data.float_val, np.float32)
  count = math.prod(shape)
  if len(values) == 1 and 1 < count <= LARGEST_CONSTANT:
    values = np.broadcast_to(values, count)
  if len(values) != count:
    raise ValueError("a constant has another size than its shape")
  return values.reshape(shape)


def scopes() -> dict[str, str]:
  """TensorFlow's scope of each convolution -> pytorch-fid's module."""

  def numbered(prefix, names, scope):
    for i, name in enumerate(names.split()):
      yield "/".join(filter(None, (scope, f"conv_{i}" if i else "conv"))), (prefix + name)

  modules = dict(numbered("Conv2d_", STEM, ""))
  for i, block in enumerate(BLOCKS.split()):
    for tower, names in BRANCHES[block[0]].items():
      scope = "/".join(filter(None, (f"mixed_{i}" if i else "mixed", tower)))
      modules |= numbered(f"Mixed_{block[1:]}.branch", names, scope)
  return modules


def frozen_inception(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """TensorFlow's constants -> tensors by PyTorch's names, in its layout."""
  state = {}
  norm = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
  }
  for scope, module in scopes().items():
    kernel = arrays.get(f"{scope}/conv2d_params")
    if kernel is not None and kernel.ndim == 4:
      state[f"{module}.conv.weight"] = kernel.transpose(3, 2, 0, 1)
    for theirs, ours in norm.items():
      if f"{scope}/batchnorm/{theirs}" in arrays:
        state[f"{module}.bn.{ours}"] = arrays[f"{scope}/batchnorm/{theirs}"]
  for theirs, ours in (("softmax/weights", "fc.weight"), ("softmax/biases", "fc.bias")):
    if theirs in arrays:
      state[ours] = arrays[theirs].T
  return state


GRAPH = "classify_image_graph_def.pb"  # as TensorFlow publishes Inception
LARGEST = 1 << 27  # bytes of a graph
ENTRIES = 100  # of the archive that it lies in


class Published(NamedTuple):
  """A file of weights that the world agrees on.

  Attributes:
    what: For messages.
    name: Of the file in caches.
    url: Where it is.
    sha256: Of its contents, or how that begins.
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

VGGISH = Published(
  "VGGish's weights",
  "vggish-10086976.pth",
  "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
  "10086976",  # by its name, as PyTorch's hub has it
  "JAXGEN_VGGISH",
  "--weights",
  ("vggish-10086976.pth",),
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


def vggish(name: str | os.PathLike | None = None) -> Weights:
  """VGGish, likewise; `name` is torchvggish's vggish-10086976.pth.

  Raises:
    UserError: Also for TensorFlow's vggish_model.ckpt, which is a table of its own.
  """
  if name and pathlib.Path(name).suffix == ".ckpt":
    raise UserError(
      f"{name}: TensorFlow's checkpoint is not read; the same weights are at {VGGISH.url}"
    )
  return load(VGGISH, name, tensors, vgg.converted)


def load(
  file: Published,
  name: str | os.PathLike | None,
  read: Callable[[pathlib.Path], Mapping[str, np.ndarray]],
  convert: Callable[[Mapping[str, np.ndarray]], dict],
) -> Weights:
  """Finds a file, reads its tensors by name and makes parameters of them."""
  path = files.local(name) if name else find(file)
  if not path.is_file():
    raise UserError(f"there is no file {path}: wanted are {file.what}")
  params = converted(path, file.what, read(path), convert)
  sha256 = tensor_files.sha256(path)
  return Weights(params, sha256, path.name, sha256.startswith(file.sha256))


def converted(
  path: pathlib.Path, what: str, tensors: Mapping[str, np.ndarray], convert: Callable
) -> Any:
  """Weights made of the tensors of a file; UserError if they are others."""
  try:
    return convert(tensors)
  except KeyError as e:
    raise UserError(f"{path} does not hold {what}: there is no {e.args[0]}") from e
  except ValueError as e:
    raise UserError(f"{path} does not hold {what}: {e}") from e


def find(file: Published) -> pathlib.Path:
  """A file that is at hand; or from the web."""
  path = at_hand(file)
  if path is None:
    path = place(file)
    download(file, path)
  return path


def place(file: Published) -> pathlib.Path:
  """Where a file lies in our cache, or would."""
  return files.cache() / "weights" / file.name


def at_hand(file: Published) -> pathlib.Path | None:
  """Where the environment says; or in our cache, or PyTorch's, if it is there."""
  if os.environ.get(file.variable):
    return files.local(os.environ[file.variable])
  torch = pathlib.Path(os.environ.get("TORCH_HOME") or files.cache().with_name("torch"))
  for path in (place(file), *(torch.expanduser() / "hub" / "checkpoints" / n for n in file.others)):
    if path.is_file():
      if not tensor_files.sha256(path).startswith(file.sha256):
        raise UserError(f"{path} is damaged or not {file.what}: remove it")
      return path
  return None


def download(file: Published, path: pathlib.Path) -> None:
  """Fetches a file, whole and with the right checksum or not at all."""
  try:
    with files.atomic(path) as draft:
      with urllib.request.urlopen(file.url, timeout=30) as source, draft.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
      if not tensor_files.sha256(draft).startswith(file.sha256):
        raise OSError("what came has another checksum")
  except (OSError, ValueError) as e:
    reason = e.reason if isinstance(e, urllib.error.URLError) else e
    raise UserError(
      f"{file.what} cannot be downloaded ({reason}): fetch {file.url} "
      f"elsewhere and put it at {path}, or say {file.flag}=FILE"
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
      return frozen_inception(constants(graph(path)))
    except (ValueError, OSError, EOFError, OverflowError, tarfile.TarError, zlib.error) as e:
      raise UserError(f"{path} is no frozen graph of Inception: {e}") from e
  state = tensors(path)
  if "fc.weight" in state and state["fc.weight"].shape[0] == 1000:
    raise UserError(
      f"{path} is torchvision's Inception, which gives other "
      f"numbers than FID's: fetch {INCEPTION.url}"
    )
  return state


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
