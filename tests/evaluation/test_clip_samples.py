"""Clips of files and folders: as they are, brought to the data's form, or refused."""

import dataclasses

import numpy as np
import pytest
import soundfile

from jaxgen.audio.wav import save_wav
from jaxgen.data.arrays import Arrays
from jaxgen.errors import UserError
from jaxgen.evaluation.clip_samples import open_clip_samples


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Real(Arrays):
  rate: int = 8000


LENGTH = 800
REAL = Real("real", np.zeros((2, LENGTH, 1), np.int16), np.arange(2), 2, class_names=("no", "yes"))


@pytest.fixture
def x():
  return np.random.default_rng(0).integers(-(2**15), 2**15, (3, LENGTH, 1)).astype(np.int16)


def test_files_of_samples_and_of_floats_hold_the_same(tmp_path, x):
  np.savez(tmp_path / "a.npz", x, np.array([0, 1, 1]))
  np.save(tmp_path / "b.npy", x[..., 0].astype(np.float32) / 2**15)
  a, b = (open_clip_samples(str(tmp_path / n), REAL) for n in ("a.npz", "b.npy"))
  np.testing.assert_array_equal(a.x, x)
  np.testing.assert_array_equal(b.x, x)
  assert a.y.tolist() == [0, 1, 1] and b.y is None
  assert len(open_clip_samples(str(tmp_path / "a.npz"), REAL, num=2).x) == 2


def test_folders_know_labels_by_jaxgens_word_or_by_subfolders(tmp_path, x):
  for i, wave in enumerate(x):
    (tmp_path / "theirs" / ("yes", "no")[i % 2]).mkdir(parents=True, exist_ok=True)
    save_wav(tmp_path / f"ours/{i:06d}.wav", wave, 8000, {"label": i % 2})
    soundfile.write(tmp_path / "theirs" / ("yes", "no")[i % 2] / f"{i}.wav", wave, 8000)
  ours, theirs = (open_clip_samples(str(tmp_path / n), REAL) for n in ("ours", "theirs"))
  np.testing.assert_array_equal(ours.x, x)
  assert ours.y.tolist() == [0, 1, 0]
  np.testing.assert_array_equal(theirs.x, x[[1, 0, 2]])
  assert theirs.y.tolist() == [0, 1, 1]


def test_silence_is_a_bad_sample_and_no_bad_file(tmp_path):
  save_wav(tmp_path / "0.wav", np.zeros((LENGTH, 1), np.int16), 8000, {})
  assert not open_clip_samples(str(tmp_path), REAL).x.any()


def test_other_forms_are_brought_to_the_datas_if_they_may(tmp_path):
  t = np.arange(2 * 1600) / 16_000
  tone = 0.5 * np.sin(2 * np.pi * 440 * t)
  soundfile.write(tmp_path / "x.wav", np.stack([tone, 0 * tone], 1), 16_000)
  x = open_clip_samples(str(tmp_path), REAL, convert=True).x
  assert x.shape == (1, LENGTH, 1)
  want = 0.25 * np.sin(2 * np.pi * 440 * (np.arange(LENGTH) + 400) / 8000)
  assert np.abs(x[0, :, 0] / 2**15 - want).max() < 1e-3


@pytest.mark.parametrize(
  "wave, rate, word",
  [
    (np.zeros((LENGTH, 2)), 8000, "2 channels"),
    (np.zeros(LENGTH), 16_000, "at 16000 Hz, and real at 8000"),
    (np.zeros(LENGTH - 1), 8000, "799 samples long"),
    (np.full(LENGTH, np.nan), 8000, "NaN"),
  ],
)
def test_other_recordings_are_refused_in_a_line(tmp_path, wave, rate, word):
  soundfile.write(tmp_path / "x.wav", wave, rate, subtype="FLOAT")
  with pytest.raises(UserError, match=word) as e:
    open_clip_samples(str(tmp_path), REAL)
  assert "\n" not in str(e.value)


def test_folders_of_nothing_and_texts_are_refused(tmp_path):
  with pytest.raises(UserError, match="no recordings"):
    open_clip_samples(str(tmp_path), REAL)
  (tmp_path / "x.wav").write_text("words")
  with pytest.raises(UserError, match="cannot be read"):
    open_clip_samples(str(tmp_path), REAL)


@pytest.mark.parametrize(
  "x, word",
  [
    (np.zeros((2, LENGTH, 2), np.int16), "2 channels"),
    (np.zeros((2, 8, 8, 1), np.uint8), "wanted are clips"),
    (np.full((2, LENGTH), np.nan, np.float32), "NaN"),
    (np.full((2, LENGTH), 3e4, np.float32), r"\[-1, 1\]"),
    (np.zeros((2, LENGTH + 1), np.int16), "801 samples long"),
  ],
)
def test_other_arrays_are_refused(tmp_path, x, word):
  np.savez(tmp_path / "x.npz", x)
  with pytest.raises(UserError, match=word):
    open_clip_samples(str(tmp_path / "x.npz"), REAL)


def test_files_that_tell_another_rate_are_refused(tmp_path, x):
  np.savez(tmp_path / "x.npz", x, info='{"rate": 16000}')
  with pytest.raises(UserError, match="16000 Hz"):
    open_clip_samples(str(tmp_path / "x.npz"), REAL)
