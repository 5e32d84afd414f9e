"""Clips of one length, of recordings that are longer or shorter.

A packed data set of sound is a folder with `x.bin`, the samples of all
recordings one after the other, int16; `ends.bin`, where each ends, int64;
`peaks.bin`, the loudest of each, int32; `y.bin`, labels, int32; and `meta.json`.
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxgen.data import cache, recordings
from jaxgen.data.arrays import Example
from jaxgen.data.folder import choose, listing
from jaxgen.data.pack import Unreadable
from jaxgen.errors import UserError, printable
from jaxgen.files import local

VERSION = 2  # of how files become samples
QUIET = 0.01  # of a recording's loudest sample: a clip below it is a pause
TRIES = 8  # places of a clip, until one is no pause
GOLDEN = 2654435769  # 2^32 over the golden ratio: places far from each other
RATES = 1000, 384_000  # least and most samples a second
EVERY = 10  # seconds between lines of progress


ROWS = ("starts", "ends", "peaks", "y")  # of Clips: an entry for each recording


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Clips:
  """The source of clips, {"x": int16 [size, 1], "y": label}.

  A clip is a stretch of its recording: where, is drawn in training, and the
  middle elsewhere. Shorter recordings lie between silence. Recordings stay as
  they are, silence at their ends and pauses, too; but of a longer one no clip is
  all pause: another place is taken then, the same whenever it is read.
  """

  name: str
  folder: Path
  size: int  # samples of a clip
  rate: int  # of them, a second
  wave: np.ndarray  # int16, of all recordings
  starts: np.ndarray  # int64 [N]: where each begins in `wave`
  ends: np.ndarray  # int64 [N]
  peaks: np.ndarray  # int32 [N]
  y: np.ndarray | None
  class_names: tuple[str, ...]
  skipped: tuple[str, ...]
  stored_fingerprint: str
  notes: tuple[str, ...] = ()
  rows: np.ndarray | None = None  # which of what is packed; None: all

  dtype = np.dtype(np.int16)

  @property
  def shape(self) -> tuple[int, ...]:
    return (self.size, 1)

  @property
  def classes(self) -> int:
    return 0 if self.y is None else len(self.class_names)

  @property
  def in_memory(self) -> bool:
    return self.wave.nbytes < 2**30

  @property
  def fingerprint(self) -> str:
    """Hex digits of all recordings, and of the clips' length."""
    h = hashlib.blake2b(f"{self.stored_fingerprint}{self.size}".encode(), digest_size=8)
    if self.rows is not None:
      h.update(self.rows.tobytes())
    return h.hexdigest()

  def __len__(self) -> int:
    return len(self.ends)

  def __getitem__(self, i: int) -> Example:
    return {k: v[0] for k, v in self.read(np.array([i])).items()}

  def read(self, indices: np.ndarray, cut: None = None, words: np.ndarray | None = None) -> Example:
    """The clips at `indices`, stacked.

    Args:
      indices: Of recordings, [n].
      cut: None: images are cut so, and sound is not.
      words: 32 random bits for each, uint64 [n]: where clips begin. Without,
        they are of the middle.
    """
    del cut
    x = np.zeros((len(indices), self.size, 1), np.int16)
    for k, i in enumerate(indices):
      start, end = self.starts[i], self.ends[i]
      if end - start < self.size:
        pad = (self.size - (end - start)) // 2
        x[k, pad : pad + end - start, 0] = self.wave[start:end]
      else:
        x[k, :, 0] = self.stretch(i, None if words is None else int(words[k]))
    return {"x": x} if self.y is None else {"x": x, "y": self.y[indices]}

  def stretch(self, i: int, word: int | None) -> np.ndarray:
    """A clip of a recording that is as long, int16 [size]: of its middle, or by a word."""
    spare = int(self.ends[i] - self.starts[i]) - self.size
    at = spare // 2 if word is None else word * (spare + 1) >> 32
    for n in range(1, TRIES + 1):
      first = int(self.starts[i]) + at
      clip = self.wave[first : first + self.size]
      if max(int(clip.max()), -int(clip.min())) >= QUIET * self.peaks[i]:
        break
      at = ((word or 0) + n * GOLDEN) % 2**32 * (spare + 1) >> 32
    return clip

  def waves(self) -> Iterator[np.ndarray]:
    """Every recording, whole, int16 [L]."""
    for start, end in zip(self.starts, self.ends, strict=True):
      yield self.wave[start:end]

  def take(self, rows: np.ndarray, notes: Sequence[str] = ()) -> "Clips":
    """The source of some of its recordings, int64 [n] in ascending order."""
    kept = {k: vars(self)[k][rows] for k in ROWS if vars(self)[k] is not None}
    rows = rows if self.rows is None else self.rows[rows]
    return dataclasses.replace(self, **kept, rows=rows, notes=(*self.notes, *notes))

  def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
    return self.read(np.arange(len(self)))["x"], self.y

  def __getstate__(self):  # to a worker process goes the folder's name
    return vars(self) | dict.fromkeys(("wave", *ROWS))

  def __setstate__(self, state):
    again = open_packed(state["folder"], state["name"], state["size"])
    if state["rows"] is not None:
      again = again.take(state["rows"])
    vars(self).update(state | {k: vars(again)[k] for k in ("wave", *ROWS)})


def open_clips(path: str, split: str, size: int | None, rate: int, root: Path) -> Clips:
  """The recordings below a folder, packed on first use; see `folder.open_folder`.

  Subfolders are classes or splits as those of images are.

  Args:
    path: Of the folder.
    split: "train", or another that it has.
    size: Samples of a clip.
    rate: Samples a second, to which recordings are resampled.
    root: Where packed data lie.

  Raises:
    UserError: There is no such folder, no recording, or no size.
  """
  name, top = f"folder:{path}", local(path)
  check_clip(name, size, rate)
  if top.is_file():
    raise UserError(f"{top} is a file; {name} with a rate wants a folder of recordings")
  if not top.is_dir():
    raise UserError(f"there is no folder {top}")
  chosen = choose(path, listing(top, recordings.SUFFIXES, "recordings"), split)
  if chosen.classes and None in chosen.labels:
    first = chosen.names[chosen.labels.index(None)]
    raise UserError(f"{top} holds recordings beside folders of them, of no class: {first}")
  files = [top / chosen.base / n for n in chosen.names]
  key = hashlib.blake2b(digest_size=6)
  for file in files:
    stat = file.stat()
    key.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
  stem = (top / chosen.base).name.encode("utf-8", "replace")[:80].decode("utf-8", "ignore")
  target = root / "packed" / f"{stem}-{rate}hz-v{VERSION}-{key.hexdigest()}"

  def load(i: int) -> np.ndarray:
    try:
      return recordings.decode(files[i], rate)
    except (ValueError, OSError, RuntimeError) as e:
      raise Unreadable(f"{chosen.names[i]}: {e}") from e

  clips = packed(name, target, load, chosen.labels, chosen.classes, rate, size)
  return dataclasses.replace(clips, notes=tuple(chosen.notes))


def check_clip(name: str, size: int | None, rate: int) -> None:
  """UserError for clips of no length, or of a rate that is none of sound."""
  if not RATES[0] <= rate <= RATES[1]:
    raise UserError(
      f"{name}: a rate of {rate} samples a second: want {RATES[0]:,} to {RATES[1]:,}, such as "
      "--config.data.rate=16000"
    )
  if size is None:
    raise UserError(
      f"{name} with a rate is of sound: say how many samples a clip has, --config.data.size={rate}"
    )


def packed(
  name: str,
  target: Path,
  load: Callable[[int], np.ndarray],
  labels: Sequence[int | None],
  classes: Sequence[str],
  rate: int,
  size: int,
) -> Clips:
  """The recordings load(0), load(1), .., packed in `target` on first use.

  What cannot be read is left out and named on stderr. UserError if nothing can
  be read.
  """
  fresh = not target.exists()
  if fresh:
    cache.once(target, lambda tmp: pack(name, tmp / target.name, load, labels, classes, rate))
  clips = open_packed(target, name, size)
  if fresh and clips.skipped:
    shown = "; ".join(clips.skipped[:5]) + ("; .." if len(clips.skipped) > 5 else "")
    report(f"{name}: {len(clips.skipped)} of {len(labels)} left out: {shown}")
  return clips


def pack(
  name: str,
  folder: Path,
  load: Callable[[int], np.ndarray],
  labels: Sequence[int | None],
  classes: Sequence[str],
  rate: int,
) -> None:
  """Writes a packed data set."""
  folder.mkdir()
  ends, peaks, y, skipped, h = [], [], [], [], hashlib.blake2b(digest_size=8)
  reported, at = time.monotonic(), 0
  with open(folder / "x.bin", "wb") as file:
    for i, label in enumerate(labels):
      try:
        wave = load(i)
      except Unreadable as e:
        skipped.append(str(e))
        continue
      file.write(wave.data)
      h.update(wave.data)
      at += len(wave)
      ends.append(at)
      peaks.append(max(int(wave.max()), -int(wave.min())))
      y.append(label)
      if time.monotonic() > reported + EVERY:
        reported = time.monotonic()
        report(f"packing {name}: {i + 1} of {len(labels)}")
  if not ends:
    raise UserError(f"{name}: none of {len(labels)} recordings can be read, e.g. {skipped[0]}")
  np.array(ends, np.int64).tofile(folder / "ends.bin")
  h.update(np.array(ends, np.int64).data)
  np.array(peaks, np.int32).tofile(folder / "peaks.bin")
  if classes:
    np.array(y, np.int32).tofile(folder / "y.bin")
    h.update(np.array(y, np.int32).data)
  meta = {
    "rate": rate,
    "count": len(ends),
    "class_names": list(classes),
    "fingerprint": h.hexdigest(),
    "skipped": skipped,
  }
  (folder / "meta.json").write_text(json.dumps(meta, indent=1))


def open_packed(folder: Path, name: str, size: int) -> Clips:
  """Maps a packed data set; UserError if it is damaged."""
  try:
    meta = json.loads((folder / "meta.json").read_text())
    ends = np.fromfile(folder / "ends.bin", np.int64)
    peaks = np.fromfile(folder / "peaks.bin", np.int32)
    wave = np.memmap(folder / "x.bin", np.int16, "r")
    y = np.fromfile(folder / "y.bin", np.int32) if meta["class_names"] else None
    if len(ends) != meta["count"] or ends[-1] != len(wave) or (np.diff(ends) < 1).any():
      raise ValueError("sizes disagree")
    if len(peaks) != len(ends) or (y is not None and len(y) != len(ends)):
      raise ValueError("peaks or labels are missing")
  except (OSError, ValueError, KeyError, IndexError) as e:
    raise UserError(
      f"the packed copy of {name} in {folder} is damaged ({e}); delete that folder and it will be "
      "made again"
    ) from e
  return Clips(
    name,
    folder,
    size,
    meta["rate"],
    np.asarray(wave),
    np.concatenate([[0], ends[:-1]]),
    ends,
    peaks,
    y,
    tuple(meta["class_names"]),
    tuple(meta["skipped"]),
    meta["fingerprint"],
  )


def report(line: str) -> None:
  """To stderr."""
  print(f"jaxgen: {printable(line)}", file=sys.stderr, flush=True)
