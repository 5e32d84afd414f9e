"""Sound files of any rate, kind and number of channels, as one channel of int16.

libsndfile decodes and libsoxr resamples, both from wheels: the extra `sound`.
"""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np

from jaxgen.errors import UserError

SUFFIXES = frozenset((".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au"))
BLOCK = 1 << 16  # samples that are decoded at a time
SHORTEST = 0.01  # seconds of what is a recording
SILENT = 1e-4  # loudest sample of what is none


def library(name: str) -> ModuleType:
  """soundfile or soxr; UserError where the extra is not installed."""
  try:
    return importlib.import_module(name)
  except (ImportError, OSError) as e:  # OSError: without libsndfile
    raise UserError(f"sound wants {name} ({e}): pip install 'jaxgen[sound]'") from e


def decode(path: Path, rate: int) -> np.ndarray:
  """A file's samples at `rate`, the mean of its channels, int16 [L].

  Raises:
    ValueError: It cannot be read, is too short, silent, or not finite.
  """
  soundfile, soxr = library("soundfile"), library("soxr")
  try:
    with soundfile.SoundFile(path) as file:
      resampler = soxr.ResampleStream(file.samplerate, rate, 1, dtype="float32")
      parts = []
      for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
        if not np.isfinite(block).all():
          raise ValueError("has samples that are no numbers")
        parts.append(resampler.resample_chunk(np.ascontiguousarray(block.mean(1))))
      parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
  except soundfile.LibsndfileError as e:
    raise ValueError(str(e.error_string).rstrip(".")) from e
  return checked(as_int16(np.concatenate(parts)), rate)


def resampled(wave: np.ndarray, stored: int, rate: int) -> np.ndarray:
  """Samples [L] or [L, channels] at another rate, the mean of channels, int16 [L].

  Floats are in [-1, 1]; whole numbers have 16 bits, or 32 where one is larger.

  Raises:
    ValueError: It is too short, silent, or not finite.
  """
  if not np.isfinite(wave).all():
    raise ValueError("has samples that are no numbers")
  if np.issubdtype(wave.dtype, np.integer):
    loudest = max(int(wave.max(initial=0)), -int(wave.min(initial=0)))
    wave = wave / 2.0 ** (15 if loudest <= 2**15 else 31)
  wave = np.float32(wave.reshape(len(wave), -1).mean(1) if wave.ndim > 1 else wave)
  if rate != stored:
    wave = library("soxr").resample(wave, stored, rate)
  return checked(as_int16(wave), rate)


def checked(wave: np.ndarray, rate: int) -> np.ndarray:
  """The samples; ValueError for a recording of nothing."""
  if len(wave) < SHORTEST * rate:
    raise ValueError(f"has {len(wave)} samples, less than {1000 * SHORTEST:.0f} ms")
  if np.abs(wave.astype(np.int32)).max() < SILENT * 2**15:
    raise ValueError("is silent")
  return wave


def as_int16(wave: np.ndarray) -> np.ndarray:
  """[-1, 1] -> int16; what is louder is cut off."""
  return np.clip(np.rint(wave * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
