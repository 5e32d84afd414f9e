"""What a data set of sound holds, looked at before anything is trained on it.

How many recordings of which lengths, rates and channels, classes, what is broken
or silent, duplicates, the length of clips and why, and what is held out.
"""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data import pack, phash, recordings, spoken
from jaxgen.data.clips import Clips
from jaxgen.data.folder import choose, listing
from jaxgen.data.sound_hash import near_duplicates
from jaxgen.data.sources import open_source, open_split
from jaxgen.data.summary import classes as class_summary
from jaxgen.data.survey import REACH, check_enough, duplicates, last_lines, listed
from jaxgen.errors import UserError, printable

LENGTHS = (16_384, 4096)  # samples of clips to work at, as nets like them
HEADS = 2000  # files whose rate and channels are looked at


@dataclasses.dataclass(frozen=True)
class ClipSurvey:
  """What was seen of a data set of sound.

  Attributes:
    data: config.data as it should be: source, split, size, rate, classes,
      holdout.
    reason: Why clips of this length.
    count: Recordings that can be read, of the training split.
    seconds: Shortest, median and longest recording, and all together.
    rates, channels: How many files have which, by what their heads say; {} where
      there are no files.
    cut: Recordings that are longer than a clip.
    train, test: How many to train on, and to judge by.
    own_test: Whether the data have a test split of their own.
    classes: Their names, as text.
    skipped: "file: why" of what cannot be read.
    silent: Files that hold nothing but silence.
    duplicates: Recordings whose clip is equal to an earlier one.
    near_duplicates: Those that sound nearly, but not quite, like an earlier one.
    example: Files of a near or exact pair, or ().
    notes: What else there is to say.
  """

  data: dict[str, Any]
  reason: str
  count: int
  seconds: tuple[float, float, float, float]
  rates: dict[int, int]
  channels: dict[int, int]
  cut: int
  train: int
  test: int
  own_test: bool
  classes: str
  skipped: tuple[str, ...]
  silent: tuple[str, ...]
  duplicates: int
  near_duplicates: int
  example: tuple[str, ...]
  notes: tuple[str, ...]

  def lines(self) -> list[str]:
    """All that for people, a line each."""
    data, (least, median, most, total) = self.data, self.seconds
    size, rate = data["size"], data["rate"]
    lines = [
      f"{data['source']}: {self.count:,} recordings, {duration(total)} in all, {self.classes}",
      f"lengths: {least:.3g} to {most:.3g} s, median {median:.3g} s",
    ]
    if self.rates:
      rates = ", ".join(f"{r:,} Hz ({n:,})" for r, n in self.rates.items())
      channels = ", ".join(f"{c} ({n:,})" for c, n in self.channels.items())
      lines.append(f"files: {rates}; channels {channels}: worked at {rate:,} Hz, their mean")
    lines.append(f"clips of {size / rate:.3g} s, {size:,} samples at {rate:,} Hz: {self.reason}")
    if self.cut:
      lines.append(
        f"{self.cut:,} recordings are longer: a stretch of each is trained on, by chance"
      )
    if self.skipped:
      lines.append(f"{len(self.skipped):,} files cannot be read: {listed(self.skipped)}")
    if self.silent:
      lines.append(f"{len(self.silent):,} files are silent: {listed(self.silent)}")
    return [printable(line) for line in (*lines, *last_lines(self, "clips"))]

  def json(self) -> dict[str, Any]:
    """All that for programs."""
    return dataclasses.asdict(self)


def duration(seconds: float) -> str:
  """12 s, 3.4 min, 1.2 h."""
  if seconds < 120:
    return f"{seconds:.3g} s"
  return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def survey_clips(data: Mapping[str, Any], most: int | None = None) -> ClipSurvey:
  """Looks at all recordings of a data set, of which those in folders get packed.

  Args:
    data: As config.data: source; rate (0: of spoken_digits, its own); size,
      samples of a clip (0: by the data); split, holdout.
    most: Samples of a clip to choose where `data` gives none: what the machine
      can train on; None: any.

  Raises:
    UserError: There is nothing to learn from.
  """
  data = {"split": "train", "size": 0, "holdout": 0.0} | dict(data)
  data["rate"] = data["rate"] or spoken.RATE
  source = open_sound(data, data["size"] or LENGTHS[-1])
  lengths = np.diff(source.ends, prepend=0)
  if data["size"]:
    reason = "as asked for"
  else:
    data["size"], reason = length(lengths, most)
    source = dataclasses.replace(source, size=data["size"])
  data["classes"] = source.classes
  x, _ = source.arrays()
  _, pairs = near_duplicates(x, source.rate)
  groups = phash.groups(len(x), pairs)
  check_enough(source, groups, "clip")
  copies, pair = duplicates(x, pairs)
  rates, channels, names = heads(data, source)
  silent = tuple(s for s in source.skipped if s.endswith("is silent"))
  train, test = open_split(data, "train"), open_split(data, "test")
  seconds = lengths / source.rate
  return ClipSurvey(
    data=data,
    reason=reason,
    count=len(source),
    seconds=tuple(float(f(seconds)) for f in (np.min, np.median, np.max, np.sum)),
    rates=rates,
    channels=channels,
    cut=int(np.sum(lengths > data["size"])),
    train=len(train),
    test=len(test),
    own_test=test.rows is None,
    classes=class_summary(source) if source.classes else "no classes",
    skipped=tuple(s for s in source.skipped if s not in silent),
    silent=silent,
    duplicates=copies,
    near_duplicates=len(x) - len(np.unique(groups)) - copies,
    example=tuple(names[i] for i in pair) if names else (),
    notes=(*source.notes, *(n for n in train.notes if n not in source.notes)),
  )


def open_sound(data: Mapping[str, Any], size: int) -> Clips:
  """The clips of all that is trained on or held out of it; UserError if it is no sound."""
  source = open_source(data["source"], data["split"], size, rate=data["rate"])
  if not isinstance(source, Clips):
    raise UserError(f"--rate is of sound, and {source.name} holds none: leave it")
  return source


def length(lengths: Sequence[int], most: int | None) -> tuple[int, str]:
  """Samples of a clip, and why: the least that nine in ten recordings fit into."""
  reach = sorted(lengths)[math.ceil(REACH * len(lengths)) - 1]
  size = next((s for s in reversed(LENGTHS) if s >= reach), LENGTHS[0])
  share = np.mean(np.asarray(lengths) <= size)
  whole = f"{100 * share:.3g}% of the recordings are no longer"
  if most is not None and size > most:
    return most, f"what this machine can train on; the recordings would do for --size={size}"
  return size, whole if share >= REACH else f"the most that nets here take; {whole}"


def heads(
  data: Mapping[str, Any], source: Clips
) -> tuple[dict[int, int], dict[int, int], list[str]]:
  """Counts of files by rate and by channels, and the names of those that are clips."""
  kind, _, path = data["source"].partition(":")
  if kind != "folder":
    return {}, {}, []
  soundfile = recordings.library("soundfile")
  top = Path(path).expanduser()
  chosen = choose(path, listing(top, recordings.SUFFIXES, "recordings"), data["split"])
  names = [chosen.names[i] for i in pack.readable_rows(chosen.names, source.skipped)]
  about = [soundfile.info(str(top / chosen.base / name)) for name in names[:HEADS]]
  count = lambda values: dict(collections.Counter(values).most_common())
  return count(a.samplerate for a in about), count(a.channels for a in about), names


def check_images(source: str) -> None:
  """UserError for a folder of recordings, where nobody said that it is of sound."""
  kind, _, path = source.partition(":")
  top = Path(path).expanduser()
  if kind != "folder" or not top.is_dir():
    return
  try:
    listing(top)
  except UserError:
    try:
      listing(top, recordings.SUFFIXES, "recordings")
    except UserError:
      return  # whoever wants images says so
    raise UserError(
      f"{source} holds recordings: say at which rate to work, such as --rate=16000"
    ) from None
