"""scikit-learn's 1,797 real handwritten digits as a TFDS data set."""

import contextlib
import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxgen.data import cache, image
from jaxgen.data.arrays import Arrays
from jaxgen.errors import UserError


class Digits(tfds.core.GeneratorBasedBuilder):
  """Ten classes of 8x8 grey digits, scikit-learn's own copy: no network."""

  VERSION = tfds.core.Version("1.0.0")
  url_infos = {}  # nothing to download, so no list of checksums to look for

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=(8, 8, 1)),
      "label": tfds.features.ClassLabel(num_classes=10),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description="Test set of the UCI ML hand-written digits, 8x8 grey.",
      features=tfds.features.FeaturesDict(features),
      supervised_keys=("image", "label"),
      homepage="https://doi.org/10.24432/C50P49",
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    from sklearn.datasets import load_digits

    data = load_digits()
    # round(v * 255 / 16) in integers, halves up: 0..16 -> 0..255
    x = ((data.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)
    test = held_out(data.target)
    return {
      name: self._generate_examples(x[part], data.target[part])
      for name, part in (("train", ~test), ("test", test))
    }

  def _generate_examples(self, x, y):
    for i, (digit, label) in enumerate(zip(x, y, strict=True)):
      file = io.BytesIO()  # bytes: TFDS would encode an array by TensorFlow
      Image.fromarray(digit).save(file, "PNG")
      file.seek(0)
      yield i, {"image": file, "label": int(label)}


def held_out(y: np.ndarray) -> np.ndarray:
  """Whether each example is in the test split: every fifth of each class."""
  test = np.zeros(len(y), bool)
  for label in np.unique(y):
    test[np.flatnonzero(y == label)[2::5]] = True
  return test


def prepare_digits(root: Path) -> Path:
  """Writes the data set below `root` in TFDS' layout, if it is not there."""

  def make(tmp: Path) -> None:
    tfds.disable_progress_bar()
    builder = Digits(data_dir=tmp, file_format="array_record")
    offline = tfds.download.DownloadConfig(try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()):  # it takes a second
      builder.download_and_prepare(download_config=offline)

  return cache.once(root / "digits", make)


def open_digits(split: str, size: int | None, channels: int | None, root: Path) -> Arrays:
  """The digits, decoded once: 1,797 of them are 115 kB."""
  if split not in ("train", "test"):
    raise UserError(f"digits has the splits train and test, not {split}")
  folder = prepare_digits(root) / "1.0.0"
  examples = tfds.builder_from_directory(folder).as_data_source(
    split, decoders={"image": tfds.decode.SkipDecoding()}
  )
  examples = [examples[i] for i in range(len(examples))]
  x = np.stack([image.decode(e["image"], None, 1) for e in examples])
  y = np.array([e["label"] for e in examples], np.int32)
  x, original = image.fitted(x, size, channels)
  return Arrays("digits", x, y, 10, original=original, class_names=tuple("0123456789"))
