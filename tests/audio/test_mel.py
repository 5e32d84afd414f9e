"""Log-mel spectrograms: the numbers that published vocoders were trained on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import GOLDEN

from jaxgen.audio import mel
from jaxgen.audio.bands import slaney_bands


@pytest.mark.parametrize(
  ("case", "front", "tolerance"),
  [("diffwave", mel.DiffWaveMel(), 5e-6), ("wavenet", mel.TacotronMel(), 1e-5)],
)
def test_spectrograms_are_the_published_codes(case, front, tolerance):
  golden = np.load(GOLDEN / f"{case}.npz")
  got, want = np.asarray(front(golden["wave"])), golden["mel"].T
  assert got.shape == want.shape == (1 + len(golden["wave"]) // 256, 80)
  np.testing.assert_allclose(got, want, atol=tolerance)
  both = front(jnp.stack([golden["wave"], golden["wave"][::-1]]))
  np.testing.assert_allclose(both[0], got, atol=1e-5)


def test_a_tone_is_in_its_band():
  """440 Hz; an octave is as far everywhere on Slaney's scale above 1 kHz."""
  t = np.arange(22_050) / 22_050
  peaks = [
    mel.TacotronMel()(np.float32(0.5 * np.sin(2 * np.pi * hz * t)))[40].argmax()
    for hz in (440, 1100, 2200, 4400)
  ]
  bands = slaney_bands(22_050, 1024, 80, 0.0, 8000.0)
  assert bands[round(440 * 1024 / 22_050)].argmax() == peaks[0]
  assert abs((peaks[3] - peaks[2]) - (peaks[2] - peaks[1])) <= 1


def test_silence_is_the_floor():
  silence = jnp.zeros(2048)
  assert (mel.DiffWaveMel()(silence) == 0).all()
  np.testing.assert_allclose(mel.TacotronMel()(silence), np.log(1e-5), rtol=1e-6)


def test_clips_that_are_too_short():
  with pytest.raises(ValueError, match="more than 512 samples, not 512"):
    mel.TacotronMel()(jnp.zeros(512))


def test_hifi_gan_spectrograms_by_hand():
  """Frames between multiples of the hop, in float64; librosa's bands are tested above."""
  rng = np.random.default_rng(0)
  wave, fft, hop = 0.3 * rng.normal(size=2048), 256, 64
  front = mel.HiFiMel(rate=8000, mels=40, hop=hop, fft=fft, highest=0.0)
  padded = np.pad(wave, (fft - hop) // 2, "reflect")
  window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(fft) / fft)
  frames = np.stack([padded[i * hop : i * hop + fft] * window for i in range(2048 // hop)])
  amplitude = np.sqrt(np.abs(np.fft.rfft(frames)) ** 2 + 1e-9)
  want = np.log(np.maximum(amplitude @ slaney_bands(8000, fft, 40, 0.0, 4000.0), 1e-5))
  got = front(np.float32(wave))
  assert got.shape == (32, 40)
  np.testing.assert_allclose(got, want, atol=1e-4)
  slope = jax.grad(lambda x: front(x).sum())(jnp.zeros(2048))
  assert np.isfinite(slope).all()  # also of silence
