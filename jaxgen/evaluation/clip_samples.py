"""Clips to be judged: a sample file of int16 or floats, or a folder of recordings.

Of another rate, length or number of channels than the data that they imitate
they are refused, unless they may be converted: what is lost, or appears, by that
counts as a difference of sounds.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen import files
from jaxgen.audio.wav import read_info
from jaxgen.core import trait
from jaxgen.data import arrayfile, recordings
from jaxgen.data.arrays import Source
from jaxgen.data.folder import classes_of, listing
from jaxgen.data.npz import read_labels
from jaxgen.errors import UserError
from jaxgen.sampling.output import digest_of

CONVERT = "--convert resamples, mixes channels, and crops or pads to the length of the data"


class ClipSamples(NamedTuple):
  """Clips and where they come from.

  Attributes:
    x: int16 [N, L, 1].
    y: Labels, int32 [N], or None.
    origin: For a card.
  """

  x: np.ndarray
  y: np.ndarray | None
  origin: dict[str, Any]


def open_clip_samples(
  name: str, real: Source, convert: bool = False, num: int | None = None
) -> ClipSamples:
  """Clips of a file or a folder, to be compared with real ones.

  Args:
    name: x.npz (arr_0 int16 or float [N, L] or [N, L, 1], arr_1 labels), x.npy,
      or a folder of recordings; its subfolders are classes by their names.
    real: Clips that they imitate.
    convert: Whether what differs in form is brought to theirs.
    num: The first so many; None: all.

  Raises:
    UserError: There are none, they are no clips, or not like the real ones.
  """
  path = files.local(name)
  x, y = of_folder(path, real, convert) if path.is_dir() else of_file(path, real, convert)
  if num is not None and not 1 <= num <= len(x):
    raise UserError(f"--num={num}, but {name} holds {len(x):,} clips")
  x, y = x[:num], None if y is None else y[:num].astype(np.int32)
  origin = {"samples": name, "fingerprint": digest_of(x, *(() if y is None else (y,)))}
  return ClipSamples(x, y, origin | {"converted": convert})


def of_file(path: Path, real: Source, convert: bool) -> tuple[np.ndarray, np.ndarray | None]:
  """Of an .npz or .npy."""
  names = arrayfile.names(path)
  if "arr_0" not in names:
    raise UserError(f"{path} is no sample file: it has no arr_0, but {', '.join(names[:8])}")
  stored = arrayfile.stored(path, "arr_0")
  shape, kind = stored.shape, f"arr_0 of {path} is {stored.dtype} {list(stored.shape)}"
  floats = stored.dtype.kind == "f"
  if len(shape) == 3 and shape[-1] > 1:
    raise UserError(f"{kind}, of {shape[-1]} channels: save their mean, [N, L, 1]")
  if not (floats or stored.dtype == np.int16) or len(shape) not in (2, 3) or not all(shape):
    raise UserError(f"{kind}; wanted are clips, int16 [N, L, 1] or floats in [-1, 1]")
  x = stored.whole().reshape(*shape[:2], 1)
  if floats:
    if not np.isfinite(x).all():
      raise UserError(f"arr_0 of {path} holds NaN or infinity")
    if np.abs(x).max() > 2:
      raise UserError(f"arr_0 of {path} goes up to {np.abs(x).max():.3g}: want [-1, 1], or int16")
    x = recordings.as_int16(x)
  rate = rate_of(path, names) or real_rate(real)
  check_rate(path, rate, real, convert)
  check_length(path, x.shape[1], real, convert)
  x = np.stack([conform(wave[:, 0], rate, real) for wave in x])
  return x, read_labels(path, len(x)) if "arr_1" in names else None


def rate_of(path: Path, names: tuple[str, ...]) -> int:
  """Samples a second, as `jaxgen sample` writes them; 0: nobody says so."""
  if "info" not in names:
    return 0
  try:
    rate = json.loads(str(arrayfile.stored(path, "info").whole())).get("rate", 0)
  except (UserError, ValueError, AttributeError, RecursionError):
    return 0
  return rate if type(rate) is int and rate > 0 else 0


def of_folder(top: Path, real: Source, convert: bool) -> tuple[np.ndarray, np.ndarray | None]:
  """Of a folder of recordings."""
  names = listing(top, recordings.SUFFIXES, "recordings")
  x = np.stack([read_clip(top / name, real, convert) for name in names])
  classes, folders = classes_of(names)
  if classes and None not in folders and set(classes) <= set(real.class_names):
    place = [real.class_names.index(c) for c in classes]
    return x, np.array([place[f] for f in folders], np.int32)
  labels = [label_of(top / name) for name in names]
  return x, None if None in labels else np.array(labels, np.int32)


def label_of(path: Path) -> int | None:
  """As `jaxgen sample` writes it into a WAV."""
  try:
    label = read_info(path).get("label")
  except UserError:  # of another program
    return None
  return label if type(label) is int and label >= 0 else None


def read_clip(path: Path, real: Source, convert: bool) -> np.ndarray:
  """One file, int16 [L, 1]; a silent one is a bad sample, not a bad file."""
  soundfile = recordings.library("soundfile")
  try:
    with soundfile.SoundFile(path) as file:
      rate, channels = file.samplerate, file.channels
      if channels > 1 and not convert:
        raise UserError(f"{path} has {channels} channels, and {real.name} one: {CONVERT}")
      check_rate(path, rate, real, convert)
      check_length(path, len(file), real, convert)
      wave = file.read(dtype="float32", always_2d=True)
  except soundfile.LibsndfileError as e:
    raise UserError(f"{path} cannot be read: {str(e.error_string).rstrip('.')}") from e
  if not len(wave) or not np.isfinite(wave).all():
    raise UserError(f"{path} holds " + ("NaN or infinity" if len(wave) else "no samples"))
  return conform(recordings.as_int16(wave.mean(1)), rate, real)


def real_rate(real: Source) -> int:
  """Samples a second of real clips."""
  return trait(real, "rate")


def check_rate(path: Path, rate: int, real: Source, convert: bool) -> None:
  """UserError unless clips are of the rate of the data, or may be resampled."""
  if rate != real_rate(real) and not convert:
    raise UserError(f"{path} is at {rate} Hz, and {real.name} at {real_rate(real)}: {CONVERT}")


def check_length(path: Path, length: int, real: Source, convert: bool) -> None:
  """UserError unless clips are as long as those of the data, or may be cut."""
  if length != real.shape[0] and not convert:
    raise UserError(
      f"{path} is {length} samples long, and clips of {real.name} are {real.shape[0]}: {CONVERT}"
    )


def conform(wave: np.ndarray, rate: int, real: Source) -> np.ndarray:
  """int16 [L] at a rate -> [L, 1] of the rate and the length of the data."""
  if rate != real_rate(real):
    soxr = recordings.library("soxr")
    wave = soxr.resample(wave.astype(np.float32) / 2**15, rate, real_rate(real))
    wave = recordings.as_int16(wave)
  spare = len(wave) - real.shape[0]
  if spare >= 0:  # the middle, as data are cut
    wave = wave[spare // 2 : spare // 2 + real.shape[0]]
  else:
    wave = np.pad(wave, (-spare // 2, -spare - (-spare // 2)))
  return wave[:, None]
