"""Clips as a network sees them that judges sound: images of mel spectrograms.

The source "mel:SOURCE" is of such images, for all that looks at images.
"""

import jax
import numpy as np

from jaxgen.audio.mel import FLOOR, TacotronMel
from jaxgen.data.arrays import Arrays
from jaxgen.data.clips import Clips

PART = 256  # clips at a time
LOUDEST = 2.5  # ln of a band that is white; black is where logarithms end
SMALL = 8192  # samples of a clip that 32 frames show; longer ones take 64


def open_heard(clips: Clips) -> Arrays:
  """The images of all clips, in memory."""
  x, y = clips.arrays()
  images = heard(x, clips.rate)
  name = f"mel:{clips.name}"
  return Arrays(name, images, y, clips.classes, clips.skipped, class_names=clips.class_names)


def heard(x: np.ndarray, rate: int) -> np.ndarray:
  """Clips int16 [N, L, 1] -> images uint8 [N, S, S, 1], low tones below.

  Of S frames and S bands up to half the rate, whose energies are logarithms.
  """
  length = x.shape[1]
  side = 32 if length <= SMALL else 64
  hop = max(length // side, 1)
  fft = 1 << (4 * hop - 1).bit_length()
  front = jax.jit(TacotronMel(rate, side, hop, min(fft, 2 * length - 2), 0.0, rate / 2))
  quiet = np.log(FLOOR)
  images = []
  for i in range(0, len(x), PART):
    part = x[i : i + PART, :, 0].astype(np.float32) / 2**15
    missing = PART - len(part) if len(x) > PART else 0  # one program for all
    mel = np.asarray(front(np.pad(part, ((0, missing), (0, 0)))))[: len(part), :side]
    grey = np.clip((mel - quiet) / (LOUDEST - quiet), 0, 1)
    images.append(np.rint(255 * grey).astype(np.uint8).swapaxes(1, 2)[:, ::-1])
  return np.concatenate(images)[..., None]
