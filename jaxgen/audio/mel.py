"""Log-mel spectrograms as vocoders were published with: numbers must agree.

A vocoder hears nothing but these numbers, so a spectrogram of another recipe
sounds like noise to it. Waveforms are float32 [..., L] in [-1, 1], spectrograms
[..., frames, mels] of 1 + L // hop frames, centred at multiples of `hop`; what
lies before the begin and after the end is mirrored, which wants L > fft / 2.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
FLOOR = 1e-5  # the least that a logarithm is taken of
# Slaney's scale: linear up to 1 kHz, 15 mels, and then logarithmic.
LINEAR, KNEE, STEP = 200 / 3, 1000.0, np.log(6.4) / 27


@dataclasses.dataclass(frozen=True)
class DiffWaveMel:
  """lmnt-com/diffwave's, by torchaudio: 0 to 1, of -100 to 0 decibels.

  What is louder than [-1, 1] is cut off.

  Attributes:
    rate: Samples a second.
    mels: Number of bands, from 20 Hz to rate / 2.
    hop: Samples between frames.
    fft: Samples of a frame; the window, Hann's, is 4 hops long.
  """

  rate: int = 22_050
  mels: int = 80
  hop: int = 256
  fft: int = 1024

  def __call__(self, wave: Array) -> Array:
    """[..., L] -> [..., frames, mels] in [0, 1]."""
    wave = jnp.clip(wave, -1, 1)
    window = hann(4 * self.hop)
    power = magnitudes(wave, self.fft, self.hop, window) / np.sqrt(np.sum(window**2))
    bands = power @ htk_bands(self.rate, self.fft, self.mels, 20.0, self.rate / 2)
    decibels = 20 * jnp.log10(jnp.maximum(bands, FLOOR)) - 20
    return jnp.clip((decibels + 100) / 100, 0, 1)


@dataclasses.dataclass(frozen=True)
class TacotronMel:
  """Tacotron 2's, of most other vocoders: natural logarithms, from -11.5 on.

  Attributes:
    rate: Samples a second.
    mels: Number of bands, from `lowest` to `highest` Hz.
    hop: Samples between frames.
    fft: Samples of a frame and of its window, Hann's.
    lowest: Of the first band, in Hz.
    highest: Of the last one.
  """

  rate: int = 22_050
  mels: int = 80
  hop: int = 256
  fft: int = 1024
  lowest: float = 0.0
  highest: float = 8000.0

  def __call__(self, wave: Array) -> Array:
    """[..., L] -> [..., frames, mels]."""
    bands = magnitudes(wave, self.fft, self.hop, hann(self.fft)) @ slaney_bands(
      self.rate, self.fft, self.mels, self.lowest, self.highest
    )
    return jnp.log(jnp.maximum(bands, FLOOR))


def hann(size: int) -> np.ndarray:
  """Hann's window of a period of `size`, float32."""
  return np.float32(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size))


def magnitudes(wave: Array, fft: int, hop: int, window: np.ndarray) -> Array:
  """Of the short-time Fourier transform: [..., L] -> [..., frames, fft / 2 + 1]."""
  if wave.shape[-1] <= fft // 2:
    raise ValueError(f"a spectrogram takes more than {fft // 2} samples, not {wave.shape[-1]}")
  missing = fft - len(window)
  window = np.pad(window, (missing // 2, missing - missing // 2))
  pads = [(0, 0)] * (wave.ndim - 1) + [(fft // 2, fft // 2)]
  padded = jnp.pad(wave, pads, mode="reflect")
  frames = 1 + wave.shape[-1] // hop
  at = np.arange(frames)[:, None] * hop + np.arange(fft)
  return jnp.abs(jnp.fft.rfft(padded[..., at] * window))


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


def of_clips(x: Array, front: DiffWaveMel | TacotronMel) -> Array:
  """What a vocoder is told of clips [B, L, 1]: spectrograms [B, frames, mels]."""
  return front(x[..., 0])
