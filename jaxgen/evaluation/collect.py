"""From images to what metrics want of their features; can be interrupted.

Moments stream in float64, block by block of the same rows, so that they are
bit for bit the same however images were batched, how often all was killed, and
how many processes looked at them.
"""

import contextlib
import dataclasses
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Protocol

import jax
import numpy as np

from jaxgen import files
from jaxgen.distributed import gather
from jaxgen.errors import UserError
from jaxgen.evaluation.images import Images
from jaxgen.files import DRAFT, digest
from jaxgen.metrics.distances import Gaussian, Moments

CHUNK = 64  # images, or more, after which progress is shown and saved
BLOCK = 256  # rows that are summed together, whatever the chunks
SAVE_SECONDS = 30  # at least, between saves
MARK = "begun_by_jaxgen.txt"  # in a folder for what is done so far


class Extractor(Protocol):
  """A network that looks at images.

  Attributes:
    name: goes into the names of metrics.
    sha256: of its weights.
    taps: the features it has; the first are those of Fréchet distances.
    card: how features come about, as JSON.
    batch: images that it likes to look at together.
    shape: [H, W, C] of images; None: any.
  """

  name: str
  sha256: str
  taps: tuple[str, ...]
  card: dict[str, Any]
  batch: int
  shape: tuple[int, ...] | None

  def features(self, images: Iterator[np.ndarray], taps: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Batches uint8 [n, H, W, 3] -> numbers [N, D] by tap, rows in order."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """What to keep of the features.

  Attributes:
    moments: taps whose mean and covariance are wanted.
    rows: taps whose rows are wanted.
    indices: which rows, ascending; None: all.
  """

  moments: tuple[str, ...]
  rows: tuple[str, ...] = ()
  indices: np.ndarray | None = None

  @property
  def taps(self) -> tuple[str, ...]:
    return tuple(dict.fromkeys(self.moments + self.rows))


@dataclasses.dataclass
class Collected:
  """Features of n images: `colour` is the mean of each channel, in 0 .. 255."""

  n: int
  moments: dict[str, Gaussian]
  rows: dict[str, np.ndarray]
  colour: np.ndarray


def collect(
  images: Images,
  extractor: Extractor,
  plan: Plan,
  *,
  key: str = "",
  folder: Path | None = None,
  widths: Mapping[str, int] | None = None,
  tick: Callable[[int], object] = lambda done: None,
) -> Collected:
  """Features of all images, of two or more.

  Args:
    images: to look at.
    extractor: what looks.
    plan: what to keep of its features.
    key: whose work lies in `folder`; that of others is thrown away.
    folder: for what is done so far, also in a bucket, so that killed processes
      go on there next time, as many or others. Of several the first writes and
      reads there for all. None: they begin anew.
    widths: that some taps must have, to be compared later.
    tick: hears how many images are done.

  Raises:
    UserError: images that cannot be read, or features that are not finite, or
      of another width.
  """
  if images.count < 2:
    raise UserError(f"{images.card['name']}: {images.count} images are too few")
  work = Work(images.count, plan, key, folder if jax.process_index() == 0 else None)
  work.share()
  tick(work.done)
  # Whole batches, else some would be padded.
  size = -(-CHUNK // extractor.batch) * extractor.batch * jax.process_count()
  stream = chunks(images.read(work.done, images.count), size)
  with ThreadPoolExecutor(1) as pool:  # sums while the next chunk is looked at
    summed = pool.submit(lambda: None)
    for batches in stream:
      f = gather.look(extractor.features, batches, plan.taps)
      summed.result()
      start, n = work.done, sum(map(len, batches))
      check_features(images, extractor, f, n, start, widths or {})
      work.done += n
      summed = pool.submit(work.absorb, f, batches, start)
      tick(work.done)
    summed.result()
  return work.result()


def chunks(batches: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
  """Regroups batches of any length: lists that hold `size` images together."""
  parts, n = [], 0
  for batch in batches:
    while len(batch):
      part, batch = batch[: size - n], batch[size - n :]
      parts.append(part)
      n += len(part)
      if n == size:
        yield parts
        parts, n = [], 0
  if parts:
    yield parts


def check_features(
  images: Images,
  extractor: Extractor,
  f: Mapping[str, np.ndarray],
  n: int,
  start: int,
  widths: Mapping[str, int],
) -> None:
  """UserError unless there are n finite rows, as wide as the reference's."""
  for tap, rows in f.items():
    if len(rows) != n:
      raise ValueError(f"{len(rows)} rows of {tap} for {n} images")
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
      raise UserError(
        f"features of {extractor.name} are not finite for image "
        f"{start + bad[0]} of {images.card['name']}: are the weights whole?"
      )
    width = widths.get(tap, rows.shape[1])
    if rows.shape[1] != width:
      raise UserError(
        f"the reference's statistics are of {width} features, and "
        f"{extractor.name} has {rows.shape[1]}: these are others"
      )


def claimed(folder: Path) -> bool:
  """Whether a folder is for our work alone; it is made if it is not there."""
  folder.mkdir(parents=True, exist_ok=True)
  if not (folder / MARK).is_file():
    if files.names(folder):
      return False
    files.write_text(folder / MARK, "")
  return True


def forget(folder: Path) -> None:
  """Removes what we put into a folder for our work, and it, if it is empty."""
  if folder.is_symlink() or not (folder / MARK).is_file():
    return
  with contextlib.suppress(OSError):
    for path in sorted(folder.iterdir(), key=lambda p: p.name == MARK):
      ours = path.name in (MARK, "state.npz") or path.suffix == ".rows"
      if ours or path.name.startswith(DRAFT):
        path.unlink()
    folder.rmdir()


def write_synced(path: Path, write: Callable[[IO[bytes]], object]) -> None:
  """A file, whole or not at all, also where the power fails."""
  with files.atomic(path) as draft, open(draft, "wb") as file:
    write(file)
    file.flush()
    os.fsync(file.fileno())


def part_name(tap: str, start: int) -> str:
  """The file of a tap's rows from number `start` on."""
  return f"{tap}-{start:09d}.rows"


def flat(parts: Iterable[bytes]) -> np.ndarray:
  """The bytes of parts, one after the other."""
  return np.frombuffer(b"".join(parts), np.uint8)


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
  """Arrays as the bytes of an npz file."""
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


def unpacked(content: bytes) -> dict[str, np.ndarray]:
  """What `packed` packed; errors of any kind if it is torn."""
  with np.load(io.BytesIO(content), allow_pickle=False) as file:
    return dict(file)


class Work:
  """What is done so far: in memory, and now and then in a folder."""

  def __init__(self, count: int, plan: Plan, key: str, folder: Path | None):
    self.plan, self.folder = plan, folder
    which = None if plan.indices is None else digest(plan.indices.tolist())
    self.key = json.dumps([key, count, *plan.moments, "|", *plan.rows, which])
    self.done, self.colour, self.pixels = 0, np.zeros(3), 0
    self.moments = {tap: Moments(BLOCK) for tap in plan.moments}
    self.rows: dict[str, np.ndarray] = {}
    self.indices = np.arange(count) if plan.indices is None else plan.indices
    self.saved = time.monotonic()
    self.parts = [0]  # where the files of rows begin, and the last ends
    if folder:
      self._resume()

  def absorb(self, f: Mapping[str, np.ndarray], batches: list[np.ndarray], start: int) -> None:
    """Takes in the features and the images of one chunk."""
    for x in batches:
      self.colour += x.sum((0, 1, 2), dtype=np.int64)
      self.pixels += x.size // 3
    for tap in self.plan.moments:
      self.moments[tap].add(f[tap])
    stop = start + sum(map(len, batches))
    first, last = np.searchsorted(self.indices, [start, stop])
    for tap in self.plan.rows:
      if tap not in self.rows:
        self.rows[tap] = np.empty((len(self.indices), f[tap].shape[1]), f[tap].dtype)
      self.rows[tap][first:last] = f[tap][self.indices[first:last] - start]
    if self.folder and time.monotonic() - self.saved >= SAVE_SECONDS:
      self.save(stop)

  def save(self, done: int) -> None:
    """All of it, whole or not at all: rows first, then what counts them."""
    if not claimed(self.folder):
      warnings.warn(
        f"{self.folder} holds files of others: what is done is not kept for next time",
        RuntimeWarning,
        stacklevel=2,
      )
      self.folder = None
      return
    written = int(np.searchsorted(self.indices, done))
    for tap, rows in self.rows.items() if written > self.parts[-1] else ():
      part = np.ascontiguousarray(rows[self.parts[-1] : written])
      write_synced(self.folder / part_name(tap, self.parts[-1]), lambda f, x=part: f.write(x.data))
    parts = sorted({*self.parts, written})
    state = self.sums(done) | {"parts": np.array(parts, np.int64)}
    write_synced(self.folder / "state.npz", lambda file: np.savez(file, **state))
    self.parts, self.saved = parts, time.monotonic()

  def sums(self, done: int) -> dict[str, np.ndarray]:
    """All that is known after `done` images, but the rows."""
    state = {
      "key": np.array(self.key),
      "done": np.int64(done),
      "colour": self.colour,
      "pixels": np.int64(self.pixels),
    }
    for tap, rows in self.rows.items():
      state[f"{tap}#"], state[f"{tap}:"] = np.int64(rows.shape[1]), np.array(rows.dtype.str)
    for tap, moments in self.moments.items():
      state |= {f"{tap}/{k}": v for k, v in moments.state().items()}
    return state

  def load(self, state: Mapping[str, np.ndarray], rows_of: Callable[[str], np.ndarray]) -> None:
    """Takes over `sums`, and the rows that belong to them, flat, by tap."""
    if str(state["key"]) != self.key:
      raise ValueError("of other work")
    done, rows = int(state["done"]), {}
    written = int(np.searchsorted(self.indices, done))
    for tap in self.plan.rows:
      width, dtype = int(state[f"{tap}#"]), np.dtype(str(state[f"{tap}:"]))
      rows[tap] = np.empty((len(self.indices), width), dtype)
      rows[tap][:written] = rows_of(tap).view(dtype).reshape(written, width)
    moments = {
      tap: Moments.of({k.partition("/")[2]: v for k, v in state.items() if k.startswith(f"{tap}/")})
      for tap in self.plan.moments
    }
    self.done, self.rows, self.moments = done, rows, moments
    self.colour, self.pixels = state["colour"], int(state["pixels"])

  def _resume(self) -> None:
    """Takes what lies in the folder, if it is whole and ours."""
    if not (self.folder / MARK).is_file():
      return
    read = lambda name: (self.folder / name).read_bytes()
    try:
      state = unpacked(read("state.npz"))
      parts = state["parts"].tolist()
      self.load(state, lambda tap: flat(read(part_name(tap, i)) for i in parts[:-1]))
      self.parts = parts
    except FileNotFoundError:
      return
    except Exception:  # torn by whatever killed it, or of other work
      forget(self.folder)

  def share(self) -> None:
    """Of several processes all go on from where the first does."""
    if jax.process_count() == 1:
      return
    written = int(np.searchsorted(self.indices, self.done))
    rows = {f"{tap}=": r[:written].reshape(-1).view(np.uint8) for tap, r in self.rows.items()}
    state = unpacked(gather.from_first(packed(self.sums(self.done) | rows)))
    if self.done != int(state["done"]):
      self.load(state, lambda tap: state[f"{tap}="])

  def result(self) -> Collected:
    moments = {tap: m.result() for tap, m in self.moments.items()}
    return Collected(self.done, moments, self.rows, self.colour / self.pixels)
