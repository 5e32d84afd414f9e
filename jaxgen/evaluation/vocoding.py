"""Judging vocoders: how near they come to recordings that they have not seen.

  jaxgen eval --workdir V --num 64 --out v.json
  jaxgen eval --workdir V --respacing fast

Clips of the test split are analysed as in training, and made anew by the model
and by Griffin & Lim's iteration, which is the floor to beat; the recording itself
is the best there is. Lower is better for all but stoi, which is there where the
package pystoi is (the extra `speech`). No number looks at phases or at the ratio
of signal to noise, since a good vocoder may choose other phases. Intervals are of
95%, by a bootstrap over clips.
"""

import dataclasses
import functools
import importlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import core, files
from jaxgen.audio.griffin_lim import Front, griffin_lim
from jaxgen.audio.mel import TacotronMel
from jaxgen.data.arrays import Source
from jaxgen.data.sources import open_split
from jaxgen.errors import UserError
from jaxgen.evaluation import cards, restoration
from jaxgen.evaluation.images import weights_hash
from jaxgen.evaluation.pair_scores import in_parts
from jaxgen.files import plain
from jaxgen.metrics import sound_quality as quality
from jaxgen.sampling import output
from jaxgen.sampling.sampler import Sampler, key_of
from jaxgen.sampling.vocode import check_vocoder

KIND = "jaxgen vocoding 1"
MOST = 64  # clips, unless --num says it
AT_ONCE = 16
ITERATIONS = 64  # of Griffin & Lim
RESAMPLES = 1000
NO_STOI = 1e-5  # pystoi's, of too little speech
METRICS = {
  "mel_db": "mean absolute difference of log-mel spectrograms of 80 bands up to half the rate",
  "stft_convergence": "Yamamoto et al. 2020, Eq. 4, mean over their three resolutions",
  "stft_log": "likewise, Eq. 5, natural logarithms",
  "mcd_db": f"mel-cepstral distortion, coefficients 1 to {quality.CEPSTRA} of those bands, frames "
  f"within {quality.QUIET:g} dB of the loudest, not warped",
  "f0_cents": "root mean square over frames voiced in both, by YIN (2002), dip "
  f"{quality.DIP}, {quality.LOWEST:g} to {quality.HIGHEST:g} Hz",
  "voicing_error": "share of frames that are voiced in one alone",
  "stoi": "Taal et al. 2011, by pystoi; of clips with enough speech",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Recordings:
  """Clips of a test split, and how near others come to them.

  Attributes:
    test: Where they are from.
    x: int16 [N, L, 1].
    y: Labels [N], where there are.
    rate: Samples a second.
  """

  test: Source
  x: np.ndarray
  y: np.ndarray | None
  rate: int

  @classmethod
  def of(cls, model: Sampler, data: ConfigDict, num: int | None) -> "Recordings":
    """`num` clips at even distances in the test split; UserError for a misfit."""
    test = open_split(data, "test")
    if test.shape != tuple(model.shape) or test.dtype != np.int16:
      raise UserError(
        f"this model makes {list(model.shape)}, but {test.name} holds "
        f"{test.dtype} {list(test.shape)}"
      )
    n = min(len(test), MOST) if num is None else num
    if not 2 <= n <= len(test):
      raise UserError(f"num={n}: want 2 to {len(test)}, as many as this split of {test.name} has")
    batch = test.read(np.arange(n) * len(test) // n)
    return cls(test, batch["x"], batch.get("y"), model.card["rate"])

  @functools.cached_property
  def _front(self) -> Callable[[np.ndarray], jax.Array]:
    """What all vocoders are heard by, whatever they hear themselves."""
    fft = 1 << round(np.log2(1024 / 22_050 * self.rate))
    front = TacotronMel(self.rate, 80, fft // 4, fft, 0.0, self.rate / 2)
    return jax.jit(lambda x: front(core.on_device(x)[..., 0]))

  def mels(self, x: np.ndarray) -> np.ndarray:
    """Log-mel spectrograms of clips int16 [N, L, 1]."""
    return in_parts(self._front, x)

  @functools.cached_property
  def _own(self) -> np.ndarray:
    return self.mels(self.x)

  def by_clip(self, x: np.ndarray) -> dict[str, np.ndarray]:
    """Distances of clips int16 [N, L, 1] from the recordings, [N] each."""
    a, b = (c[..., 0] / 2.0**15 for c in (x, self.x))
    mel = self.mels(x)
    convergence, logs = quality.stft_distance(a, b)
    cents, voicing = quality.pitch_errors(a, b, self.rate)
    numbers = {
      "mel_db": quality.mel_distance(mel, self._own),
      "stft_convergence": convergence,
      "stft_log": logs,
      "mcd_db": quality.cepstral_distortion(mel, self._own),
      "f0_cents": cents,
      "voicing_error": voicing,
    }
    heard = intelligibility(a, b, self.rate)
    return numbers if heard is None else numbers | {"stoi": heard}


def intelligibility(x: np.ndarray, y: np.ndarray, rate: int) -> np.ndarray | None:
  """STOI of waveforms x [N, L] for recordings y; None without the package.

  NaN for a recording of too little speech.
  """
  try:
    stoi = importlib.import_module("pystoi").stoi
  except ImportError:
    return None
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)
    values = np.array([stoi(b, a, rate) for a, b in zip(x, y, strict=True)])
  return np.where(values == NO_STOI, np.nan, values)


def interval(values: np.ndarray) -> tuple[float, float]:
  """95% of the mean of what is finite in [N], by a bootstrap."""
  values = values[np.isfinite(values)]
  if len(values) < 2:
    return np.nan, np.nan
  rows = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
  low, high = np.percentile(values[rows].mean(1), [2.5, 97.5])
  return float(low), float(high)


def evaluate_vocoder(
  model: Sampler, data: ConfigDict, knobs: Mapping[str, float], values: flags.FlagValues
) -> tuple[str, dict[str, Any]]:
  """What `evaluate` says of a vocoder: text, and a card that WORKDIR/evals gets.

  Raises:
    UserError: See Recordings.
  """
  restoration.check_flags(values)
  check_vocoder(model)
  clips = Recordings.of(model, data, values.num)
  make = model.model.cond["mel"]
  analyse = jax.jit(lambda x: make(core.on_device(x)))
  mel = in_parts(analyse, clips.x)
  x, speed = rendered(model, mel, clips, knobs, values)
  columns, speeds = {"model": x}, {"model": speed}
  front = make.keywords["front"]
  if isinstance(front, Front):
    columns["griffin_lim"], speeds["griffin_lim"] = by_iteration(mel, front, clips)
  columns["recording"] = clips.x
  settings = output.json_knobs(model.settings(dict(knobs)))
  origin = model.card | {
    "weights": weights_hash(model.state),
    "seed": values.seed,
    "nfe": model.model.nfe(**model.settings(dict(knobs))),
    "knobs": settings,
  }
  card = card_of(clips, columns, speeds, origin)
  name = f"{model.card['step']:08d}-vocoding-{len(x)}-{origin['nfe']}.json"
  files.write_json(files.path(values.workdir) / "evals" / name, card)
  return table(card), card


def rendered(
  model: Sampler,
  mel: np.ndarray,
  clips: Recordings,
  knobs: Mapping[str, float],
  values: flags.FlagValues,
) -> tuple[np.ndarray, float]:
  """What the model makes of spectrograms, and seconds of sound a second of work."""
  if model.classes and clips.y is None:
    raise UserError(f"this model wants labels, and {clips.test.name} has none")
  n, key = len(mel), key_of(values.seed)
  at_once = min(values.batch, AT_ONCE, n)

  def make(i: int) -> np.ndarray:
    rows = np.arange(i, i + at_once) % n
    y = clips.y[rows].tolist() if model.classes else None
    k = jax.random.fold_in(key, i)
    return model.sample(k, at_once, y, batch=at_once, mel=mel[rows], **knobs)

  return in_turn(make, n, at_once, clips)


def by_iteration(mel: np.ndarray, front: Front, clips: Recordings) -> tuple[np.ndarray, float]:
  """The same by Griffin & Lim's iteration."""
  length = clips.x.shape[1]

  def sound(mel):
    x = griffin_lim(mel, front, ITERATIONS, key=jax.random.key(0))[:, :length]
    pad = length - x.shape[1]
    return core.as_data(jax.numpy.pad(x, ((0, 0), (0, pad))), np.int16)[..., None]

  program, n = jax.jit(sound), len(mel)
  at_once = min(AT_ONCE, n)
  make = lambda i: np.asarray(program(mel[np.arange(i, i + at_once) % n]))
  return in_turn(make, n, at_once, clips)


def in_turn(
  make: Callable[[int], np.ndarray], n: int, at_once: int, clips: Recordings
) -> tuple[np.ndarray, float]:
  """make(0), make(at_once), ..: n rows, and seconds of sound a second of work.

  The first takes the time of compiling, too, and does not count.
  """
  starts, seconds = range(0, n, at_once), []
  parts = [make(0)]
  for i in [*starts[1:]] or [0]:
    begin = time.monotonic()
    parts.append(make(i))
    seconds.append(time.monotonic() - begin)
  sound = at_once * clips.x.shape[1] / clips.rate
  return np.concatenate(parts)[:n], sound / float(np.median(seconds))


def card_of(
  clips: Recordings,
  columns: Mapping[str, np.ndarray],
  speeds: Mapping[str, float],
  origin: Mapping[str, Any],
) -> dict[str, Any]:
  """All numbers and how they were made, as JSON."""
  numbers = {k: clips.by_clip(x) for k, x in columns.items()}
  finite = lambda v: float(np.mean(v[np.isfinite(v)])) if np.isfinite(v).any() else np.nan
  return plain(
    {
      "kind": KIND,
      "data": {
        "name": clips.test.name,
        "fingerprint": clips.test.fingerprint,
        "clips": len(clips.x),
        "of": len(clips.test),
        "shape": clips.x.shape[1:],
        "rate": clips.rate,
        "split": "test",
      },
      "protocol": {k: METRICS[k] for k in numbers["model"]}
      | {
        "griffin_lim": f"{ITERATIONS} iterations, momentum 0.99, of magnitudes by non-negative "
        "least squares",
        "intervals": f"95%, {RESAMPLES} resamples of clips",
        "speed": "seconds of sound a second of work, compiling apart",
      },
      "scores": {k: {m: finite(v) for m, v in s.items()} for k, s in numbers.items()},
      "intervals": {k: {m: interval(v) for m, v in s.items()} for k, s in numbers.items()},
      "speed": speeds,
      "versions": cards.versions(),
      "made": origin,
    }
  )


def table(card: Mapping[str, Any]) -> str:
  """The numbers of a card, as text."""
  scores, data, speed = card["scores"], card["data"], card["speed"]

  def cell(name: str, metric: str) -> str:
    value = float(scores[name][metric])
    low, high = map(float, card["intervals"][name][metric])
    spread = "" if low == high or np.isnan(low) else f" ({low:.3g} to {high:.3g})"
    return "-" if np.isnan(value) else f"{value:.3g}{spread}"

  rows = [["", *(name.replace("_", "-") for name in scores)]]
  rows += [[m, *(cell(name, m) for name in scores)] for m in scores["model"]]
  rows.append(["speed", *(f"{speed[k]:.3g}" if k in speed else "-" for k in scores)])
  return cards.columns(rows) + (
    f"\n{data['clips']:,} test clips of {data['name']}; {card['made']['nfe']} evaluations of the "
    "net each; in brackets: 95%; speed: seconds of sound a second of work"
  )
