"""Mode collapse where the modes are known, as those of 2-D mixtures are."""

from typing import NamedTuple

import numpy as np


class Modes(NamedTuple):
  """How a sample covers a known, balanced mixture.

  covered: modes that are nearest to at least one high-quality sample.
  high_quality: share of samples in [0, 1] within the radius of a mode; a
    perfect 2-D sampler gets 1 - exp(-radius^2 / 2), 0.989 at 3 std.
  kl: KL(samples' modes || uniform) in nats over all samples, each counted for
    its nearest mode; 0 is best, log(number of modes) the worst.
  """

  covered: int
  high_quality: float
  kl: float


def modes(samples: np.ndarray, centres: np.ndarray, std: float, radius: float = 3.0) -> Modes:
  """Modes found by `samples` [N, D] of a mixture at `centres` [K, D].

  The convention is that of VEEGAN (Srivastava et al. 2017, section 5) and
  PacGAN (Lin et al. 2018, section 4.1): a sample is of high quality if it
  lies within `radius` = 3 standard deviations (`std`, of one coordinate) of
  its nearest mode; a mode is found if one such sample is nearest to it.
  Non-finite samples are nobody's: never of high quality, not part of the KL
  (infinite where no sample is finite).
  """
  samples = np.asarray(samples, np.float64)
  centres = np.asarray(centres, np.float64)
  finite = samples[np.isfinite(samples).all(1)]
  if not len(finite):
    return Modes(0, 0.0, float("inf"))
  d2 = ((finite[:, None] - centres) ** 2).sum(-1)
  nearest = d2.argmin(1)
  good = d2.min(1) <= (radius * std) ** 2
  return Modes(
    covered=len(np.unique(nearest[good])),
    high_quality=float(good.sum() / len(samples)),
    kl=kl_to_uniform(nearest, len(centres)),
  )


def kl_to_uniform(modes: np.ndarray, count: int) -> float:
  """KL(histogram of `modes`, ints [N] in 0..count-1, || uniform), in nats.

  From 0 to log(count). N even draws have about (count - 1) / (2 N) by chance.
  """
  q = np.bincount(modes, minlength=count) / len(modes)
  q = q[q > 0]
  return float(np.sum(q * np.log(q * count)))
