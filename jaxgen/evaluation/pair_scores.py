"""How near images come to those that they should be, one by one."""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxgen.evaluation.perceptual import Perceptual
from jaxgen.metrics import image_quality
from jaxgen.metrics.student import mean_interval

METRICS = {
  "psnr": "dB, of bytes; mean over images",
  "ssim@gauss11": "Wang et al. 2004, of bytes, mean over channels",
  "ssim@uniform7": "scikit-image's default window, likewise",
}


def in_parts(
  function: Callable[..., np.ndarray], *arrays: np.ndarray, most: int = 32
) -> np.ndarray:
  """function(*arrays) by a few rows at a time, which bounds its memory."""
  starts = range(0, len(arrays[0]), most)
  return np.concatenate([np.asarray(function(*(a[i : i + most] for a in arrays))) for i in starts])


def windows(shape: Sequence[int]) -> list[str]:
  """Those of SSIM that fit into images [H, W, C]."""
  return [name for name, (w, _) in image_quality.WINDOWS.items() if min(shape[:2]) >= len(w)]


def by_image(
  x: np.ndarray, truth: np.ndarray, networks: Sequence[Perceptual] = ()
) -> dict[str, np.ndarray]:
  """PSNR, SSIM and distances by networks of images uint8 [N, H, W, C], [N] each."""
  scores = {"psnr": in_parts(image_quality.psnr, x, truth)}
  for name in windows(x.shape[1:]):
    ssim = functools.partial(image_quality.ssim, window=name)
    scores[f"ssim@{name}"] = in_parts(ssim, x, truth)
  return scores | {net.name: net.distances(x, truth) for net in networks}


def mean_intervals(scores: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
  """Where means over images lie, 95% by Student's t; of two or more finite numbers."""
  finite = {k: v for k, v in scores.items() if len(v) > 1 and np.isfinite(v).all()}
  return {k: mean_interval(v) for k, v in finite.items()}
