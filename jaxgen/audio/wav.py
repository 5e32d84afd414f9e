"""WAV files of 16 bits that say how they were made."""

import json
import os
import struct
from typing import Any

import numpy as np

from jaxgen import files
from jaxgen.errors import UserError

COMMENT = b"ICMT"  # of a LIST chunk of INFO, which players show or skip


def save_wav(path: str | os.PathLike, wave: np.ndarray, rate: int, info: dict[str, Any]) -> None:
  """Writes int16 [L, channels] at `rate` samples a second; see `encode`."""
  files.write_bytes(path, encode(wave, rate, info))


def encode(wave: np.ndarray, rate: int, info: dict[str, Any] | None = None) -> bytes:
  """A file of int16 [L, channels]; `info` goes in as JSON text, None: nothing does."""
  channels = wave.shape[1]
  form = struct.pack("<HHIIHH", 1, channels, rate, 2 * channels * rate, 2 * channels, 16)
  about = b""
  if info is not None:
    about = chunk(b"LIST", b"INFO" + chunk(COMMENT, json.dumps(info).encode() + b"\0"))
  data = np.ascontiguousarray(wave, "<i2").tobytes()
  return chunk(b"RIFF", b"WAVE" + chunk(b"fmt ", form) + about + chunk(b"data", data))


def chunk(name: bytes, content: bytes) -> bytes:
  """A chunk of a RIFF file, of an even length."""
  return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def read_info(path: str | os.PathLike) -> dict[str, Any]:
  """How a file was made; UserError if it is no WAV that jaxgen wrote."""
  try:
    with files.path(path).open("rb") as file:
      head = file.read(1 << 20)
    start = head.index(COMMENT) + 4
    (size,) = struct.unpack_from("<I", head, start)
    info = json.loads(head[start + 4 : start + 4 + size].rstrip(b"\0"))
    if not head.startswith(b"RIFF") or not isinstance(info, dict):
      raise ValueError
    return info
  except (OSError, ValueError, struct.error, RecursionError) as e:
    raise UserError(f"{path} does not say how it was made: not a WAV written by jaxgen") from e
