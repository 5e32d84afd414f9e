"""Bring a dataset into place: download and write it for random access.

  jaxgen prepare tfds:cifar10

Reading needs no TensorFlow; the builders of TFDS do, most of them for two
small things: to encode an array as PNG and to open a file. Where TensorFlow
is not installed these are done otherwise, here and, to read audio, in
`catalogue`; so is decoding audio where pydub is not installed. Functions
import TFDS themselves: it takes seconds, and `--help` needs none of it.
"""

import contextlib
import difflib
import functools
import glob
import importlib
import importlib.util
import io
import os
import socket
import sys
import threading
import types
import urllib.parse
import urllib.request
from pathlib import Path
from unittest import mock

import numpy as np
from absl import flags
from PIL import Image

from jaxgen.data import cache, recordings
from jaxgen.errors import UserError, printable


def prepare(name: str, data_dir: str | None = None) -> Path:
  """Prepares "digits" or "tfds:NAME"; returns the folder it lies in.

  What is prepared already is left as it is.

  Raises:
    UserError: if there is no such data set, or it cannot be downloaded, or
      its builder needs TensorFlow and there is none.
  """
  root = cache.root(data_dir)
  if name == "digits":
    from jaxgen.data.digits import prepare_digits

    return prepare_digits(root)
  from jaxgen.data import catalogue

  kind, _, dataset = name.partition(":")
  if kind != "tfds" or not dataset:
    raise UserError(f"'{name}' needs no preparation; tfds:NAME and digits do")
  if not catalogue.NAME.fullmatch(dataset):
    catalogue.find(dataset, root)  # says so
  with contextlib.suppress(UserError):
    return catalogue.find(dataset, root)
  # Before the shim: what is imported within is forgotten after it.
  from tensorflow_datasets.core.download import downloader

  shim = contextlib.nullcontext()
  if importlib.util.find_spec("tensorflow") is None:
    shim = without_tensorflow(_builder_class(dataset))
  try:
    with shim:
      _download(dataset, root, downloader)
  except UserError:
    raise
  except (ImportError, AttributeError) as e:
    raise UserError(
      f"preparing {name} needs what is not installed ({e}); try: pip install 'jaxgen[tf]'"
    ) from e
  except Exception as e:  # downloads and builders fail in ways of their own
    why = " ".join(f"{type(e).__name__}: {e}".split())[:300]
    raise UserError(f"preparing {name} failed: {why}") from e
  return catalogue.find(dataset, root)


def _download(name: str, root: Path, downloader: types.ModuleType) -> None:
  import tensorflow_datasets as tfds

  open_url = downloader._open_url  # tries for minutes

  def open_reachable(url: str, **options):
    check_reachable(url)
    return open_url(url, **options)

  builder = tfds.builder(name, data_dir=root, file_format="array_record", try_gcs=False)
  if not (root / "downloads").exists():  # what lies there needs no network
    for url in list(builder.url_infos or ())[:1]:
      check_reachable(url)
  with (
    mock.patch.object(downloader, "_open_url", open_reachable),
    mock.patch.object(downloader, "MAX_RETRIES", 3),
  ):
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


def check_reachable(url: str) -> None:
  """UserError if nobody answers where a file is to come from."""
  parts = urllib.parse.urlsplit(url)
  if parts.hostname and parts.scheme not in urllib.request.getproxies():
    if why := unreachable(parts.hostname, parts.port or 443):
      raise UserError(
        f"{parts.hostname} cannot be reached ({why}), where the data set is"
        " downloaded from; prepare it on a machine with a network, and copy"
        " its folder of data ($JAXGEN_DATA, --data_dir)"
      )


@functools.lru_cache
def unreachable(host: str, port: int, seconds: float = 8.0) -> str:
  """Why a host does not answer, found out in so many seconds; "" if it does."""
  answers = []

  def call():
    try:
      socket.create_connection((host, port), seconds).close()
      answers.append("")
    except OSError as e:
      answers.append(e.strerror or str(e))

  thread = threading.Thread(target=call, daemon=True)  # names may hang, too
  thread.start()
  thread.join(seconds)
  return answers[0] if answers else f"no answer in {seconds:g} s"


def _builder_class(name: str):
  import tensorflow_datasets as tfds

  base = name.partition(":")[0].split("/")[0]
  try:
    return tfds.builder_cls(base)
  except tfds.core.registered.DatasetNotFoundError as e:
    names = tfds.list_builders(with_community_datasets=False)
    close = difflib.get_close_matches(base, names, 1)
    hint = f"; did you mean tfds:{close[0]}?" if close else ""
    raise UserError(f"TFDS has no data set '{base}'{hint}") from e


@contextlib.contextmanager
def without_tensorflow(builder_class: type):
  """Stands in for the parts of TensorFlow that a builder uses."""
  from tensorflow_datasets.core.features import image_feature

  from jaxgen.data import catalogue

  module = sys.modules[builder_class.__module__]
  png = functools.partial(_encode, kind="PNG")
  jpeg = functools.partial(_encode, kind="JPEG", quality=95)  # as tf.image.encode_jpeg
  encoders = {"png": lambda: png, "jpeg": lambda: jpeg}
  with contextlib.ExitStack() as stack:
    stack.enter_context(catalogue.audio_without_tensorflow())
    if importlib.util.find_spec("pydub") is None:
      stack.enter_context(mock.patch.dict(sys.modules, {"pydub": _pydub()}))
    patch = lambda *args: stack.enter_context(mock.patch.object(*args))
    patch(image_feature, "_ENCODE_FN", encoders)
    patch(image_feature.utils, "TFGraphRunner", _Runner)
    if "tf" in vars(module):
      patch(module, "tf", _tensorflow())
    if importlib.util.find_spec("importlib_resources") is None:
      # TFDS imports this backport; the standard library is the original
      names = ("", ".abc")
      modules = {
        f"importlib_resources{n}": importlib.import_module(f"importlib.resources{n}") for n in names
      }
      stack.enter_context(mock.patch.dict(sys.modules, modules))
    yield


class _Runner:
  """TFDS runs its encoders through a TensorFlow graph; ours need none."""

  def run(self, encode, x: np.ndarray) -> bytes:
    return encode(x)


def _encode(x: np.ndarray, kind: str, **options) -> bytes:
  if x.dtype != np.uint8:
    raise ImportError(f"TensorFlow, to encode {x.dtype} images")
  file = io.BytesIO()
  x = x[..., 0] if x.shape[-1] == 1 else x
  Image.fromarray(x).save(file, kind, **options)
  return file.getvalue()


class _Segment:
  """What builders ask of pydub.AudioSegment: a file's samples of 16 bits."""

  def __init__(self, wave: np.ndarray):
    self.wave, self.channels = wave, wave.shape[1]

  @classmethod
  def from_file(cls, file, format: str | None = None) -> "_Segment":
    """Of a path or an open file; `format` is told by the file itself."""
    del format
    soundfile = recordings.library("soundfile")
    # Not the stream itself: those of archives cannot be searched.
    file = io.BytesIO(file.read()) if callable(vars(type(file)).get("read")) else file
    try:
      return cls(soundfile.read(file, dtype="int16", always_2d=True)[0])
    except soundfile.LibsndfileError as e:
      raise Undecodable(str(e)) from e

  def set_channels(self, channels: int) -> "_Segment":
    """One that is the mean of all, or as many copies of it."""
    mean = np.rint(self.wave.mean(1, keepdims=True)).astype(np.int16)
    return _Segment(np.repeat(mean, channels, 1))

  def get_array_of_samples(self) -> np.ndarray:
    """Samples of all channels, in turn."""
    return self.wave.ravel()


class Undecodable(Exception):
  """pydub's, of a file that is no sound."""


def _pydub() -> types.SimpleNamespace:
  """Reads audio by libsndfile, where pydub would by ffmpeg."""
  return types.SimpleNamespace(
    AudioSegment=_Segment, exceptions=types.SimpleNamespace(CouldntDecodeError=Undecodable)
  )


def _tensorflow() -> types.SimpleNamespace:
  """The files and dtypes of TensorFlow, by Python and numpy."""
  gfile = types.SimpleNamespace(
    GFile=lambda path, mode="r": open(path, mode),
    exists=os.path.exists,
    isdir=os.path.isdir,
    listdir=os.listdir,
    glob=glob.glob,
  )
  kinds = (np.uint8, np.int32, np.int64, np.float32, np.float64)
  return types.SimpleNamespace(
    io=types.SimpleNamespace(gfile=gfile), **{kind.__name__: kind for kind in kinds}
  )


WORDS = ("tfds:NAME", "digits")


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flags.DEFINE_string("what", None, "tfds:NAME or digits", flag_values=values)
  flags.DEFINE_string(
    "data_dir",
    None,
    "default: $JAXGEN_DATA, or jaxgen/data in $XDG_CACHE_HOME or ~/.cache",
    flag_values=values,
  )


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.what:
    raise UserError("prepare what? Such as: jaxgen prepare tfds:cifar10")
  print(printable(prepare(values.what, values.data_dir)))
