"""The published weights that metrics look through: found, checked, read.

Files are only ever read as tensors: nothing in them is run.
"""
import os
import pathlib
import shutil
import tarfile
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxgen.errors import UserError
from jaxgen.evaluation import graphdef
from jaxgen.files import atomic, cache
from jaxgen.interop import files
from jaxgen.nets import dinov2 as dino
from jaxgen.nets import inception as incept

GRAPH = "classify_image_graph_def.pb"  # as TensorFlow publishes Inception
LARGEST = 1 << 27                      # bytes of a graph
ENTRIES = 100                          # of the archive that it lies in


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
    "Inception's weights", "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "JAXGEN_INCEPTION", "--inception",
    ("pt_inception-2015-12-05-6726825d.pth",
     "weights-inception-2015-12-05-6726825d.pth"))  # torch-fidelity's
DINOV2 = Published(
    "DINOv2's weights", "dinov2_vitl14_pretrain.pth",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/"
    "dinov2_vitl14_pretrain.pth",
    "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "JAXGEN_DINOV2", "--dinov2", ("dinov2_vitl14_pretrain.pth",))


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


def load(wanted: Published, name: str | os.PathLike | None,
         read: Callable[[pathlib.Path], Mapping[str, np.ndarray]],
         convert: Callable[[Mapping[str, np.ndarray]], dict]) -> Weights:
  """Finds a file, reads its tensors by name and makes parameters of them."""
  path = pathlib.Path(name).expanduser() if name else find(wanted)
  if not path.is_file():
    raise UserError(f"there is no file {path}: wanted are {wanted.what}")
  found = read(path)
  try:
    params = convert(found)
  except KeyError as e:
    raise UserError(f"{path} does not hold {wanted.what}: "
                    f"there is no {e.args[0]}") from e
  except ValueError as e:
    raise UserError(f"{path} does not hold {wanted.what}: {e}") from e
  sha256 = files.sha256(path)
  return Weights(params, sha256, path.name, sha256 == wanted.sha256)


def find(wanted: Published) -> pathlib.Path:
  """Where the environment says; or in our cache, or PyTorch's; or the web."""
  if os.environ.get(wanted.variable):
    return pathlib.Path(os.environ[wanted.variable]).expanduser()
  torch = pathlib.Path(
      os.environ.get("TORCH_HOME") or cache().with_name("torch"))
  ours = cache() / "weights" / wanted.name
  for path in (ours, *(torch.expanduser() / "hub" / "checkpoints" / n
                       for n in wanted.others)):
    if path.is_file():
      if files.sha256(path) != wanted.sha256:
        raise UserError(f"{path} is damaged or not {wanted.what}: remove it")
      return path
  download(wanted, ours)
  return ours


def download(wanted: Published, path: pathlib.Path) -> None:
  """Fetches a file, whole and with the right checksum or not at all."""
  try:
    with atomic(path) as draft:
      with (urllib.request.urlopen(wanted.url, timeout=30) as source,
            draft.open("wb") as file):
        shutil.copyfileobj(source, file, 1 << 20)
      if files.sha256(draft) != wanted.sha256:
        raise OSError("what came has another checksum")
  except (OSError, ValueError) as e:
    reason = getattr(e, "reason", None) or e
    raise UserError(
        f"{wanted.what} cannot be downloaded ({reason}): fetch {wanted.url} "
        f"elsewhere and put it at {path}, or say {wanted.flag}=FILE") from e


def tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Of a file of PyTorch or safetensors."""
  return {name: t.read() for name, t in files.read(path).items()}


def inception_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Of either kind of file, under pytorch-fid's names, in PyTorch's layout.

  Raises:
    UserError: It cannot be read, or is torchvision's Inception.
  """
  with path.open("rb") as f:
    head = f.read(2)
  if head == b"\x1f\x8b" or path.suffix == ".pb":
    try:
      found = graphdef.constants(graph(path))
    except (ValueError, OSError, EOFError, OverflowError, tarfile.TarError,
            zlib.error) as e:
      raise UserError(f"{path} is no frozen graph of Inception: {e}") from e
    return graphdef.inception(found)
  found = tensors(path)
  if "fc.weight" in found and found["fc.weight"].shape[0] == 1000:
    raise UserError(f"{path} is torchvision's Inception, which gives other "
                    f"numbers than FID's: fetch {INCEPTION.url}")
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
