"""Fréchet audio distance: which patches it sees, what its card says."""

import dataclasses

import numpy as np
import pytest
from verbs import call

from jaxgen.audio import patches
from jaxgen.data.arrays import Arrays
from jaxgen.errors import UserError
from jaxgen.evaluation import audio_distance, weights


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Real(Arrays):
  rate: int = 16_000


@pytest.fixture(autouse=True)
def network(monkeypatch):
  """Means of bands in place of VGGish, which takes seconds."""
  monkeypatch.setattr(weights, "vggish", lambda f: weights.Weights({}, "abc", "x.pth", True))
  monkeypatch.setattr(audio_distance, "look", lambda p, x: np.repeat(x.mean(1), 2, 1))


def clips(n, loud, seed, length=16_000):
  x = loud * np.random.default_rng(seed).standard_normal((n, length, 1))
  return np.clip(x, -(2**15), 2**15 - 1).astype(np.int16)


def test_louder_noise_is_further_than_new_noise():
  real, test = Real("real", clips(60, 1000, 0)), Real("real", clips(20, 1000, 1))
  scores = {}
  for loud in (1000, 3000):
    text, card = audio_distance.evaluate_clips(clips(40, loud, 2), None, real, test, {})
    scores[loud] = card["scores"]["fad@vggish"]
  assert scores[1000] < 2 * card["floor"]["fad@vggish"] < scores[3000] / 10
  assert len(card["intervals"]["fad@vggish"]) == 2  # of two sets
  assert "FAD (VGGish)" in text and "PCA and quantisation are not applied" in text
  assert any("too high" in line for line in card["judge"]["warnings"])


def test_patches_of_a_long_clip_all_count():
  x = clips(3, 1000, 0, 33_600)
  f = audio_distance.embeddings(x, 16_000, {})
  assert f.shape == (3, 2, 128)
  want = patches.patches(x[..., 0] / 2**15).mean(2)
  np.testing.assert_allclose(f[..., ::2], want, rtol=1e-4)


def test_short_clips_end_in_silence_and_it_says_so():
  x = clips(4, 1000, 0, 4096)
  mel = audio_distance.to_patches(x, 8000)
  assert mel.shape == (4, 1, 96, 64)
  np.testing.assert_allclose(mel[:, :, -30:], np.log(0.01), atol=0.02)
  real = Real("real", x, rate=8000)
  lines = audio_distance.about(weights.vggish(None), real, 200, 0.512)["warnings"]
  assert len(lines) == 2 and "silence is added" in lines[0] and "4000" in lines[1]


def test_weights_that_are_not_there_are_a_line(monkeypatch, capsys):
  monkeypatch.undo()
  with pytest.raises(UserError, match="there is no file"):
    weights.vggish("nowhere.pth")
  with pytest.raises(UserError, match="checkpoint is not read"):
    weights.vggish("vggish_model.ckpt")


def test_images_have_no_sound(capsys, monkeypatch, tmp_path):
  np.savez(tmp_path / "x.npz", np.zeros((40, 8, 8, 1), np.uint8))
  flags = (f"--samples={tmp_path}/x.npz", "--data=digits", "--features=vggish")
  status, _, err = call(capsys, monkeypatch, "evaluate", *flags)
  assert status == 2 and "hears clips" in err[-1]
