"""Clips as a network sees them that judges sound: images of mel spectrograms.

The source "mel:SOURCE" is of such images, for all that looks at images.
"""

import numpy as np

from jaxgen.audio.bands import hann, slaney_bands
from jaxgen.data.arrays import Arrays
from jaxgen.data.clips import Clips

PART = 256  # clips at a time
QUIET, LOUD = -11.5, 2.5  # ln of bands that are black, and white
SMALL = 8192  # samples of a clip that 32 frames show; longer ones take 64


def open_mel_images(clips: Clips) -> Arrays:
  """The images of all clips, in memory."""
  x, y = clips.arrays()
  images = mel_images(x, clips.rate)
  name = f"mel:{clips.name}"
  return Arrays(name, images, y, clips.classes, clips.skipped, class_names=clips.class_names)


def mel_images(x: np.ndarray, rate: int) -> np.ndarray:
  """Clips int16 [N, L, 1] -> images uint8 [N, S, S, 1], low tones below.

  Of S frames, evenly spaced, and S bands up to half the rate, whose amplitudes
  are logarithms.
  """
  side = 32 if x.shape[1] <= SMALL else 64
  hop = max(x.shape[1] // side, 1)
  fft = 1 << (4 * hop - 1).bit_length()
  window, bands = hann(fft), slaney_bands(rate, fft, side, 0.0, rate / 2)
  images = []
  for i in range(0, len(x), PART):
    wave = x[i : i + PART, :, 0].astype(np.float32) / 2**15
    padded = np.pad(wave, ((0, 0), (fft // 2, fft // 2 + hop)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, fft, 1)[:, ::hop][:, :side]
    mel = np.abs(np.fft.rfft(frames * window)).astype(np.float32) @ bands
    grey = (np.log(np.maximum(mel, np.exp(QUIET))) - QUIET) / (LOUD - QUIET)
    images.append(np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8).swapaxes(1, 2)[:, ::-1])
  return np.concatenate(images)[..., None]
