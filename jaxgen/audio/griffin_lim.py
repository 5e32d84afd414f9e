"""Sound from a spectrogram without a net: Griffin & Lim 1984.

Phases are looked for with which overlapping frames agree, by turns in time and
in frequency; with momentum as Perraudin et al. 2013 have it. It is the floor that
a vocoder has to beat.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.audio.bands import hann, htk_bands, slaney_bands
from jaxgen.audio.mel import DiffWaveMel, HiFiMel, TacotronMel

Array = jax.Array
Front = DiffWaveMel | HiFiMel | TacotronMel  # of which spectrograms can be inverted
SMALL = 1e-8


def griffin_lim(
  mel: Array, front: Front, iterations: int = 32, momentum: float = 0.99, key: Array | None = None
) -> Array:
  """Log-mel spectrograms [..., frames, mels] -> waveforms.

  [..., (frames - 1) hop]; of HiFi-GAN's, which lie between its multiples, frames
  times hop.

  Args:
    mel: Of the kind that `front` makes.
    front: What made them.
    iterations: Of which each takes two transforms.
    momentum: 0: Griffin & Lim's own iteration.
    key: [], of the first phases; None: zeros.
  """
  window, hop, magnitude = np.pad(*padding(front)), front.hop, frequencies(mel, front)
  if not isinstance(front, HiFiMel):
    return invert(magnitude, window, hop, iterations, momentum, key)
  # A frame more at either end, and half a hop that lies before the begin.
  magnitude = jnp.concatenate([magnitude[..., :1, :], magnitude, magnitude[..., -1:, :]], -2)
  x = invert(magnitude, window, hop, iterations, momentum, key)
  return x[..., hop // 2 : hop // 2 + mel.shape[-2] * hop]


def padding(front: Front) -> tuple[np.ndarray, tuple[int, int]]:
  """A front end's window, and the zeros on its sides up to `fft` samples."""
  window = hann(4 * front.hop if isinstance(front, DiffWaveMel) else front.fft)
  missing = front.fft - len(window)
  return window, (missing // 2, missing - missing // 2)


def frequencies(mel: Array, front: Front, steps: int = 200) -> Array:
  """Log-mel [..., frames, mels] -> magnitudes of the STFT [..., frames, fft / 2 + 1].

  The nearest ones whose bands are as loud, none below zero.
  """
  if isinstance(front, DiffWaveMel):
    window, _ = padding(front)
    scale = np.sqrt(np.sum(window**2))
    level = jnp.where(mel > 0, 10 ** ((100 * mel - 80) / 20), 0)
    bands = htk_bands(front.rate, front.fft, front.mels, 20.0, front.rate / 2)
    return scale * nonnegative(level, bands, steps)
  highest = front.highest or front.rate / 2
  bands = slaney_bands(front.rate, front.fft, front.mels, front.lowest, highest)
  return nonnegative(jnp.exp(mel), bands, steps)


def nonnegative(y: Array, bands: np.ndarray, steps: int) -> Array:
  """x >= 0 with the least |x bands - y|^2: [..., M] -> [..., F], bands [F, M].

  By projected gradients with Nesterov's momentum (Beck & Teboulle 2009, Sec. 4),
  from the pseudo-inverse on.
  """
  matrix = bands.astype(np.float64)
  step = np.float32(1 / np.linalg.norm(matrix, 2) ** 2)
  start = jnp.maximum(y @ np.float32(np.linalg.pinv(matrix)), 0)

  def descend(i: int, carry: tuple) -> tuple:
    x, ahead, t = carry
    new = jnp.maximum(ahead - step * ((ahead @ bands - y) @ bands.T), 0)
    s = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
    return new, new + (t - 1) / s * (new - x), s

  return jax.lax.fori_loop(0, steps, descend, (start, start, jnp.float32(1)))[0]


def invert(
  magnitude: Array,
  window: np.ndarray,
  hop: int,
  iterations: int = 32,
  momentum: float = 0.99,
  key: Array | None = None,
) -> Array:
  """Magnitudes of an STFT [..., frames, fft / 2 + 1] -> waveforms [..., L].

  Frames are centred at multiples of `hop`, and L = (frames - 1) hop.

  Args:
    magnitude: What they are to be.
    window: [fft].
    hop: Samples between frames.
    iterations: See `griffin_lim`, as of the others.
    momentum: Likewise.
    key: Likewise.
  """
  if key is None:
    phase = jnp.ones(magnitude.shape, jnp.complex64)
  else:
    phase = jnp.exp(2j * jnp.pi * jax.random.uniform(key, magnitude.shape))

  def improve(i: int, carry: tuple) -> tuple:
    phase, last = carry
    heard = stft(istft(magnitude * phase, window, hop), window, hop)
    new = heard + momentum * (heard - last)
    return new / jnp.maximum(jnp.abs(new), SMALL), heard

  carry = phase, jnp.zeros(magnitude.shape, jnp.complex64)
  phase, _ = jax.lax.fori_loop(0, iterations, improve, carry)
  return istft(magnitude * phase, window, hop)


def stft(wave: Array, window: np.ndarray, hop: int) -> Array:
  """[..., L] -> complex [..., 1 + L / hop, fft / 2 + 1]; the ends are mirrored."""
  fft = len(window)
  pads = [(0, 0)] * (wave.ndim - 1) + [(fft // 2, fft // 2)]
  short = wave.shape[-1] <= fft // 2
  padded = jnp.pad(wave, pads, mode="constant" if short else "reflect")
  frames = 1 + wave.shape[-1] // hop
  return jnp.fft.rfft(padded[..., places(frames, fft, hop)] * window)


def istft(spectrum: Array, window: np.ndarray, hop: int) -> Array:
  """The wave whose STFT is the nearest, [..., frames, F] -> [..., (frames - 1) hop].

  Griffin & Lim 1984, Eq. 6: frames are windowed again, added up, and divided by
  the sum of the squares of their windows.
  """
  fft, frames = len(window), spectrum.shape[-2]
  parts = jnp.fft.irfft(spectrum, fft) * window
  total = fft + (frames - 1) * hop
  at = places(frames, fft, hop)
  wave = jnp.zeros((*spectrum.shape[:-2], total)).at[..., at].add(parts)
  weight = np.zeros(total)
  np.add.at(weight, at, np.broadcast_to(window.astype(np.float64) ** 2, at.shape))
  return (wave / np.float32(np.maximum(weight, SMALL)))[..., fft // 2 : total - fft // 2]


@functools.cache
def places(frames: int, fft: int, hop: int) -> np.ndarray:
  """Of the samples of each frame, [frames, fft]."""
  return np.arange(frames)[:, None] * hop + np.arange(fft)


def convergence(wave: Array, magnitude: Array, window: np.ndarray, hop: int) -> Array:
  """||STFT(wave)| - magnitude| / |magnitude| (Frobenius), [...]."""
  gap = jnp.abs(stft(wave, window, hop)) - magnitude
  norm = lambda x: jnp.sqrt(jnp.sum(x**2, (-2, -1)))
  return norm(gap) / norm(magnitude)
