"""Phases from magnitudes: closed forms, and that momentum pays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxgen.audio import griffin_lim
from jaxgen.audio.bands import hann
from jaxgen.audio.mel import DiffWaveMel, HiFiMel, TacotronMel

RATE, FFT, HOP = 8000, 256, 64
WINDOW = hann(FFT)


def song(n=64 * HOP):
  """Two voices that glide, and a knock."""
  t = np.arange(n) / RATE
  wave = 0.3 * np.sin(2 * np.pi * (300 + 900 * t) * t) + 0.2 * np.sin(2 * np.pi * 1300 * t)
  wave[n // 2 : n // 2 + 20] += 0.5
  return np.float32(wave)


def test_the_transform_of_a_wave_leads_back_to_it():
  wave = song()
  spectrum = griffin_lim.stft(wave, WINDOW, HOP)
  np.testing.assert_allclose(griffin_lim.istft(spectrum, WINDOW, HOP), wave, atol=1e-6)


def test_the_least_squares_have_no_negative_numbers():
  """scipy's active sets find the same minimum."""
  bands = np.asarray(np.random.default_rng(0).uniform(size=(9, 6)) ** 3, np.float32)
  y = np.float32(np.random.default_rng(1).uniform(size=(4, 6)))
  x = np.asarray(griffin_lim.nonnegative(y, bands, 2000))
  assert (x >= 0).all()
  for row, target in zip(x, y, strict=True):
    _, least = optimize.nnls(bands.T.astype(np.float64), target)
    assert np.linalg.norm(row @ bands - target) <= least + 1e-3


def test_frames_between_multiples_of_the_hop_keep_their_place():
  """Of HiFi-GAN's spectrograms: an impulse comes back where it was, in a wave as long."""
  wave = np.zeros(32 * HOP, np.float32)
  wave[1000] = 0.9
  front = HiFiMel(RATE, 40, HOP, FFT, highest=0.0)
  x = np.asarray(griffin_lim.griffin_lim(front(wave), front, 64))
  assert x.shape == wave.shape
  assert abs(np.abs(x).argmax() - 1000) <= HOP // 4
  tune = song()
  again = griffin_lim.griffin_lim(front(tune), front)
  assert jnp.abs(front(again) - front(tune)).mean() < 0.05 * np.log(1e5)


@pytest.mark.parametrize(
  "front", [DiffWaveMel(RATE, 40, HOP, FFT), TacotronMel(RATE, 40, HOP, FFT, 0.0, 4000.0)]
)
def test_magnitudes_have_the_bands_of_the_spectrogram(front):
  wave = song()
  mel = front(wave)
  magnitude = np.asarray(griffin_lim.frequencies(mel, front))
  true = np.abs(griffin_lim.stft(wave, WINDOW, HOP))
  assert magnitude.shape == true.shape and (magnitude >= 0).all()
  assert 0.8 < magnitude.sum() / true.sum() < 1.2
  x = griffin_lim.griffin_lim(mel, front)
  assert x.shape == wave.shape
  span = 1.0 if isinstance(front, DiffWaveMel) else np.log(1e5)
  assert jnp.abs(front(x) - mel).mean() < 0.05 * span


def test_each_iteration_comes_nearer_and_momentum_faster():
  magnitude = jnp.abs(griffin_lim.stft(song(), WINDOW, HOP))
  key = jax.random.key(0)

  @jax.jit
  def gap(n, momentum):
    x = griffin_lim.invert(magnitude, WINDOW, HOP, n, momentum, key)
    return griffin_lim.convergence(x, magnitude, WINDOW, HOP)

  plain = [float(gap(n, 0.0)) for n in (0, 8, 32)]
  assert plain[0] > plain[1] > plain[2]
  assert gap(32, 0.99) < 0.8 * plain[2]


def test_silence_and_batches():
  front = DiffWaveMel(RATE, 40, HOP, FFT)
  assert (griffin_lim.griffin_lim(jnp.zeros((9, 40)), front, 4) == 0).all()
  mel = front(jnp.stack([song(), song()[::-1]]))
  # (Of one iteration: more of them enlarge what rounding does to phases.)
  both = griffin_lim.griffin_lim(mel, front, 1)
  np.testing.assert_allclose(both[1], griffin_lim.griffin_lim(mel[1], front, 1), atol=1e-4)
