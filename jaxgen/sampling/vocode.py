"""Sound from spectrograms: recordings of any length, analysed and made anew.

A net that hears so many samples on either side of one is given pieces that
overlap by as many, and the middle of each is what counts: so that pieces are, to
rounding, what a single pass would give. A diffusion model denoises all pieces at
one step before any at the next, of noise that is drawn for the recording as a
whole. Memory is that of one piece, and of the waveform itself.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core, files
from jaxgen.audio.wav import save_wav
from jaxgen.core import Key, trait
from jaxgen.data import recordings
from jaxgen.data.folder import listing
from jaxgen.diffusion.denoiser import Outside, mean
from jaxgen.diffusion.process import Noise
from jaxgen.errors import UserError, guarding, printable
from jaxgen.keys import fold
from jaxgen.models.diffusion import Diffusion
from jaxgen.monitor import results
from jaxgen.monitor.progress import Progress, duration
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.tiles import tile_starts
from jaxgen.sampling.trained import condition_shape

PIECE = 65_536  # samples at a time, unless somebody says it
FRAMES = 1024  # of a spectrogram, analysed at a time


def vocodes(model: Any) -> bool:
  """Whether a model makes sound from spectrograms."""
  return "mel" in trait(model, "cond")


class Cut(NamedTuple):
  """A piece begins at sample `start`; what it says of [first, last) counts."""

  start: int
  first: int
  last: int


@dataclasses.dataclass(eq=False)
class Vocoder:
  """A trained model that makes sound from spectrograms [frames, mels].

  Attributes:
    sampler: The model, whose one condition beside labels is "mel".
    key: [], of all noise.
    label: Its class, where it wants labels.
    knobs: Of the sampler.
    piece: Samples at a time; longer recordings go in several.
    compiling: Seconds that went into compiling so far.
  """

  sampler: Sampler
  key: Key
  label: int | None = None
  knobs: Mapping[str, float] = dataclasses.field(default_factory=dict)
  piece: int = PIECE
  compiling: float = 0.0

  def __post_init__(self):
    check_vocoder(self.sampler)
    if self.piece < self.hop:
      raise UserError(f"piece={self.piece}: want at least {self.hop} samples, a frame")
    self.knobs = self.sampler.settings(dict(self.knobs))
    self.piece = self.piece // self.hop * self.hop
    self._sizes: dict[int, int | None] = {}  # reach of the net by pieces' sizes

  @property
  def rate(self) -> int:
    """Samples a second."""
    return self.sampler.card["rate"]

  @functools.cached_property
  def front(self) -> Any:
    """What analyses: see `audio.mel`."""
    return self.make.keywords["front"]

  @property
  def make(self) -> Callable:
    """Clips [B, L, 1] -> spectrograms [B, frames, mels]."""
    return self.sampler.model.cond["mel"]

  @property
  def hop(self) -> int:
    """Samples between frames."""
    return self.front.hop

  @functools.cached_property
  def extra(self) -> int:
    """Frames of a clip of n hops beyond n."""
    n = 2 * (self.front.fft // self.hop + 1)
    return condition_shape(self.make, (n * self.hop, 1))[0] - n

  @functools.cached_property
  def silence(self) -> np.ndarray:
    """The frame of nothing, [mels]."""
    return np.asarray(self.make(jnp.zeros((1, 2 * self.front.fft, 1))))[0, 0]

  def analyse(self, wave: np.ndarray) -> np.ndarray:
    """Samples int16 [L] -> spectrogram, of silence up to the next whole hop."""
    hop, n = self.hop, -(-len(wave) // self.hop)
    margin = -(-self.front.fft // hop)  # frames that know their surroundings
    x = np.pad(wave.astype(np.float32) / 2**15, (0, n * hop - len(wave)))
    x = np.pad(x, margin * hop, "reflect" if len(x) > 1 else "edge")
    frames, parts = n + self.extra, []
    for a in range(0, frames, FRAMES):
      part = x[a * hop : (a + FRAMES + 2 * margin) * hop]
      part = np.pad(part, (0, (FRAMES + 2 * margin) * hop - len(part)))
      parts.append(np.asarray(self._analyse(part[None, :, None]))[0, margin : margin + FRAMES])
    return np.concatenate(parts)[:frames]

  @functools.cached_property
  def _analyse(self) -> Callable:
    return jax.jit(self.make)

  def render(self, mel: np.ndarray, done: Callable[[int], None] = lambda n: None) -> np.ndarray:
    """Spectrogram float32 [frames, mels] -> samples, float32 [L].

    L is as many hops as there are frames, less `extra`. Where that is less than
    a piece, silence follows.

    Args:
      mel: Of this model's own kind.
      done: Is told how many of `work` pieces are done.

    Raises:
      UserError: Samples are not finite.
    """
    length = (len(mel) - self.extra) * self.hop
    size, cuts = self.layout(length)
    missing = max(size - length, 0) // self.hop
    mel = np.concatenate([mel, np.repeat(self.silence[None], missing, 0)])
    counter = iter(range(1, sys.maxsize))
    count = lambda: done(next(counter))
    with guarding(f"{self.sampler.card.get('workdir', 'this model')} cannot be sampled"):
      if isinstance(self.sampler.model, Diffusion):
        x = self._diffuse(mel, max(length, size), size, cuts, count)
      else:
        x = self._in_pieces(mel, None, None, size, cuts, count)
    if not np.isfinite(x).all():
      raise UserError("samples hold NaN or infinity: the weights are ill, or knobs too far off")
    return x[0, :length, 0]

  def work(self, frames: int) -> int:
    """Pieces times steps that `render` takes."""
    _, cuts = self.layout((frames - self.extra) * self.hop)
    steps = isinstance(self.sampler.model, Diffusion)
    return len(cuts) * (self.sampler.model.nfe(**self.knobs) if steps else 1)

  def _diffuse(
    self, mel: np.ndarray, length: int, size: int, cuts: list[Cut], count: Callable[[], None]
  ) -> np.ndarray:
    """The sampler, of which each step goes through all pieces."""

    def denoise(x: jax.Array, t: Noise) -> jax.Array:
      return jnp.asarray(self._in_pieces(mel, np.asarray(x), t, size, cuts, count))

    keys, batch = self._keys, {"x": jnp.zeros((1, length, 1))}
    model, state = self.sampler.model, self.sampler.state
    return np.asarray(model.sample(state, batch, keys, denoise=Outside(denoise), **self.knobs))

  def _in_pieces(
    self,
    mel: np.ndarray,
    x: np.ndarray | None,
    t: Noise | None,
    size: int,
    cuts: list[Cut],
    count: Callable[[], None],
  ) -> np.ndarray:
    """The net's outputs [1, L, 1] for a spectrogram and, in diffusion, x_t [1, L, 1]."""
    whole = np.empty((1, cuts[-1].last, 1), np.float32)
    ahead = None  # while one piece is fetched, the next is under way
    for cut in [*cuts, None]:
      y = None if cut is None else self._run(mel, x, t, size, cut.start)
      if ahead:
        last, result = ahead
        part = np.asarray(result)[:, last.first - last.start : last.last - last.start]
        whole[:, last.first : last.last] = part
        count()
      ahead = cut and (cut, y)
    return whole

  def _run(
    self, mel: np.ndarray, x: np.ndarray | None, t: Noise | None, size: int, start: int
  ) -> jax.Array:
    """One piece [1, size, 1]."""
    a = start // self.hop
    batch = {"mel": mel[None, a : a + size // self.hop + self.extra]}
    batch["x"] = np.zeros((1, size, 1), np.float32) if x is None else x[:, start : start + size]
    if self.label is not None:
      batch["y"] = np.array([self.label], np.int32)
    return self._program(self.sampler.state, batch, t, self._keys, self._settings)

  @functools.cached_property
  def _keys(self) -> Key:
    return fold(jnp.broadcast_to(self.key, (1,)), jnp.zeros(1, int))

  @functools.cached_property
  def _settings(self) -> dict[str, jax.Array]:
    return {k: jnp.float32(v) for k, v in self.knobs.items()}

  @functools.cached_property
  def _program(self) -> Callable:
    """(state, batch, t, keys, knobs) -> an estimate of x_0, or samples."""
    model = self.sampler.model

    def run(state, batch, t, keys, knobs):
      if isinstance(model, Diffusion):
        return mean(model.guided(state, batch, knobs)(batch["x"], t))
      return model.sample(state, batch, keys, **knobs)

    return jax.jit(run)

  def layout(self, length: int) -> tuple[int, list[Cut]]:
    """Samples of a piece, and where pieces are of a recording of `length`.

    Short recordings are one piece: of a few sizes, each of which is a program.
    """
    hop, size = self.hop, self.piece
    one = hop << max(length // hop - 1, 0).bit_length()
    while size < length:
      reach = self.reach(size)
      if reach is not None and 4 * reach <= size:
        starts = hop * tile_starts(length // hop, size // hop, 2 * reach // hop)
        ends = [*(starts[1:] + reach), length]
        cuts = zip(starts, [0, *ends[:-1]], ends, strict=True)
        return size, [Cut(*map(int, cut)) for cut in cuts]
      size *= 2
    size = min(one, size)
    self.reach(size, probe=False)
    return size, [Cut(0, 0, size)]

  def reach(self, size: int, probe: bool = True) -> int | None:
    """Samples at either end of a piece that depend on what is beyond it.

    Seen by a NaN in the middle, which spoils all that depends on it. None if
    that is the whole piece. Without `probe` the piece's program is compiled.
    """
    if size in self._sizes and (self._sizes[size] is not None or not probe):
      return self._sizes[size]
    hop, middle = self.hop, size // self.hop // 2
    mel = np.repeat(self.silence[None], size // hop + self.extra, 0)
    x = t = None
    if isinstance(self.sampler.model, Diffusion):
      x, t = np.zeros((1, size, 1), np.float32), noise_at(self.sampler.model)
    if size not in self._sizes:
      start = time.monotonic()
      jax.block_until_ready(self._run(mel, x, t, size, 0))
      self.compiling += time.monotonic() - start
      self._sizes[size] = None
    if not probe:
      return None
    spoiled = mel.copy()
    spoiled[middle] = np.nan
    first, last = extent(self._run(spoiled, x, t, size, 0))
    ends = [last + 1 - (middle + 1) * hop, (middle - self.extra) * hop - first]
    if x is not None:
      x = x.copy()
      x[:, middle * hop] = np.nan
      low, high = extent(self._run(mel, x, t, size, 0))
      first, last = min(first, low), max(last, high)
      ends += [high - middle * hop, middle * hop - low]
    if first > 0 and last < size - 1:
      self._sizes[size] = -(-max(ends + [0]) // hop) * hop
    return self._sizes[size]


def extent(y: jax.Array) -> tuple[int, int]:
  """The first and the last sample of [1, L, 1] that is no number."""
  (rows,) = np.nonzero(~np.isfinite(np.asarray(y)[0, :, 0]))
  return (int(rows[0]), int(rows[-1])) if len(rows) else (y.shape[1], 0)


def noise_at(model: Diffusion) -> Noise:
  """The noisiest level of its path."""
  path, _ = model.path_points(model.knobs)
  return jax.tree.map(lambda a: a[0], path)


def check_vocoder(sampler: Sampler) -> None:
  """UserError unless a model makes sound from spectrograms, and of these alone."""
  if set(trait(sampler.model, "cond")) != {"mel"}:
    raise UserError(
      f"{sampler.card.get('workdir', 'this model')} makes no sound from spectrograms: --mel is "
      "for vocoders"
    )
  if "rate" not in sampler.card:
    raise UserError(f"{sampler.card.get('workdir', 'this model')} was trained on data of no rate")


def read_input(path: Path, vocoder: Vocoder) -> tuple[np.ndarray, int]:
  """A file's spectrogram, and how many samples it is of.

  Recordings of any rate and kind are analysed; x.npy is a spectrogram itself.

  Raises:
    ValueError, OSError: It cannot be read, or is of another kind.
  """
  if path.suffix.lower() != ".npy":
    wave = recordings.decode(path, vocoder.rate)
    return vocoder.analyse(wave), len(wave)
  mel = read_spectrogram(path, vocoder.silence)
  if len(mel) <= vocoder.extra:
    raise ValueError(f"has {len(mel)} frames: too few")
  return mel, (len(mel) - vocoder.extra) * vocoder.hop


def read_spectrogram(path: Path, silence: np.ndarray) -> np.ndarray:
  """float32 [frames, mels] of a NumPy file; ValueError for anything else."""
  try:
    mel = np.load(path, allow_pickle=False)
  except (ValueError, EOFError) as e:
    raise ValueError("is no array of NumPy") from e
  mels = len(silence)
  if not isinstance(mel, np.ndarray) or mel.dtype.kind != "f" or mel.ndim != 2:
    shape = f"{mel.dtype} {list(mel.shape)}" if isinstance(mel, np.ndarray) else "an archive"
    raise ValueError(f"holds {shape}: want float32 [frames, {mels}]")
  if mel.shape[1] != mels:
    turned = ": turn it around" if mel.shape[0] == mels else ""
    raise ValueError(f"holds {list(mel.shape)}, and this model hears {mels} bands{turned}")
  mel = mel.astype(np.float32)
  if not np.isfinite(mel).all():
    raise ValueError("has values that are no numbers")
  if mel.min() < silence.min() - 1e-3:
    raise ValueError(
      f"has values down to {mel.min():.3g}, and silence is {silence.min():.3g} to this model: it "
      "is a spectrogram of another kind"
    )
  return mel


class Job(NamedTuple):
  """A file, and the WAV that is made of it."""

  name: str
  source: Path
  target: Path


def planned_jobs(src: str, out: str) -> list[Job]:
  """One for a file, or one for each in a folder; UserError for what cannot be."""
  source, target = files.local(src), files.path(out)
  if not source.exists():
    raise UserError(f"--mel={src}: there is no such file or folder")
  if not source.is_dir():
    if target.suffix.lower() != ".wav" or target.is_dir():
      raise UserError(f"--out={out}: want x.wav for --mel={src}")
    if target.resolve() == source.resolve():
      raise UserError(f"--out={out} would replace what is read: give another name")
    return [Job(source.name, source, target)]
  if target.suffix and not target.is_dir() or target.is_file():
    raise UserError(f"--out={out}: --mel={src} is a folder, so that must be one, too")
  home, away = source.resolve(), target.resolve()
  if away == home or home in away.parents:
    raise UserError(f"results in {out} would mix with the recordings of {src}: give another folder")
  names = listing(source, recordings.SUFFIXES | {".npy"}, "recordings")
  stems = [name.rpartition(".")[0] for name in names]
  ends = [s if stems.count(s) == 1 else n for s, n in zip(stems, names, strict=True)]
  return [Job(n, source / n, target / f"{e}.wav") for n, e in zip(names, ends, strict=True)]


def vocode(
  vocoder: Vocoder, src: str, out: str, info: Mapping[str, Any], stream: Any = None
) -> list[str]:
  """Recordings and spectrograms -> WAV files that say how they were made.

  Args:
    vocoder: The model.
    src: A file, or a folder of them.
    out: x.wav, or a folder.
    info: How they are made, as JSON.
    stream: Gets progress and speed; default: stderr.

  Returns:
    Names of what was written.

  Raises:
    UserError: Something cannot be read (in a folder: after all others), or
      something else is in the way.
  """
  stream, jobs = stream or sys.stderr, planned_jobs(src, out)
  infos = {job.target: dict(info) | {"source": printable(job.name)} for job in jobs}
  top = files.path(out)
  if files.path(src).is_dir():
    results.check_folder(top, {k.relative_to(top).as_posix(): v for k, v in infos.items()}.get)
  else:
    results.check_file(top)
  done, skipped = [], {}
  for job in jobs:
    try:
      mel, length = read_input(job.source, vocoder)
    except (ValueError, OSError) as e:
      skipped[job.name] = str(e)
      if len(jobs) > 1:
        print(f"jaxgen: {printable(job.name)} is skipped: {e}", file=stream, flush=True)
      continue
    x = timed(vocoder, mel, length, job.name, stream)
    try:
      save_wav(job.target, core.as_data(x[:, None], np.int16), vocoder.rate, infos[job.target])
    except OSError as e:
      raise UserError(f"cannot write {job.target}: {e.strerror or e}") from e
    done.append(job.name)
  if skipped:
    name, why = next(iter(skipped.items()))
    many = f"{len(skipped)} of {len(jobs)} files were skipped, such as " if len(jobs) > 1 else ""
    raise UserError(f"{many}{name}: {why}")
  return done


def timed(vocoder: Vocoder, mel: np.ndarray, length: int, name: str, stream: Any) -> np.ndarray:
  """`length` samples of a spectrogram, and a line about the speed."""
  before = vocoder.compiling
  total = vocoder.work(len(mel))  # which compiles
  progress = Progress(total, 1, unit="pieces", stream=stream)
  start = time.monotonic()
  x = vocoder.render(mel, progress.at)[:length]
  seconds, sound = time.monotonic() - start, length / vocoder.rate
  compiling = vocoder.compiling - before
  progress.print_line(
    f"jaxgen: {printable(name)}: {duration(sound)} of sound in {seconds:.2f} s, "
    f"{sound / seconds:.3g} s a second" + f"; compiling: {compiling:.1f} s" * (compiling > 0)
  )
  progress.end()
  return x
