"""Log-mel spectrograms as vocoders were published with: numbers must agree.

A vocoder hears nothing but these numbers, so a spectrogram of another recipe
sounds like noise to it. Waveforms are float32 [..., L] in [-1, 1], spectrograms
[..., frames, mels] of 1 + L // hop frames, centred at multiples of `hop`; what
lies before the begin and after the end is mirrored, which wants L > fft / 2.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.audio.bands import hann, htk_bands, slaney_bands

Array = jax.Array
FLOOR = 1e-5  # the least that a logarithm is taken of
LEAST = 1e-9  # what HiFi-GAN's code adds to power, for roots have no slope at 0


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


@dataclasses.dataclass(frozen=True)
class HiFiMel:
  """HiFi-GAN's: Tacotron 2's of frames that lie between multiples of `hop`.

  Frame i is centred at (i + 1/2) hop, so that there are L // hop of them, and
  amplitudes are at least 10^-4.5 before bands add them up.

  Attributes:
    rate: Samples a second.
    mels: Number of bands, from `lowest` to `highest` Hz.
    hop: Samples between frames.
    fft: Samples of a frame and of its window, Hann's.
    lowest: Of the first band, in Hz.
    highest: Of the last one; 0: half the rate.
  """

  rate: int = 22_050
  mels: int = 80
  hop: int = 256
  fft: int = 1024
  lowest: float = 0.0
  highest: float = 8000.0

  def __call__(self, wave: Array) -> Array:
    """[..., L] -> [..., L // hop, mels]."""
    beyond = (self.fft - self.hop) // 2
    spectrum = transform(wave, self.fft, self.hop, hann(self.fft), beyond)
    power = jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2
    highest = self.highest or self.rate / 2
    bands = slaney_bands(self.rate, self.fft, self.mels, self.lowest, highest)
    return jnp.log(jnp.maximum(jnp.sqrt(power + LEAST) @ bands, FLOOR))


def magnitudes(wave: Array, fft: int, hop: int, window: np.ndarray) -> Array:
  """Of centred frames: [..., L] -> [..., 1 + L // hop, fft / 2 + 1]."""
  return jnp.abs(transform(wave, fft, hop, window, fft // 2))


def transform(wave: Array, fft: int, hop: int, window: np.ndarray, beyond: int) -> Array:
  """The short-time Fourier transform: [..., L] -> [..., frames, fft / 2 + 1].

  Args:
    wave: Waveforms.
    fft: Samples of a frame.
    hop: Samples between frames.
    window: Of `fft` samples or fewer, which are in the middle of a frame.
    beyond: Samples at either end that are mirrored; L must be larger.
  """
  if wave.shape[-1] <= beyond:
    raise ValueError(f"a spectrogram takes more than {beyond} samples, not {wave.shape[-1]}")
  missing = fft - len(window)
  window = np.pad(window, (missing // 2, missing - missing // 2))
  pads = [(0, 0)] * (wave.ndim - 1) + [(beyond, beyond)]
  padded = jnp.pad(wave, pads, mode="reflect")
  frames = 1 + (wave.shape[-1] + 2 * beyond - fft) // hop
  at = np.arange(frames)[:, None] * hop + np.arange(fft)
  return jnp.fft.rfft(padded[..., at] * window)


def of_clips(x: Array, front: Callable[[Array], Array]) -> Array:
  """The condition of a vocoder, of clips [B, L, 1]: spectrograms [B, frames, mels]."""
  return front(x[..., 0])
