"""Windows, and the bands that a mel spectrogram adds frequencies up to."""

import functools

import numpy as np

# Slaney's scale: linear up to 1 kHz, 15 mels, and then logarithmic.
LINEAR, KNEE, STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def hann(size: int) -> np.ndarray:
  """Hann's window of a period of `size`, float32."""
  return np.float32(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size))


@functools.cache
def htk_bands(rate: int, fft: int, mels: int, lowest: float, highest: float) -> np.ndarray:
  """Triangles on HTK's scale, as high as 1, float32 [fft / 2 + 1, mels]."""
  mel = lambda hz: 2595 * np.log10(1 + hz / 700)
  ends = 700 * (10 ** (np.linspace(mel(lowest), mel(highest), mels + 2) / 2595) - 1)
  return np.float32(triangles(np.linspace(0, rate // 2, fft // 2 + 1), ends))


@functools.cache
def slaney_bands(rate: int, fft: int, mels: int, lowest: float, highest: float) -> np.ndarray:
  """Triangles on Slaney's scale, each of area 1 in Hz, float32 [fft / 2 + 1, mels]."""

  def mel(hz: float) -> float:
    return hz / LINEAR if hz < KNEE else KNEE / LINEAR + np.log(hz / KNEE) / STEP

  at = np.linspace(mel(lowest), mel(highest), mels + 2)
  knee = KNEE / LINEAR
  ends = np.where(at < knee, at * LINEAR, KNEE * np.exp(STEP * (at - knee)))
  bands = triangles(np.linspace(0, rate / 2, fft // 2 + 1), ends)
  return np.float32(bands * 2 / (ends[2:] - ends[:-2]))


def triangles(hz: np.ndarray, ends: np.ndarray) -> np.ndarray:
  """[F, M]: triangle m rises from ends[m] to its top at ends[m + 1], and falls."""
  gap = ends - hz[:, None]
  up, down = -gap[:, :-2] / np.diff(ends)[:-1], gap[:, 2:] / np.diff(ends)[1:]
  return np.maximum(0, np.minimum(up, down))
