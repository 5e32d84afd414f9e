"""Clips of a study: folders of recordings, or sample files (.npz) of clips.

Visitors get all of them at one rate, the lowest that any has, as WAVs of one
channel and 16 bits that hold nothing but samples: not where they come from.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.audio import wav
from jaxgen.data import arrayfile, recordings
from jaxgen.data.folder import listing
from jaxgen.errors import UserError

Warn = Callable[[str], None]


def is_file(top: Path) -> bool:
  """Whether clips are rows of a sample file."""
  return top.suffix.lower() == ".npz"


def holds_sound(top: Path) -> bool:
  """Whether a path is of clips: a sample file, or a folder of recordings."""
  if is_file(top):
    return True
  try:
    return bool(listing(top, recordings.SUFFIXES, "recordings"))
  except UserError:
    return False


def names_in(top: Path) -> list[str]:
  """Names of all clips; of a sample file 000000, 000001, ...

  Raises:
    UserError: There are none.
  """
  if not is_file(top):
    if not top.is_dir():
      raise UserError(f"{top}: there is no such folder")
    return listing(top, recordings.SUFFIXES, "recordings")
  return [f"{i:06d}" for i in range(len(rows_of(top)))]


def rows_of(top: Path) -> np.ndarray:
  """The clips of a sample file, int16 [N, L, 1]; UserError if it has none."""
  try:
    with np.load(top, allow_pickle=False) as file:
      x = file["arr_0"]
  except (KeyError, EOFError, *arrayfile.BROKEN) as e:
    raise UserError(f"{top} is no sample file of clips: {e}") from e
  if x.dtype != np.int16 or x.ndim != 3 or x.shape[-1] != 1 or not len(x):
    raise UserError(f"{top} holds {x.dtype} {list(x.shape)}: want clips, int16 [N, L, 1]")
  return x


def origin(top: Path) -> dict[str, Any]:
  """How clips were made, as jaxgen wrote it into them; {} for anybody else's."""
  if is_file(top):
    with np.load(top, allow_pickle=False) as file:
      text = str(file["info"]) if "info" in file else "{}"
    try:
      info = json.loads(text)
    except ValueError:
      return {}
  else:
    try:
      info = wav.read_info(top / names_in(top)[0])
    except UserError:
      return {}
  own = ("index", "label", "class")
  return {k: v for k, v in info.items() if k not in own} if isinstance(info, dict) else {}


def rate_of(top: Path, names: Iterable[str]) -> int:
  """The lowest rate of clips; 0 where nobody says it.

  Files that cannot be read have none.
  """
  if is_file(top):
    rate = origin(top).get("rate")
    return rate if type(rate) is int and rate > 0 else 0
  soundfile, rates = recordings.library("soundfile"), []
  for name in names:
    try:
      rates.append(soundfile.info(str(top / name)).samplerate)
    except (RuntimeError, OSError):
      continue
  return min(rates, default=0)


def common_rate(tops: Iterable[Path], asked: int | None = None) -> int:
  """The lowest rate of all; `asked`: of sample files that do not say theirs."""
  rates = {top: rate_of(top, names_in(top)) or asked for top in tops}
  for top, rate in rates.items():
    if not rate:
      raise UserError(f"{top} does not say its rate: say it, such as --rate=16000")
  return min(rates.values())


def read(path: Path, rate: int, asked: int | None = None) -> np.ndarray:
  """A clip, int16 [L, 1] at `rate` samples a second.

  Args:
    path: Of a recording; or x.npz/000012.
    rate: Of what is returned.
    asked: Of sample files that do not say theirs.

  Raises:
    ValueError: It cannot be read.
  """
  if not is_file(path.parent):
    return recordings.decode(path, rate)[:, None]
  x = rows_of(path.parent)[int(path.name)]
  own = rate_of(path.parent, ()) or asked or rate
  if own == rate:
    return x
  soxr = recordings.library("soxr")
  return recordings.as_int16(soxr.resample(x.astype(np.float32) / 2**15, own, rate))


def readable(top: Path, names: Iterable[str], rate: int, warn: Warn) -> list[str]:
  """Names of the clips that can be read; `warn` gets a line on each other."""
  if is_file(top):
    return list(names)
  good = []
  for name in names:
    try:
      read(top / name, rate)
      good.append(name)
    except (ValueError, OSError, RuntimeError) as e:
      warn(f"{top / name} is left out: {e}")
  return good


def wav_of(path: Path, rate: int, asked: int | None = None) -> bytes:
  """A clip as visitors get it."""
  return wav.encode(read(path, rate, asked), rate)
