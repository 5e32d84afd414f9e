"""Fréchet audio distance: of VGGish's embeddings of all patches of clips.

Kilgour et al. 2019. Embeddings are raw, 128 numbers before ReLU, whitening and
quantisation, as google-research's frechet_audio_distance compares them.
"""

import functools
from typing import Any

import jax
import numpy as np

from jaxgen.audio import patches
from jaxgen.core import trait
from jaxgen.data import recordings
from jaxgen.data.arrays import Source
from jaxgen.evaluation import weights
from jaxgen.evaluation.judge import intervals, means, sets_of, spreads, table
from jaxgen.metrics.distances import frechet_rows
from jaxgen.nets.vggish import WIDTH, VGGish

NAME = "fad@vggish"
CLIPS, BATCH = 64, 16  # clips made patches of, and patches looked at, at a time


def evaluate_clips(
  x: np.ndarray,
  y: np.ndarray | None,
  real: Source,
  test: Source,
  origin: dict[str, Any],
  file: str | None = None,
) -> tuple[str, dict[str, Any]]:
  """FAD of clips beside that of real test data: text, and a card.

  In sets as large as the test split, whose size both depend on.

  Args:
    x: Samples int16 [N, L, 1], as long and of the rate of the data.
    y: Their labels [N], so that sets have classes alike, or None.
    real: The training split.
    test: The test split.
    origin: How samples were made.
    file: Of weights; by default wherever they are found.
  """
  own, rate = weights.vggish(file), trait(real, "rate")
  look = functools.partial(embeddings, rate=rate, params=own.params)
  reference = flat(look(real.arrays()[0]))
  f, size = look(x), min(len(test), len(x))
  distances = [frechet_rows(flat(f[i]), reference) for i in sets_of(len(x), size, y)]
  name = NAME if own.published else f"{NAME}-{own.sha256[:8]}"
  scores = {name: distances}
  floor = {name: [frechet_rows(flat(look(test.arrays()[0])), reference)]}
  card = {
    "made": origin,
    "judge": about(own, real, len(test), x.shape[1] / rate),
    "scores": means(scores),
    "spread": spreads(scores),
    "intervals": intervals(scores),
    "floor": means(floor),
  }
  notes = [f"{NAME}: FAD (VGGish), {card['judge']['embeddings']}", *card["judge"]["warnings"]]
  return "\n".join([table(scores, floor, card["intervals"]), "", *notes]), card


def about(own: weights.Weights, real: Source, size: int, seconds: float) -> dict[str, Any]:
  """How the number comes about, and what a reader should know."""
  warnings, rate = [], trait(real, "rate")
  if not own.published:
    warnings.append(f"the weights of {own.file} are not those that were published")
  if seconds * patches.RATE < patches.SHORTEST:
    warnings.append(
      f"clips of {seconds:.3g} s are shorter than a patch of 0.975 s: silence is added at their "
      "end, so that this is no FAD of papers"
    )
  if rate < patches.RATE:
    warnings.append(
      f"clips are at {rate} Hz: VGGish looks up to 7500 Hz, where these have nothing above "
      f"{rate // 2}"
    )
  if size <= WIDTH:
    warnings.append(f"sets of {size} clips for {WIDTH} dimensions: FAD is far too high")
  return {
    "features": "vggish",
    "weights": own.file,
    "sha256": own.sha256,
    "published": own.published,
    "embeddings": "128 numbers before ReLU; PCA and quantisation are not applied; patches of 0.96 "
    "s side by side, resampled to 16 kHz by soxr",
    "reference": f"{len(real)} real training clips of {real.name} ({real.fingerprint})",
    "protocol": f"means over sets of {size} clips, as many as real test clips make the floor",
    "warnings": warnings,
  }


def flat(f: np.ndarray) -> np.ndarray:
  """Of clips [N, P, D] -> of patches [N P, D]."""
  return f.reshape(-1, f.shape[-1])


def embeddings(x: np.ndarray, rate: int, params: dict[str, Any]) -> np.ndarray:
  """Clips int16 [N, L, 1] -> float32 [N, P, 128], of P patches each."""
  mel = np.concatenate([to_patches(x[i : i + CLIPS], rate) for i in range(0, len(x), CLIPS)])
  flat_mel = mel.reshape(-1, *mel.shape[2:])
  parts = []
  for i in range(0, len(flat_mel), BATCH):
    part = flat_mel[i : i + BATCH]
    padding = np.zeros((BATCH - len(part), *part.shape[1:]), np.float32)
    parts.append(np.asarray(look(params, np.concatenate([part, padding])))[: len(part)])
  return np.concatenate(parts).reshape(*mel.shape[:2], WIDTH)


@jax.jit
def look(params: dict[str, Any], x: jax.Array) -> jax.Array:
  """Patches [B, 96, 64] -> [B, 128]."""
  return VGGish().apply({"params": params}, x)


def to_patches(x: np.ndarray, rate: int) -> np.ndarray:
  """Clips int16 [N, L, 1] -> float32 [N, P, 96, 64]; short ones end in silence."""
  wave = x[:, :, 0].astype(np.float32) / 2**15
  if rate != patches.RATE:
    soxr = recordings.library("soxr")
    wave = soxr.resample(wave.T, rate, patches.RATE).T
  missing = max(patches.SHORTEST - wave.shape[1], 0)
  return patches.patches(np.pad(wave, ((0, 0), (0, missing))))
