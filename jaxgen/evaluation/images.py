"""Images to be judged: bytes [n, H, W, 3], in order, from any place.

Nothing is repaired in silence: what no reference evaluator would take is
refused in a line that says what to do. A trained model may draw them while they
are judged.
"""

import collections
import contextlib
import copy
import dataclasses
import functools
import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxgen import core, files, sharding
from jaxgen.checkpoint.fingerprint import fingerprint
from jaxgen.core import trait
from jaxgen.data import arrayfile, zipped
from jaxgen.data.arrays import Source
from jaxgen.data.folder import Pictures, choose, classes_of, labels_beside, listing
from jaxgen.data.image import ahead, open_image
from jaxgen.errors import UserError
from jaxgen.evaluation import origins
from jaxgen.files import digest
from jaxgen.interop import tensor_files
from jaxgen.monitor import pictures
from jaxgen.sampling.sampler import Sampler, number_of

SPANS = {"signed": (-1, 1), "unit": (0, 1), "bytes": (0, 255)}  # of floats


class Images(Protocol):
  """A set of images.

  Attributes:
    count: how many.
    labels: int [count] where they are known, or None.
    card: what they are, as JSON; holds "sha256" or what else identifies them.
    warnings: what is odd about them.
    class_names: of the classes, in the order of labels; () where not known.
    sizes: (height, width) of them, each that there is once, in order.
  """

  count: int
  sizes: list[tuple[int, int]]
  labels: np.ndarray | None
  class_names: tuple[str, ...]
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
  if span not in SPANS:
    raise ValueError(f"span={span!r}: want one of {', '.join(SPANS)}")
  if span == "signed":
    x = (x + 1) * 127.5 if rule == "truncate" else x * 127.5 + 128
  else:
    x = x * (255 if span == "unit" else 1) + (0.5 if rule == "round" else 0)
  return np.clip(x, 0, 255).astype(np.uint8)  # floor, as it is not negative


def first(name: object, count: int, num: int | None) -> int:
  """How many of `count` images to take: `num`, or all."""
  if num is not None and not 1 <= num <= count:
    raise UserError(f"num={num}, but {name} holds {count:,} images")
  return count if num is None else num


def three(x: np.ndarray) -> np.ndarray:
  """Grey images [n, H, W, 1] -> [n, H, W, 3], each channel alike, as EDM."""
  return np.repeat(x, 3, -1) if x.shape[-1] == 1 else x


class Header(NamedTuple):
  """What the head of an image file says, before it is decoded."""

  size: tuple[int, int]  # height, width
  mode: str
  transparent: bool
  format: str  # "PNG", "JPEG", ..: by its first bytes, not by its name
  info: str  # how it was made, if it says so


@dataclasses.dataclass(eq=False)
class Folder:
  """The image files below a folder, sorted by name.

  Folders below it are classes where all images lie in one, as in training,
  see `data.folder`; a dataset.json says more than they do. Images are
  taken as they are stored: no crop, and no turning by EXIF, which no
  reference evaluator does.
  """

  path: Path
  names: list[str]
  labels: np.ndarray | None = None
  warnings: list[str] = dataclasses.field(default_factory=list)
  sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
  class_names: tuple[str, ...] = ()
  base: str = ""  # of a split, below path

  @classmethod
  def open(
    cls, path: str, mixed: bool, convert: bool, num: int | None = None, split: str | None = None
  ) -> "Folder":
    """Looks at names, and at the head of every file.

    Args:
      path: of the folder.
      mixed: whether sizes may differ.
      convert: whether grey, palette and transparent images become RGB, by
        repeating grey and dropping alpha; else they are refused.
      num: the first so many, or None for all.
      split: of a folder that is divided into splits; None: all there are.

    Raises:
      UserError: there are no images, or they cannot be looked at.
    """
    top = files.local(path)
    names = cls._listing(top)
    if split is None:
      part = Pictures("", names, *classes_of(names), [])
    else:
      part = choose(path, names, split)
    names = part.names[: first(path, len(part.names), num)]
    self = cls(top, [f"{part.base}{n}" for n in names], base=part.base)
    self.warnings += [f"{path}: {note}" for note in part.notes]
    if part.base:
      self.warnings.append(f"{path} is divided into splits: these are images of {part.base}")
    self.labels = self._labels(names)
    y = part.labels[: len(names)]
    if self.labels is None and len(part.classes) > 1 and None not in y:
      self.labels = np.array(y, np.int32)
      self.class_names = tuple(part.classes)
    self._look(mixed, convert, num)
    return self

  @staticmethod
  def _listing(top: Path) -> list[str]:
    return listing(top)

  def _labels(self, names: Sequence[str]) -> np.ndarray | None:
    """Labels by a dataset.json, of names below the base."""
    return labels_beside(self.path / self.base, names)

  def _look(self, mixed: bool, convert: bool, num: int | None) -> None:
    """Refuses, before the work, what would be refused in the midst of it."""
    infos, sizes, formats = (collections.Counter() for _ in range(3))
    with self._files() as file:
      headers = ahead(lambda name: self._header(file, name), self.names)
      for name, header in zip(self.names, headers, strict=True):
        check_colour(self.path / name, header, convert)
        sizes[header.size] += 1
        infos[header.info] += 1
        formats[header.format] += 1
        if not mixed and len(sizes) > 1:
          raise UserError(
            f"images of one set must be of one size: {self.path / name} is "
            f"{across(header.size)}, others are {across(next(iter(sizes)))}"
          )
    self.sizes = sorted(sizes)
    if formats["JPEG"] or formats["MPO"]:
      self.warnings.append(f"{self.path} holds JPEG files: their compression alone changes FID")
    self.warnings += origins.doubts(self.path, infos, None if num else self.count)

  @contextlib.contextmanager
  def _files(self) -> Iterator[Callable[[str], Any]]:
    """Within, names -> what can be opened."""
    yield lambda name: self.path / name

  @property
  def count(self) -> int:
    return len(self.names)

  @functools.cached_property
  def card(self) -> dict[str, Any]:
    """Its sha256 is that of lines "name sha256-of-the-file"."""
    lines = hashlib.sha256()
    for name in self.names:
      own = hashlib.sha256((self.path / name).read_bytes()).hexdigest()
      lines.update(os.fsencode(name) + f" {own}\n".encode())
    name, sha256 = self.path.resolve().name, lines.hexdigest()
    return {"kind": "folder", "name": name, "sha256": sha256, "images": self.count}

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    """See Images. A new batch begins where the size changes."""
    run: list[np.ndarray] = []
    with self._files() as file:
      for x in ahead(lambda name: self._one(file, name), self.names[start:stop]):
        if run and (x.shape != run[0].shape or len(run) == 64):
          yield np.stack(run)
          run = []
        run.append(x)
    if run:
      yield np.stack(run)

  def _header(self, file: Callable[[str], Any], name: str) -> Header:
    with readable(self.path / name), open_image(file(name)) as image:
      return Header(
        image.size[::-1],
        image.mode,
        "transparency" in image.info,
        str(image.format),
        str(image.info.get(pictures.KEY, "")),
      )

  def _one(self, file: Callable[[str], Any], name: str) -> np.ndarray:
    """One file, uint8 [H, W, 3]."""
    with readable(self.path / name), open_image(file(name)) as image:
      image.load()  # all of it: a file that was cut short shows up here
      return np.asarray(image.convert("RGB"))


class Zip(Folder):
  """The image files in a .zip, likewise; dataset.json has their labels."""

  @staticmethod
  def _listing(top: Path) -> list[str]:
    return zipped.listing(top)

  def _labels(self, names: Sequence[str]) -> np.ndarray | None:
    return zipped.labels_in(self.path, names, self.base)

  @contextlib.contextmanager
  def _files(self) -> Iterator[Callable[[str], Any]]:
    lock = threading.Lock()
    with arrayfile.reading(self.path, zipped.KIND), zipfile.ZipFile(self.path) as archive:

      def file(name):
        with lock:
          return io.BytesIO(archive.read(name))

      yield file

  @functools.cached_property
  def card(self) -> dict[str, Any]:
    """Identified by the sha256 of the file."""
    sha256 = tensor_files.sha256(self.path)
    return {"kind": "zip", "name": self.path.name, "sha256": sha256, "images": self.count}


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
  """Within, a UserError if an image is broken, anywhere in its decoder."""
  try:
    yield
  except Exception as e:
    lines = str(e).splitlines() or [type(e).__name__]
    why = lines[0].split(" '/")[0].split(" <")[0]
    raise UserError(f"{path} cannot be read: {why}; delete it, or make it anew") from e


def check_colour(path: Path, header: Header, convert: bool) -> None:
  """UserError unless it is RGB, or may become so."""
  deep = header.mode in ("I", "F") or header.mode.startswith("I;")
  plain = header.mode == "RGB" or header.mode == "P" and not header.transparent
  if plain or convert and not deep:
    return
  names = {"CMYK": "CMYK", "1": "grey", "L": "grey"}
  what = "grey" if deep else names.get(header.mode, "transparent")
  raise UserError(
    f"{path} is {what} ({header.mode}), not 8-bit RGB"
    + ("" if deep else "; --convert does what reference evaluators do: repeats grey, drops alpha")
  )


def across(size: tuple[int, int]) -> str:
  """Height and width as text, the width first."""
  return f"{size[1]}x{size[0]}"


def span_of(sizes: Sequence[tuple[int, int]]) -> str:
  """The sizes of a set as text: "8x8", or "8x8 to 12x9"."""
  ends = [across(s) for s in (min(sizes), max(sizes))]
  return " to ".join(dict.fromkeys(ends))


@dataclasses.dataclass(eq=False)
class Dataset:
  """A data set that jaxgen trains on, as it is trained on."""

  source: Source
  split: str
  num: int | None = None
  warnings: list[str] = dataclasses.field(default_factory=list)

  def __post_init__(self):
    if len(self.source.shape) != 3:
      raise UserError(
        f"{self.source.name} holds points: FID and its relatives are of images; leave --protocol"
      )
    if self.source.skipped:
      self.warnings.append(
        f"{len(self.source.skipped)} files of {self.source.name} could not "
        f"be read, such as {self.source.skipped[0]}"
      )
    self.count = first(self.source.name, len(self.source), self.num)
    self.sizes = [self.source.shape[:2]]
    self.class_names = self.source.class_names

  @property
  def labels(self) -> np.ndarray | None:
    y = self.source.arrays()[1]
    return None if y is None else y[: self.count]

  @property
  def card(self) -> dict[str, Any]:
    """Identified by the fingerprint of its examples."""
    return {
      "kind": "dataset",
      "name": self.source.name,
      "split": self.split,
      "fingerprint": self.source.fingerprint,
      "shape": list(self.source.shape),
      "images": self.count,
    }

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    for i in range(start, stop, 256):
      j = np.arange(i, min(i + 256, stop))
      yield three(self.source.read(j)["x"])


@dataclasses.dataclass(eq=False)
class ModelSamples:
  """The samples 0 .. count - 1 of a seed, made when they are read.

  They are those of `jaxgen sample --seed` but for how floats become bytes,
  which is the protocol's to say (`rule`, see `images.quantise`). Sample i
  depends on the seed, i, its label and the knobs alone.
  """

  sampler: Sampler
  count: int
  seed: int
  labels: np.ndarray | None
  how: str  # labels were chosen
  rule: str
  knobs: Mapping[str, float]
  batch: int = 256
  warnings: list[str] = dataclasses.field(default_factory=list)

  def __post_init__(self):
    if self.sampler.dtype != np.uint8 or len(self.sampler.shape) != 3:
      raise UserError(
        "this model makes points: FID and its relatives are of images; leave --protocol"
      )
    if cond := trait(self.sampler.model, "cond"):
      raise UserError(
        f"this model makes x from {', '.join(cond)}: draw with "
        "`jaxgen sample`, and judge the file by --samples"
      )
    if self.batch < 1 or self.seed < 0 or self.count < 2:
      raise UserError(
        f"batch={self.batch}, seed={self.seed}, num={self.count}: want at least 1, 0 and 2"
      )
    self._settings = self.sampler.settings(dict(self.knobs))
    # What as_data would round, we get as floats.
    self._floats = dataclasses.replace(self.sampler, dtype=np.dtype("float32"))
    self.weights = weights_hash(self.sampler.state)
    self.sizes = [tuple(self.sampler.shape[:2])]

  def of(self, sampler: Sampler) -> "ModelSamples":
    """The same of other weights, without compiling anything again."""
    other = copy.copy(self)
    other.sampler, other.weights = sampler, weights_hash(sampler.state)
    return other

  @property
  def class_names(self) -> tuple[str, ...]:
    return self.sampler.class_names

  @property
  def card(self) -> dict[str, Any]:
    """Where they come from; weights are identified by their contents."""
    return {
      "kind": "model",
      "name": str(self.sampler.card["workdir"]),
      "weights": self.weights,
      "seed": self.seed,
      "labels": self.how,
      "images": self.count,
      "knobs": {k: v if np.isfinite(v) else None for k, v in self._settings.items()},
      **{k: v for k, v in sorted(self.sampler.card.items()) if k != "workdir"},
    }

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    key = jax.random.key(self.seed)
    labels = {} if self.labels is None else {"y": self.labels}
    first, batch, state = start, min(self.batch, self.count), self.sampler.state
    for x in self._floats.stream(key, range(start, stop), batch, labels, self._settings, state):
      x = sharding.fetch(x)[: stop - first]
      if not np.isfinite(x).all():
        raise UserError(
          f"samples {first} to {first + len(x)} of {self.card['name']} hold NaN or infinity"
        )
      yield three(quantise(x, self.rule))
      first += len(x)


def weights_hash(state: core.State) -> str:
  """Sixteen hex digits of the weights that are sampled from."""
  leaves, _ = fingerprint({"params": state.params, "stats": state.stats})
  return digest(leaves)


def choose_labels(sampler: Sampler, how: str, count: int, seed: int) -> np.ndarray | None:
  """Labels int32 [count] of samples.

  Args:
    sampler: which knows how many classes there are.
    how: "turn", each class in turn; "random", each as likely; or "0,1,2",
      numbers or names.
    count: how many.
    seed: of random ones.
  """
  if not sampler.classes or how == "turn":
    return sampler.labels(count, None)
  if how == "random":
    return np.random.default_rng(seed).integers(sampler.classes, size=count).astype(np.int32)
  number = lambda word: number_of(word.strip(), sampler.class_names, "turn, random, or ")
  return sampler.labels(count, [number(word) for word in how.split(",")])
