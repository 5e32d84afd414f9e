"""Samples as a person keeps them: one picture, a sample file, a folder."""

import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxgen import files
from jaxgen.audio.wav import save_wav
from jaxgen.errors import UserError
from jaxgen.files import atomic
from jaxgen.monitor import pictures, results
from jaxgen.monitor.results import kind_of


def json_knobs(settings: dict[str, float]) -> dict[str, float | None]:
  """Knobs as JSON can say them: what is unbounded is None."""
  return {k: v if np.isfinite(v) else None for k, v in settings.items()}


def digest_of(*arrays: np.ndarray) -> str:
  """Sixteen hex digits of the contents of arrays."""
  h = hashlib.sha256()
  for a in arrays:
    h.update(f"{a.shape}{a.dtype}".encode() + np.ascontiguousarray(a).tobytes())
  return h.hexdigest()[:16]


def portrait(
  x: np.ndarray, path: pathlib.Path, info: dict[str, Any], columns: int | None = None
) -> np.ndarray:
  """Writes samples as one picture, with how it was made; of clips their spectrograms."""
  if x.dtype == np.int16:
    x = pictures.spectrograms(x[..., 0])
  image = pictures.scatter(x) if x.ndim == 2 else pictures.grid(x, columns)
  pictures.save_png(path, image, info)
  return image


def part_of(
  info: dict[str, Any], num: float = np.inf, labels: Sequence[int | None] | None = None
) -> Callable[[str], dict[str, Any] | None]:
  """Name of a picture in a folder -> its info; None for other names.

  Labels are those of all pictures, or None if they are not known yet. Clips,
  whose info has their `rate`, are WAV files.
  """
  end = ".wav" if "rate" in info else ".png"

  def info_of(name: str) -> dict[str, Any] | None:
    stem = name.removesuffix(end)
    i = int(stem) if re.fullmatch(r"\d{1,9}", stem) else -1
    if name != f"{i:06d}{end}" or not 0 <= i < num:
      return None
    return info | {"index": i} | ({} if labels is None else {"label": labels[i]})

  return info_of


def write(
  out: str,
  x: np.ndarray,
  labels: np.ndarray | None,
  info: dict[str, Any],
  columns: int | None = None,
  more: dict[str, np.ndarray] | None = None,
) -> None:
  """Samples as one grid, a sample file or a folder of pictures.

  Args:
    out: x.png, x.npz or a folder.
    x: uint8 [N, H, W, C], points, or clips int16 [N, L, 1].
    labels: [N].
    info: How they were made.
    columns: Of the grid.
    more: Further arrays for the sample file.

  Raises:
    UserError: The folder holds something else, or it cannot be written.
  """
  path, kind = files.path(out), kind_of(out)
  try:
    if kind == ".png":
      portrait(x, path, info, columns)
    elif kind == ".npz":
      arrays = [x] if labels is None else [x, labels]
      with atomic(path) as draft, draft.open("wb") as file:
        np.savez(file, *arrays, info=json.dumps(info), **more or {})
    else:
      write_folder(path, x, [None] * len(x) if labels is None else labels.tolist(), info)
  except OSError as e:
    raise UserError(f"cannot write {e.filename or out}: {e.strerror or e}") from e


def write_folder(
  path: pathlib.Path, x: np.ndarray, labels: Sequence[Any], info: dict[str, Any]
) -> None:
  """Samples as one picture or clip each, with the name of its own class alone."""
  names = info.get("class_names") or ()
  info = {k: v for k, v in info.items() if k != "class_names"}
  results.check_folder(path, part_of(info, len(x), labels))
  for i, (image, y) in enumerate(zip(x, labels, strict=True)):
    own = {"class": names[y]} if isinstance(y, int) and 0 <= y < len(names) else {}
    about = info | {"index": i, "label": y} | own
    if image.dtype == np.int16:
      save_wav(path / f"{i:06d}.wav", image, info["rate"], about)
    else:
      portrait(image[None], path / f"{i:06d}.png", about)
