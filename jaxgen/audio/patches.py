"""Patches of log-mel spectrograms, as VGGish was trained on.

Hershey et al. 2017 ("CNN Architectures for Large-Scale Audio Classification"),
Sec. 3.1, and as its published code has it: frames of 25 ms every 10 ms at 16
kHz, from the first sample on and only where they are whole; 64 bands whose
triangles are straight on the mel scale, not in Hz; ln(magnitude + 0.01); 96
frames, 0.96 s, to a patch, side by side.
"""

import functools

import numpy as np

from jaxgen.audio.bands import hann, triangles

RATE = 16_000  # samples a second
FRAME, HOP, FFT = 400, 160, 512  # samples
FRAMES, BANDS = 96, 64  # of a patch
LOWEST, HIGHEST = 125.0, 7500.0  # Hz
OFFSET = 0.01  # of the logarithm
SHORTEST = FRAME + (FRAMES - 1) * HOP  # samples of one patch: 0.975 s


def patches(wave: np.ndarray) -> np.ndarray:
  """Clips in [-1, 1] at RATE, [N, L] -> float32 [N, P, FRAMES, BANDS].

  P is how many patches L samples make; what is left over is not looked at.

  Raises:
    ValueError: Clips are shorter than SHORTEST, so that there is no patch.
  """
  if wave.shape[1] < SHORTEST:
    raise ValueError(f"{wave.shape[1]} samples make no patch of {SHORTEST}.")
  frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME, 1)[:, ::HOP]
  count = frames.shape[1] // FRAMES
  frames = frames[:, : count * FRAMES]
  # Float64, as published: bands of silence are near the offset's logarithm.
  magnitude = np.abs(np.fft.rfft(frames * np.float64(hann(FRAME)), FFT))
  mel = np.log(magnitude @ bands() + OFFSET)
  return mel.reshape(len(wave), count, FRAMES, BANDS).astype(np.float32)


@functools.cache
def bands() -> np.ndarray:
  """Triangles on HTK's scale, [FFT / 2 + 1, BANDS]; of a constant none hears."""
  mel = lambda hz: 1127 * np.log1p(hz / 700)
  ends = np.linspace(mel(LOWEST), mel(HIGHEST), BANDS + 2)
  weights = triangles(mel(np.linspace(0, RATE / 2, FFT // 2 + 1)), ends)
  weights[0] = 0
  return weights
