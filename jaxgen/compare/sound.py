"""Clips of a report: a few to listen to, each with its spectrogram."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxgen.audio import wav
from jaxgen.monitor import pictures

CLIPS = "clips"  # folder of them, beside a report
MOST, FEWEST = 10, 2  # of a model
BYTES = 600_000  # of a model's clips together, for pages are to stay small


def names_of(grids: Iterable[str]) -> list[str]:
  """All files that `clips_of` may name, of rows with these pictures."""
  stems = (f"{CLIPS}/{grid}-{i}" for grid in grids for i in range(MOST))
  return [f"{stem}{end}" for stem in stems for end in (".wav", ".png")]


def clips_of(
  grid: str, x: np.ndarray, rate: int, y: np.ndarray | None = None, class_names: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
  """The clips of a row, [{label, sound, picture}], and their files by these names.

  The first of each class, as far as there is room; without classes the first.

  Args:
    grid: Name of the picture of all samples, with which names of files begin.
    x: Samples; of others than clips int16 [N, L, 1] there is nothing.
    rate: Samples a second; 0: it is no sound.
    y: Labels [N].
    class_names: By label.
  """
  if not rate:
    return [], {}
  most = max(FEWEST, min(MOST, BYTES // (2 * x.shape[1])))
  if y is None:
    rows = np.arange(min(len(x), most))
  else:
    labels, first = np.unique(y, return_index=True)
    rows = first[labels >= 0][:most]
  looks = pictures.spectrograms(x[rows, :, 0], rate)
  clips, files = [], {}
  for i, (row, look) in enumerate(zip(rows, looks, strict=True)):
    stem = f"{CLIPS}/{grid}-{i}"
    sound, picture = f"{stem}.wav", f"{stem}.png"
    about = {"index": int(row), "label": None if y is None else int(y[row])}
    files[sound] = wav.encode(x[row], rate, about)
    files[picture] = pictures.png(look)
    label = None
    if y is not None:
      label = class_names[y[row]] if y[row] < len(class_names) else str(int(y[row]))
    clips.append({"label": label, "sound": sound, "picture": picture})
  return clips, files
