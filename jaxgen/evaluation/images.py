"""Images to be judged: bytes [n, H, W, 3], in order, from any place.

Nothing is repaired in silence: what no reference evaluator would take is
refused in a line that says what to do.
"""
import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from jaxgen.data.arrays import Source
from jaxgen.data.folder import listing
from jaxgen.errors import UserError


class Images(Protocol):
  """A set of images.

  Attributes:
    count: how many.
    labels: int [count] where they are known, or None.
    card: what they are, as JSON; holds "sha256" or what else identifies them.
    warnings: what is odd about them.
  """
  count: int
  labels: np.ndarray | None
  card: dict[str, Any]
  warnings: list[str]

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    """The images `start` to `stop`, uint8 [n, H, W, 3] at a time, any n."""


def quantise(x: np.ndarray, rule: str, span: str = "signed") -> np.ndarray:
  """Floats -> bytes.

  Args:
    x: any shape, in [-1, 1] if `span` is "signed", [0, 1] if "unit", and
      0 .. 255 if "bytes"; what lies beyond is clipped.
    rule: "truncate" (guided-diffusion, torch-fidelity's examples) or "round"
      (EDM, DiT, torchvision's save_image), halves upwards.
  """
  x = np.asarray(x, np.float32)
  if span == "signed":
    x = (x + 1) * 127.5 if rule == "truncate" else x * 127.5 + 128
  else:
    x = x * (255 if span == "unit" else 1) + (0.5 if rule == "round" else 0)
  return np.clip(x, 0, 255).astype(np.uint8)  # floor, as it is not negative


def first(name: object, there: int, num: int | None) -> int:
  """How many of the images that are `there` to take: `num`, or all."""
  if num is not None and not 1 <= num <= there:
    raise UserError(f"num={num}, but {name} holds {there:,} images")
  return there if num is None else num


def three(x: np.ndarray) -> np.ndarray:
  """Grey images [n, H, W, 1] -> [n, H, W, 3], each channel alike, as EDM."""
  return np.repeat(x, 3, -1) if x.shape[-1] == 1 else x


def ahead(function: Callable, items: Iterable, most: int = 256) -> Iterator:
  """function(item) of each item in order, computed by threads up to `most`."""
  with ThreadPoolExecutor(8) as pool:
    queue = collections.deque()
    try:
      for item in items:
        queue.append(pool.submit(function, item))
        if len(queue) > most:
          yield queue.popleft().result()
      while queue:
        yield queue.popleft().result()
    finally:
      for future in queue:
        future.cancel()


@dataclasses.dataclass(eq=False)
class Folder:
  """The image files below a folder, sorted by name.

  Folders below it are classes, numbered in the order of their names, where
  all images lie in one. Images are taken as they are stored: no crop, and no
  turning by EXIF, which no reference evaluator does.
  """
  path: Path
  names: list[str]
  mixed: bool
  convert: bool
  labels: np.ndarray | None = None
  warnings: list[str] = dataclasses.field(default_factory=list)
  size: tuple[int, int] | None = None
  _hash: str = ""

  @classmethod
  def open(cls, path: str, mixed: bool, convert: bool,
           num: int | None = None) -> "Folder":
    """Looks at names only; `num`: the first so many.

    Args:
      path: of the folder.
      mixed: whether sizes may differ.
      convert: whether grey, palette and transparent images become RGB, by
        repeating grey and dropping alpha; else they are refused.
      num: how many, or None for all.

    Raises:
      UserError: there are no images.
    """
    top = Path(path).expanduser()
    names = listing(top)
    names = names[:first(path, len(names), num)]
    parents = [n.rpartition("/")[0] for n in names]
    classes = sorted(set(parents))
    labels = None
    if all(parents) and len(classes) > 1:
      labels = np.searchsorted(classes, parents).astype(np.int32)
    self = cls(top, names, mixed, convert, labels)
    if any(n.lower().endswith((".jpg", ".jpeg")) for n in names):
      self.warnings.append(
          f"{path} holds JPEG files: their compression alone changes FID")
    return self

  @property
  def count(self) -> int:
    """How many."""
    return len(self.names)

  @property
  def card(self) -> dict[str, Any]:
    """Its sha256 is that of lines "name sha256-of-the-file"."""
    if not self._hash:
      whole = hashlib.sha256()
      for name in self.names:
        own = hashlib.sha256((self.path / name).read_bytes()).hexdigest()
        whole.update(f"{name} {own}\n".encode())
      self._hash = whole.hexdigest()
    return {"kind": "folder", "name": self.path.resolve().name,
            "sha256": self._hash, "images": self.count}

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    """See Images. A new batch begins where the size changes."""
    run: list[np.ndarray] = []
    for name, x in zip(self.names[start:stop],
                       ahead(self._one, self.names[start:stop]), strict=True):
      self.size = self.size or x.shape[:2]
      if not self.mixed and x.shape[:2] != self.size:
        raise UserError(
            f"images of one set must be of one size: {self.path / name} is "
            f"{x.shape[1]}x{x.shape[0]}, others are "
            f"{self.size[1]}x{self.size[0]}")
      if run and (x.shape != run[0].shape or len(run) == 64):
        yield np.stack(run)
        run = []
      run.append(x)
    if run:
      yield np.stack(run)

  def _one(self, name: str) -> np.ndarray:
    """One file, uint8 [H, W, 3]."""
    path = self.path / name
    try:
      with Image.open(path) as image:
        image.load()  # all of it: a file that was cut short shows up here
        grey = image.mode in ("1", "L", "I", "I;16", "F")
        plain = image.mode == "RGB" or (
            image.mode == "P" and "transparency" not in image.info)
        if not plain and (image.mode in ("I", "I;16", "F")
                          or not self.convert):
          kind = "grey" if grey else "transparent"
          kind = kind if image.mode != "CMYK" else "CMYK"
          raise UserError(
              f"{path} is {kind} ({image.mode}), not 8-bit RGB" + (
                  "" if image.mode in ("I", "I;16", "F") else
                  "; --convert does what reference evaluators do: repeats "
                  "grey, drops alpha"))
        return np.asarray(image.convert("RGB"))
    except UserError:
      raise
    except Exception as e:  # a broken file may fail anywhere in a decoder
      why = str(e).splitlines()[0].split(" '/")[0] or type(e).__name__
      raise UserError(f"{path} cannot be read: {why}; delete it, or make it "
                      "anew") from e


@dataclasses.dataclass(eq=False)
class Dataset:
  """A data set that jaxgen trains on, as it is trained on."""
  source: Source
  split: str
  num: int | None = None
  warnings: list[str] = dataclasses.field(default_factory=list)

  def __post_init__(self):
    if len(self.source.shape) != 3:
      raise UserError(f"{self.source.name} holds points: FID and its "
                      "relatives are of images; leave --protocol")
    if self.source.skipped:
      self.warnings.append(
          f"{len(self.source.skipped)} files of {self.source.name} could not "
          f"be read, such as {self.source.skipped[0]}")
    self.count = first(self.source.name, len(self.source), self.num)

  @property
  def labels(self) -> np.ndarray | None:
    """Of all of them."""
    y = self.source.arrays()[1]
    return None if y is None else y[:self.count]

  @property
  def card(self) -> dict[str, Any]:
    """Identified by the fingerprint of its examples."""
    return {"kind": "dataset", "name": self.source.name, "split": self.split,
            "fingerprint": self.source.fingerprint,
            "shape": list(self.source.shape), "images": self.count}

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    """See Images."""
    for i in range(start, stop, 256):
      j = np.arange(i, min(i + 256, stop))
      yield three(self.source.read(j)["x"])
