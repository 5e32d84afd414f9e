"""Distances of sound: closed forms, and tones of a known pitch."""

import numpy as np
import pytest

from jaxgen.metrics import sound_quality as quality

RATE = 8000
RNG = np.random.default_rng(0)
NOISE = 0.3 * RNG.normal(size=(3, 4096))


def test_nothing_is_nearer_than_the_recording_itself():
  for number in (*quality.stft_distance(NOISE, NOISE), *quality.pitch_errors(NOISE, NOISE, RATE)):
    assert (np.nan_to_num(number) == 0).all()


def test_half_as_loud_is_six_decibels():
  """Convergence is a half, logarithms differ by ln 2, cepstra not at all."""
  convergence, logs = quality.stft_distance(NOISE / 2, NOISE)
  np.testing.assert_allclose(convergence, 0.5, atol=1e-3)
  np.testing.assert_allclose(logs, np.log(2), atol=1e-3)
  mel = RNG.normal(size=(2, 9, 20))
  np.testing.assert_allclose(quality.mel_distance(mel - np.log(2), mel), 20 * np.log10(2))
  np.testing.assert_allclose(quality.cepstral_distortion(mel - np.log(2), mel), 0, atol=1e-9)


def test_the_transform_is_that_of_a_plain_sum():
  wave = RNG.normal(size=(1, 700))
  window, frame, hop = 240, 512, 50
  got = quality.magnitudes(wave, window, frame, hop)
  k = 5
  padded = np.pad(wave[0], 256)[k * hop : k * hop + frame]
  weights = np.zeros(frame)
  weights[136:376] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(240) / 240)
  waves = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(frame)) / frame)
  np.testing.assert_allclose(got[0, k], np.maximum(np.abs(waves @ (padded * weights)), 1e-7**0.5))
  assert got.shape == (1, 15, 257)


def test_a_ripple_of_the_spectrum_is_one_coefficient():
  """log |S| = a cos(d pi (m + 1/2) / M) is c_d = a: 10 / ln 10 sqrt(2) a decibels."""
  mels, d, a = 40, 3, 0.7
  ripple = a * np.cos(d * np.pi * (np.arange(mels) + 0.5) / mels)
  y = np.zeros((1, 6, mels))
  want = 10 / np.log(10) * np.sqrt(2) * a
  np.testing.assert_allclose(quality.cepstral_distortion(y + ripple, y), want, rtol=1e-9)
  # As large as the ripple's root mean square over the bands.
  rms = 20 / np.log(10) * np.sqrt(np.mean(ripple**2))
  np.testing.assert_allclose(want, rms, rtol=1e-9)
  # Quiet frames do not count.
  y[:, 3:] -= 20
  spoiled = y + ripple
  spoiled[:, 3:] += 5 * ripple
  np.testing.assert_allclose(quality.cepstral_distortion(spoiled, y), want, rtol=1e-9)


@pytest.mark.parametrize(("hz", "cents"), [(82.0, 1), (123.4, 1), (220.0, 2), (415.3, 7)])
def test_the_pitch_of_voices(hz, cents):
  """Of ten partials; a parabola errs where a period is few samples."""
  t = np.arange(6000) / RATE
  voice = sum(np.sin(2 * np.pi * k * hz * t + k) / k for k in range(1, 10) if k * hz < 3800)
  f0 = quality.yin(0.3 * voice, RATE)
  middle = f0[5:-5]
  assert (middle > 0).all()
  assert np.abs(1200 * np.log2(middle / hz)).max() < cents


def test_errors_of_pitch_and_voicing():
  t = np.arange(8000) / RATE
  tone = 0.3 * np.sin(2 * np.pi * 200 * t)
  sharp = 0.3 * np.sin(2 * np.pi * 200 * 2 ** (50 / 1200) * t)
  cents, voicing = quality.pitch_errors(np.stack([sharp]), np.stack([tone]), RATE)
  np.testing.assert_allclose(cents, 50, atol=3)
  assert voicing[0] < 0.05
  half = np.where(t < 0.5, tone, 0.05 * RNG.normal(size=len(t)))
  _, voicing = quality.pitch_errors(np.stack([half]), np.stack([tone]), RATE)
  np.testing.assert_allclose(voicing, 0.5, atol=0.05)
  cents, _ = quality.pitch_errors(NOISE[:1], NOISE[1:2], RATE)
  assert np.isnan(cents).all() or cents[0] >= 0
