"""What is seen of recordings before anything is spent on them."""

import numpy as np
import pytest

from jaxgen.data.clip_survey import check_images, length, survey_clips
from jaxgen.data.pipeline import Batches
from jaxgen.data.sound_hash import near_duplicates
from jaxgen.data.sources import open_split
from jaxgen.errors import UserError

soundfile = pytest.importorskip("soundfile")
RATE = 8000


def voice(i, seconds=0.4):
  """A tone that glides, with overtones: each i sounds different."""
  rng = np.random.default_rng(i)
  t = np.arange(int(seconds * RATE)) / RATE
  bends = np.interp(t, np.linspace(0, seconds, 5), rng.uniform(90, 1200, 5))
  phase = 2 * np.pi * np.cumsum(bends) / RATE
  level = np.interp(t, np.linspace(0, seconds, 6), rng.uniform(0.02, 0.3, 6))
  return np.float32(level * (np.sin(phase) + 0.5 * np.sin(3 * phase)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "data"))
  top = tmp_path / "sounds"
  for i in range(40):
    place = top / ("low", "high")[i % 2]
    place.mkdir(parents=True, exist_ok=True)
    soundfile.write(place / f"{i:03d}.wav", voice(i, 0.3 + 0.01 * i), RATE)
  soundfile.write(top / "low" / "copy.flac", 0.5 * voice(0, 0.3), RATE)
  stereo = np.repeat(voice(41)[:, None], 2, 1)
  soundfile.write(top / "high" / "stereo.wav", stereo, 16_000)
  soundfile.write(top / "high" / "silent.wav", np.zeros(4000), RATE)
  (top / "high" / "text.wav").write_text("no sound")
  return top


def test_a_folder_of_recordings(folder):
  seen = survey_clips({"source": f"folder:{folder}", "rate": RATE, "holdout": 0.3})
  assert (seen.data["size"], seen.data["classes"], seen.count) == (16_384, 2, 42)
  assert seen.rates == {8000: 41, 16_000: 1} and seen.channels == {1: 41, 2: 1}
  assert [s.partition(":")[0] for s in seen.silent] == ["high/silent.wav"]
  assert [s.partition(":")[0] for s in seen.skipped] == ["high/text.wav"]
  assert (seen.duplicates, seen.near_duplicates) == (0, 1)
  assert set(seen.example) == {"low/copy.flac", "low/000.wav"}
  assert seen.seconds[0] == pytest.approx(0.2, abs=1e-3) and not seen.own_test
  assert seen.train + seen.test <= 42 and seen.test >= 5
  text = "\n".join(seen.lines())
  for words in (
    "42 recordings",
    "16,000 Hz (1)",
    "clips of 2.05 s",
    "1 files are silent",
    "so few",
  ):
    assert words in text
  seen = survey_clips({"source": f"folder:{folder}", "rate": RATE, "holdout": 0.3}, 2048)
  assert seen.data["size"] == 2048 and seen.cut == 41
  assert "this machine can train on" in seen.reason


def test_clips_held_out_are_of_neither_training_nor_its_copies(folder):
  data = {"source": f"folder:{folder}", "split": "train", "size": 2048, "rate": RATE}
  train, test = (open_split(data | {"holdout": 0.3}, s) for s in ("train", "test"))
  assert train.rate == test.rate == RATE
  assert not set(train.rows) & set(test.rows)
  _, pairs = near_duplicates(open_split(data).arrays()[0], RATE)
  assert len(pairs) == 1
  side = [set(pairs[0]) <= set(s.rows) for s in (train, test)]
  assert any(side)  # both of a near pair on one side
  # Of clips that are held out of, others are still cut anew in every epoch.
  every = Batches(train, len(train), seed=0)
  order = lambda x: x[np.lexsort(np.abs(x[:, ::64, 0].astype(int)).T)]
  assert (order(every[0]["x"]) != order(every[1]["x"])).any()


def test_length_fits_nine_in_ten():
  assert length([4000] * 9 + [9000], None)[0] == 4096
  assert length([4000] * 8 + [9000] * 2, None)[0] == 16_384
  size, reason = length([50_000] * 10, None)
  assert size == 16_384 and "0% of the recordings are no longer" in reason


def test_what_there_is_nothing_to_learn_from(folder, tmp_path):
  with pytest.raises(UserError, match="holds recordings: say at which rate"):
    check_images(f"folder:{folder}")
  check_images("folder:/nowhere")
  (tmp_path / "few").mkdir()
  for i in range(3):
    soundfile.write(tmp_path / "few" / f"{i}.wav", voice(i), RATE)
  with pytest.raises(UserError, match="3 different clips: want 16"):
    survey_clips({"source": f"folder:{tmp_path / 'few'}", "rate": RATE})
