"""Data sets that TensorFlow Datasets has prepared, read without TensorFlow."""

import contextlib
import dataclasses
import functools
import importlib.util
import re
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxgen import files
from jaxgen.data import clips, image, pack, recordings
from jaxgen.data.arrays import Arrays, Cut, Example, digest
from jaxgen.errors import UserError

# Of TFDS: data set, configuration, version. None leads out of a folder.
NAME = re.compile(r"\w+(/[\w-]+(\.[\w-]+)*)*(:\d+\.\d+\.\d+)?", re.ASCII)
INFO = "dataset_info.json"  # which is in every folder of TFDS's
PACK_BELOW = 8 * 2**30  # bytes of raw pixels that are packed, not decoded


class Records:
  """A source that decodes its images at every reading."""

  skipped, notes = (), ()
  in_memory = False

  def __init__(self, name: str, folder: Path, split: str, size: int, channels: int):
    self._arguments = (name, folder, split, size, channels)
    self.name, self.dtype = name, np.dtype(np.uint8)
    self.shape = (size, size, channels)
    builder = builder_in(folder)
    features = builder.info.features
    self._image = _image_key(name, features)
    self._label = _label_key(features, builder.info.supervised_keys or ())
    self.class_names = tuple(features[self._label].names) if self._label else ()
    self.classes = len(self.class_names)
    decoders = {self._image: tfds.decode.SkipDecoding()}
    self._records = records_of(name, builder, split, decoders)

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hex digits of its name, version and size, and a few examples."""
    x = self.read(np.linspace(0, len(self) - 1, 16).astype(int))["x"]
    text = f"{self._arguments[1].parts[-3:]}{self._arguments[2:]}{len(self)}"
    return digest(x, np.frombuffer(text.encode(), np.uint8))

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, i: int) -> Example:
    return self._example(i, lambda stored: image.crop(stored, self.shape[1]))

  def _example(self, i: int, cut: Callable[[Image.Image], Image.Image]) -> Example:
    record = self._records[int(i)]
    example = {"x": image.pixels(cut(self._decode(record)))}
    if self._label:
      example["y"] = np.int32(record[self._label])
    return example

  def _decode(self, record) -> Image.Image:
    return image.upright(record[self._image], self.shape[-1])

  def original(self, i: int) -> Image.Image:
    """The image as it is stored."""
    return self._decode(self._records[int(i)])

  def read(self, indices: np.ndarray, cut: Cut | None = None) -> Example:
    if cut is None:
      examples = [self[i] for i in indices]
    else:
      examples = [self._example(i, functools.partial(cut, k)) for k, i in enumerate(indices)]
    return {k: np.stack([e[k] for e in examples]) for k in examples[0]}

  def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
    everything = self.read(np.arange(len(self)))
    return everything["x"], everything.get("y")

  def __reduce__(self):  # a worker process opens the files itself
    return Records, self._arguments


def builder_in(folder: Path) -> tfds.core.DatasetBuilder:
  """TFDS's reader of a prepared data set, of sound without TensorFlow, too."""
  with audio_without_tensorflow():
    return tfds.builder_from_directory(folder)


@contextlib.contextmanager
def audio_without_tensorflow() -> Iterator[None]:
  """TFDS's audio wants TensorFlow for the names of types, and to open files."""
  if importlib.util.find_spec("tensorflow") is not None:
    yield
    return
  from tensorflow_datasets.core.features import audio_feature, feature

  gfile = types.SimpleNamespace(GFile=lambda path, mode="r": open(path, mode))
  tf = types.SimpleNamespace(
    dtypes=types.SimpleNamespace(as_dtype=np.dtype), io=types.SimpleNamespace(gfile=gfile)
  )
  with mock.patch.object(audio_feature, "tf", tf), mock.patch.object(feature, "tf", tf):
    yield


def records_of(
  name: str, builder: tfds.core.DatasetBuilder, split: str, decoders: dict | None = None
) -> Sequence:
  """Random access to a split's records; UserError if there is none such."""
  try:
    return builder.as_data_source(split, decoders=decoders)
  except NotImplementedError as e:
    raise UserError(
      f"{builder.data_path} is not in the array_record format; delete it and prepare"
      f" it again by: jaxgen prepare {name}"
    ) from e
  except ValueError as e:
    splits = ", ".join(builder.info.splits)
    raise UserError(f"{name} has the splits {splits}, not {split}") from e


def open_tfds(
  name: str, split: str, size: int | None, channels: int | None, root: Path, rate: int = 0
) -> Arrays | Records | clips.Clips:
  """A data set prepared below `root`, by its name: see `open_prepared`."""
  folder = find(name, root)
  parts = folder.relative_to(root).parts
  return open_prepared(f"tfds:{name}", folder, parts, split, size, channels, root, rate)


def open_array_record(
  path: str, split: str, size: int | None, channels: int | None, root: Path, rate: int = 0
) -> Arrays | Records | clips.Clips:
  """A folder as TFDS prepares them, anywhere: see `open_prepared`.

  Its files are read by a library that opens none but this machine's: those of a
  bucket are copied once, all of them.

  Raises:
    UserError: there is none.
  """
  name, top = f"array_record:{path}", files.local(path).expanduser()
  folder = top if (top / INFO).exists() else max(_versions(top, "*"), default=None, key=_version)
  if folder is None:
    raise UserError(f"there are no data of TFDS's in {path}: no {INFO}, nor in folders like 1.0.0")
  versions = {n: files.version(folder / n) for n in sorted(files.names(folder))}
  parts = "array_record", files.digest(versions)
  return open_prepared(name, folder, parts, split, size, channels, root, rate)


def open_prepared(
  name: str,
  folder: Path,
  parts: tuple[str, ...],
  split: str,
  size: int | None,
  channels: int | None,
  root: Path,
  rate: int,
) -> Arrays | Records | clips.Clips:
  """What TFDS prepared in a folder; less than PACK_BELOW is packed on first use.

  With a rate, sound: see `open_sound`.

  Args:
    name: Of the source.
    folder: Of one version.
    parts: What tells it from others, as names of files.
    split: One of those it has.
    size: As `sources.open_source` has them, as `channels` and `rate`.
    channels: 1, 3, or as stored.
    root: What is packed lies below it.
    rate: Of sound; 0 of images.

  Raises:
    UserError: a size is needed, or there is no such split.
  """
  features = builder_in(folder).info.features
  if rate:
    return open_sound(name, folder, parts, split, size, rate, root)
  height, width, stored_channels = features[_image_key(name, features)].shape
  if size is None:
    if height is None or height != width:
      what = "several sizes" if None in (height, width) else f"{width}x{height}"
      raise UserError(
        f"{name} has images of {what}, and squares are made of them: give"
        " a size, --config.data.size=32"
      )
    size = height
  channels = channels or (1 if stored_channels == 1 else 3)
  source = Records(name, folder, split, size, channels)
  count = len(source)
  if count * size * size * channels > PACK_BELOW:
    return source

  def load(i: int):
    try:
      example = source[i]
      return example["x"], example.get("y")
    except Exception as e:  # a broken image may fail anywhere in a decoder
      raise pack.Unreadable(f"example {i}: {e}") from e

  names = source.class_names
  target = packed_in(root, *parts, split, f"{size}x{channels}", f"v{pack.VERSION}")
  packed = pack.packed(source.name, target, count, load, source.classes, names)
  packed = dataclasses.replace(packed, class_names=names)
  if (height, width) == (size, size):
    return packed
  rows = range(count)
  if packed.skipped:
    rows = pack.readable_rows([f"example {i}" for i in rows], packed.skipped)
  notes = () if height and height == width else (image.SQUARES,)
  return dataclasses.replace(packed, original=Originals(source, rows), notes=notes)


def packed_in(root: Path, *parts: str) -> Path:
  """The folder below `root` of what is packed of a data set."""
  return root / "packed" / "".join(c if c.isalnum() or c in "-._" else "_" for c in "-".join(parts))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Originals:
  """Images as they are stored, of the examples that were packed."""

  source: Records
  rows: Sequence[int]

  def __call__(self, i: int) -> Image.Image:
    return self.source.original(self.rows[i])


def open_sound(
  name: str,
  folder: Path,
  parts: tuple[str, ...],
  split: str,
  size: int | None,
  rate: int,
  root: Path,
) -> clips.Clips:
  """The recordings of a prepared data set, packed at a rate on first use."""
  clips.check_clip(name, size, rate)
  builder = builder_in(folder)
  features, metadata = builder.info.features, builder.info.metadata or {}
  audio = _audio_key(name, features)
  stored_rate = features[audio].sample_rate or dict(metadata).get("sample_rate")
  if not stored_rate:
    raise UserError(f"{name} does not say how many samples a second it has")
  label = _label_key(features, builder.info.supervised_keys or ())
  records = records_of(name, builder, split)

  def load(i: int) -> np.ndarray:
    try:
      return recordings.resampled(np.asarray(records[i][audio]), int(stored_rate), rate)
    except ValueError as e:
      raise pack.Unreadable(f"example {i}: {e}") from e

  target = packed_in(root, *parts, split, f"{rate}hz", f"v{clips.VERSION}")
  labels = () if target.exists() else [int(r[label]) if label else None for r in records]
  names = tuple(features[label].names) if label else ()
  return clips.packed(name, target, load, labels, names, rate, size)


def _audio_key(name: str, features) -> str:
  """The feature that holds the sound."""
  keys = [k for k, v in features.items() if isinstance(v, tfds.features.Audio)]
  if len(keys) == 1:
    return keys[0]
  if any(isinstance(v, tfds.features.Image) for v in features.values()):
    raise UserError(f"{name} holds images: leave out --config.data.rate")
  raise UserError(f"{name} is no data set of sound: {list(features)}")


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
  versions = _versions(top, "*")
  if not versions:  # the configuration may be left out where there is one
    versions = _versions(top, "*/*")
    configs = sorted({p.parent.name for p in versions})
    if len(configs) > 1:
      raise UserError(
        f"tfds:{name} is prepared as {', '.join(configs)}: say which, e.g. tfds:{path}/{configs[0]}"
      )
  versions = [p for p in versions if version in ("", p.name)]
  if not versions:
    raise UserError(
      f"tfds:{name} is not prepared in {root}; do so by: jaxgen prepare"
      f" tfds:{name} (downloads it there; $JAXGEN_DATA names another place)"
    )
  return max(versions, key=_version)


def _version(folder: Path) -> list[int]:
  return [int(n) for n in folder.name.split(".")]


def _versions(top: Path, pattern: str) -> list[Path]:
  """Prepared versions; what TFDS is still writing has a longer name."""
  folders = [p.parent for p in top.glob(f"{pattern}/{INFO}")]
  return [p for p in folders if re.fullmatch(r"\d+\.\d+\.\d+", p.name)]


def _image_key(name: str, features) -> str:
  """The feature that holds the image."""
  keys = [k for k, v in features.items() if isinstance(v, tfds.features.Image)]
  if "image" in keys:
    return "image"
  if len(keys) != 1:
    for audio in (v for v in features.values() if isinstance(v, tfds.features.Audio)):
      rate = audio.sample_rate or 16_000
      raise UserError(
        f"{name} holds sound: say samples a second and of a clip, --config.data.rate={rate} "
        f"--config.data.size={rate}, and take a config of sound"
      )
    raise UserError(f"{name} is no data set of images: {list(features)}")
  return keys[0]


def _label_key(features, supervised_keys: Sequence) -> str | None:
  """The feature that holds the class, if there is one."""
  for key in ("label", *supervised_keys[1:]):
    if isinstance(key, str) and key in features:
      if isinstance(features[key], tfds.features.ClassLabel):
        return key
  return None
