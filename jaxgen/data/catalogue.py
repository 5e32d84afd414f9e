"""Data sets that TensorFlow Datasets has prepared, read without TensorFlow."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxgen.data import image, pack
from jaxgen.data.arrays import Arrays, Cut, Example, digest
from jaxgen.errors import UserError

# Of TFDS: data set, configuration, version. None leads out of a folder.
NAME = re.compile(r"\w+(/[\w-]+(\.[\w-]+)*)*(:\d+\.\d+\.\d+)?", re.ASCII)
PACK_BELOW = 8 * 2**30  # bytes of raw pixels that are packed, not decoded


class Records:
  """A source that decodes its images at every reading."""

  skipped, notes = (), ()
  in_memory = False

  def __init__(self, name: str, folder: Path, split: str, size: int, channels: int):
    self._made_from = (name, folder, split, size, channels)
    self.name, self.dtype = name, np.dtype(np.uint8)
    self.shape = (size, size, channels)
    builder = tfds.builder_from_directory(folder)
    self._image, self._label, self.class_names = _keys(name, builder)
    self.classes = len(self.class_names)
    decoders = {self._image: tfds.decode.SkipDecoding()}
    try:
      self._records = builder.as_data_source(split, decoders=decoders)
    except NotImplementedError as e:
      raise UserError(
        f"{folder} is not in the array_record format; delete it and prepare"
        f" it again by: jaxgen prepare {name}"
      ) from e
    except ValueError as e:
      splits = ", ".join(builder.info.splits)
      raise UserError(f"{name} has the splits {splits}, not {split}") from e

  @functools.cached_property
  def fingerprint(self) -> str:
    """Of the data set's name, version and size, and a few examples."""
    some = self.read(np.linspace(0, len(self) - 1, 16).astype(int))
    made_from = f"{self._made_from[1].parts[-3:]}{self._made_from[2:]}"
    return digest(some["x"], np.frombuffer(f"{made_from}{len(self)}".encode(), np.uint8))

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, i: int) -> Example:
    size = self.shape[1]
    return self._example(i, lambda whole: image.crop(whole, size))

  def _example(self, i, cut) -> Example:
    record = self._records[int(i)]
    whole = image.upright(record[self._image], self.shape[-1])
    example = {"x": image.pixels(cut(whole))}
    if self._label:
      example["y"] = np.int32(record[self._label])
    return example

  def whole(self, i: int) -> Image.Image:
    """The image as it is stored."""
    record = self._records[int(i)]
    return image.upright(record[self._image], self.shape[-1])

  def read(self, indices: np.ndarray, cut: Cut | None = None) -> Example:
    """See Source."""
    if cut is None:
      examples = [self[i] for i in indices]
    else:
      examples = [self._example(i, functools.partial(cut, k)) for k, i in enumerate(indices)]
    return {k: np.stack([e[k] for e in examples]) for k in examples[0]}

  def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
    """See Source; decodes everything."""
    everything = self.read(np.arange(len(self)))
    return everything["x"], everything.get("y")

  def __reduce__(self):  # a worker process opens the files itself
    return Records, self._made_from


def open_tfds(
  name: str, split: str, size: int | None, channels: int | None, root: Path
) -> Arrays | Records:
  """A prepared data set; one of less than PACK_BELOW is packed on first use.

  Raises:
    UserError: if it is not prepared, or a size is needed.
  """
  folder = find(name, root)
  features = tfds.builder_from_directory(folder).info.features
  key = _image_key(name, features)
  height, width, stored = features[key].shape
  if size is None:
    if height is None or height != width:
      what = "several sizes" if None in (height, width) else f"{width}x{height}"
      raise UserError(
        f"tfds:{name} has images of {what}, and squares are made of them: give"
        " a size, --config.data.size=32"
      )
    size = height
  channels = channels or (1 if stored == 1 else 3)
  source = Records(f"tfds:{name}", folder, split, size, channels)
  if len(source) * size * size * channels > PACK_BELOW:
    return source

  def load(i: int):
    try:
      example = source[i]
      return example["x"], example.get("y")
    except Exception as e:  # a broken image may fail anywhere in a decoder
      raise pack.Unreadable(f"example {i}: {e}") from e

  parts = (*folder.relative_to(root).parts, split, f"{size}x{channels}")
  label = "-".join((*parts, f"v{pack.VERSION}"))
  target = root / "packed" / "".join(c if c.isalnum() or c in "-._" else "_" for c in label)
  count = len(source)
  packed = pack.packed(source.name, target, count, load, source.classes, source.class_names)
  packed = dataclasses.replace(packed, class_names=source.class_names)
  if (height, width) == (size, size):
    return packed
  names = [f"example {i}" for i in range(count if packed.skipped else 0)]
  rows = pack.kept(names, packed.skipped) if names else range(count)
  return dataclasses.replace(
    packed, whole=Whole(source, rows),
    notes=() if height and height == width else (image.SQUARES,),
  )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Whole:
  """Images as they are stored, of the examples that were packed."""

  source: Records
  rows: Sequence[int]

  def __call__(self, i: int) -> Image.Image:
    return self.source.whole(self.rows[i])


def find(name: str, root: Path) -> Path:
  """The folder of the newest prepared version below `root`.

  `name` is TFDS's: data set, then maybe /config and maybe :version.
  """
  path, _, version = name.partition(":")
  if not NAME.fullmatch(name):
    raise UserError(
      f"tfds:{name} is no name of a data set: want tfds:NAME, with /CONFIG and"
      " :1.0.0 where they are needed"
    )
  top = root / path
  found = _versions(top, "*")
  if not found:  # the configuration may be left out where there is one
    found = _versions(top, "*/*")
    configs = sorted({p.parent.name for p in found})
    if len(configs) > 1:
      raise UserError(
        f"tfds:{name} is prepared as {', '.join(configs)}: say which, e.g. tfds:{path}/{configs[0]}"
      )
  found = [p for p in found if version in ("", p.name)]
  if not found:
    raise UserError(
      f"tfds:{name} is not prepared in {root}; do so by: jaxgen prepare"
      f" tfds:{name} (downloads it there; $JAXGEN_DATA names another place)"
    )
  return max(found, key=lambda p: [int(n) for n in p.name.split(".")])


def _versions(top: Path, pattern: str) -> list[Path]:
  """Prepared versions; what TFDS is still writing has a longer name."""
  found = [p.parent for p in top.glob(f"{pattern}/dataset_info.json")]
  return [p for p in found if re.fullmatch(r"\d+\.\d+\.\d+", p.name)]


def _image_key(name: str, features) -> str:
  keys = [k for k, v in features.items() if isinstance(v, tfds.features.Image)]
  if "image" in keys:
    return "image"
  if len(keys) != 1:
    raise UserError(f"tfds:{name} is no data set of images: {list(features)}")
  return keys[0]


def _keys(name: str, builder) -> tuple[str, str | None, tuple[str, ...]]:
  """The features that hold the image and the class, and names of classes."""
  features = builder.info.features
  key = _image_key(name.removeprefix("tfds:"), features)
  supervised = builder.info.supervised_keys or ()
  for label in ("label", *supervised[1:]):
    if isinstance(label, str) and label in features:
      if isinstance(features[label], tfds.features.ClassLabel):
        return key, label, tuple(features[label].names)
  return key, None, ()
