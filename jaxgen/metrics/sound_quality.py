"""How near sound comes to recordings of the same length, clip by clip.

Waveforms are floats [N, L] in [-1, 1], log-mel spectrograms natural logarithms of
amplitudes [N, frames, mels]; each number is float64 [N]. None asks for phases.
"""

import numpy as np
from scipy import fft as transforms

# Window, frame and hop of Yamamoto et al. 2020, Table 1, in samples.
RESOLUTIONS = ((600, 1024, 120), (1200, 2048, 240), (240, 512, 50))
LEAST_POWER = 1e-7  # as their code has it
DECIBELS = 20 / np.log(10)  # of a natural logarithm of amplitudes
CEPSTRA = 24  # coefficients that count, from the first one on
QUIET = 40.0  # decibels below the loudest frame: what is below does not count
LOWEST, HIGHEST = 60.0, 500.0  # Hz of voices
DIP = 0.15  # of YIN: a deeper one is a period
PACE = 0.01  # seconds between estimates of the fundamental frequency


def mel_distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Mean absolute difference of log-mel spectrograms, in decibels, [N]."""
  return DECIBELS * np.abs(_float(x) - _float(y)).mean((1, 2))


def stft_distance(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Of waveforms x from recordings y: spectral convergence, log magnitudes, [N].

  Yamamoto et al. 2020, Eqs. 4 and 5, means over three resolutions; their loss is
  the sum of both.
  """
  convergence, logs = np.zeros(len(x)), np.zeros(len(x))
  for window, frame, hop in RESOLUTIONS:
    a, b = (magnitudes(_float(w), window, frame, hop) for w in (x, y))
    norm = lambda m: np.sqrt((m**2).sum((1, 2)))
    convergence += norm(b - a) / norm(b) / len(RESOLUTIONS)
    logs += np.abs(np.log(b) - np.log(a)).mean((1, 2)) / len(RESOLUTIONS)
  return convergence, logs


def magnitudes(wave: np.ndarray, window: int, frame: int, hop: int) -> np.ndarray:
  """[N, L] -> [N, frames, frame / 2 + 1], with Hann's window; zeros beyond the ends."""
  left = (frame - window) // 2
  hann = np.pad(
    0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window), (left, frame - window - left)
  )
  padded = np.pad(wave, ((0, 0), (frame // 2, frame // 2)))
  frames = np.lib.stride_tricks.sliding_window_view(padded, frame, 1)[:, ::hop]
  power = np.abs(transforms.rfft(frames * hann)) ** 2
  return np.sqrt(np.maximum(power, LEAST_POWER))


def cepstral_distortion(x: np.ndarray, y: np.ndarray, cepstra: int = CEPSTRA) -> np.ndarray:
  """Mel-cepstral distortion of x from recordings y in decibels, [N].

  Kubichek 1993: 10 / ln 10 sqrt(2 sum_d (c_d - c'_d)^2), d from 1 on, mean over
  frames. Cepstra are cosine coefficients of log-mel spectrograms, such that
  log |S| = c_0 + sum_d c_d cos; frames are paired as they are, without warping.
  Frames whose mean level in the recording is `QUIET` below its loudest do not
  count.
  """
  mels = x.shape[-1]
  c = [transforms.dct(_float(m), 2, axis=-1)[..., 1 : cepstra + 1] / mels for m in (x, y)]
  distortion = DECIBELS / 2 * np.sqrt(2 * ((c[0] - c[1]) ** 2).sum(-1))
  level = DECIBELS * _float(y).mean(-1)
  counts = level >= level.max(-1, keepdims=True) - QUIET
  return (distortion * counts).sum(-1) / counts.sum(-1)


def pitch_errors(x: np.ndarray, y: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
  """Of waveforms x: error of F0 in cents, and share of wrongly voiced frames, [N].

  The first is the root of the mean square over frames that are voiced in both,
  NaN where there are none; the second is of all frames.
  """
  cents, voicing = np.full(len(x), np.nan), np.zeros(len(x))
  for i, pair in enumerate(zip(_float(x), _float(y), strict=True)):
    a, b = (yin(wave, rate) for wave in pair)
    both = (a > 0) & (b > 0)
    voicing[i] = np.mean((a > 0) != (b > 0))
    if both.any():
      cents[i] = np.sqrt(np.mean((1200 * np.log2(a[both] / b[both])) ** 2))
  return cents, voicing


def yin(
  wave: np.ndarray, rate: int, lowest: float = LOWEST, highest: float = HIGHEST
) -> np.ndarray:
  """Fundamental frequency [frames] of a waveform [L], in Hz; 0: unvoiced.

  De Cheveigné & Kawahara 2002, steps 1 to 5, over windows of the longest period:
  the first dip of the normalised difference that is deeper than `DIP`. (Where a
  period is few samples the parabola through a dip errs: by 7 cents at 20.) Frames,
  `PACE` seconds apart, that are `QUIET` below the loudest one are unvoiced, too.
  """
  longest, shortest = int(np.ceil(rate / lowest)), max(int(rate / highest), 2)
  hop, size = max(round(PACE * rate), 1), 2 * longest + 2
  padded = np.pad(wave, (longest + 1, longest + 1 + hop))
  frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][: 1 + len(wave) // hop]
  difference = _normalised(frames, longest)
  power = (frames**2).mean(-1)
  loud = power > max(power.max() * 10 ** (-QUIET / 10), 1e-10)
  return np.array(
    [
      rate / _period(row, shortest) if is_loud and (row[shortest:] < DIP).any() else 0.0
      for row, is_loud in zip(difference, loud, strict=True)
    ]
  )


def _normalised(frames: np.ndarray, longest: int) -> np.ndarray:
  """Cumulative mean normalised differences, [frames, longest + 1] (Eqs. 6, 8)."""
  width = frames.shape[1] - longest - 1
  n = transforms.next_fast_len(2 * frames.shape[1])
  head = np.zeros_like(frames)
  head[:, :width] = frames[:, :width]
  product = np.conj(transforms.rfft(head, n)) * transforms.rfft(frames, n)
  cross = transforms.irfft(product, n)[:, : longest + 1]
  total = np.pad(np.cumsum(frames**2, 1), ((0, 0), (1, 0)))
  lag = np.arange(longest + 1)
  energy = total[:, lag + width] - total[:, lag]
  difference = np.maximum(energy[:, :1] + energy - 2 * cross, 0)
  mean = np.cumsum(difference[:, 1:], 1) / lag[1:]
  rows = difference[:, 1:] / np.maximum(mean, 1e-12)
  return np.concatenate([np.ones((len(frames), 1)), rows], 1)


def _period(row: np.ndarray, shortest: int) -> float:
  """Samples of the first deep dip, by the parabola through its lowest three."""
  i = shortest + int(np.argmax(row[shortest:] < DIP))
  while i + 1 < len(row) and row[i + 1] < row[i]:
    i += 1
  if not 0 < i < len(row) - 1:
    return float(i)
  left, middle, right = row[i - 1 : i + 2]
  bend = left - 2 * middle + right
  return i + (0.5 * (left - right) / bend if bend > 0 else 0.0)


def _float(x: np.ndarray) -> np.ndarray:
  return np.asarray(x, np.float64)
