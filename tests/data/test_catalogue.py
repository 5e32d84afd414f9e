"""TFDS's data sets of sound, by their own builders, without TensorFlow or pydub."""

import io
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxgen.data import prepare as preparing
from jaxgen.data.prepare import prepare
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError

soundfile = pytest.importorskip("soundfile")


def wav(seconds, rate, hz=440):
  file = io.BytesIO()
  wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)
  soundfile.write(file, wave, rate, format="WAV")
  return file.getvalue()


@pytest.fixture
def offline(monkeypatch):
  monkeypatch.setattr(preparing, "check_reachable", lambda url: None)
  return lambda name, f: monkeypatch.setattr(tfds.download.DownloadManager, name, f)


def test_ljspeech(tmp_path, offline):
  top = tmp_path / "LJSpeech-1.1"
  (top / "wavs").mkdir(parents=True)
  (top / "metadata.csv").write_text("".join(f"LJ{i}|text|text\n" for i in range(3)))
  for i in range(3):
    (top / "wavs" / f"LJ{i}.wav").write_bytes(wav(i + 1, 22_050))
  offline("download_and_extract", lambda self, url: str(tmp_path))
  root = str(tmp_path / "data")
  prepare("tfds:ljspeech", root)
  source = open_source("tfds:ljspeech", size=4000, rate=8000, data_dir=root)
  assert (len(source), source.shape, source.classes, source.rate) == (3, (4000, 1), 0, 8000)
  assert sorted(map(len, source.waves())) == [8000, 16_000, 24_000]
  spectrum = np.abs(np.fft.rfft(source.arrays()[0][:, :, 0]))
  np.testing.assert_array_equal(spectrum.argmax(1) * 2, 440)
  np.testing.assert_allclose(source.peaks, 2**14, rtol=0.02)
  again = open_source("tfds:ljspeech", size=4000, rate=8000, data_dir=root)
  assert again.fingerprint == source.fingerprint
  with pytest.raises(UserError, match="holds sound: .* --config.data.rate=22050"):
    open_source("tfds:ljspeech", size=32, data_dir=root)
  with pytest.raises(UserError, match="how many samples a clip has"):
    open_source("tfds:ljspeech", rate=8000, data_dir=root)
  with pytest.raises(UserError, match="has the splits train, not test"):
    open_source("tfds:ljspeech", "test", 4000, root, rate=8000)


def test_speech_commands(tmp_path, offline):
  noise = "_background_noise_"
  files = {
    "yes/1.wav": wav(1, 16_000),
    "no/2.wav": wav(1, 16_000),
    "no/4.wav": b"this is no sound",
    "cat/3.wav": wav(0.5, 16_000),
    f"{noise}/hum.wav": wav(3, 16_000, 100),
    f"{noise}/running_tap.wav": wav(2, 16_000, 100),
    "testing_list.txt": b"no/5.wav\n",
    "validation_list.txt": b"no/2.wav\n",
  }
  offline("download", lambda self, urls: ["train", "test"])
  offline("iter_archive", lambda self, path: [(k, io.BytesIO(v)) for k, v in files.items()])
  root = str(tmp_path / "data")
  prepare("tfds:speech_commands", root)
  assert "tensorflow" not in sys.modules and "pydub" not in sys.modules
  source = open_source("tfds:speech_commands", size=16_000, rate=16_000, data_dir=root)
  names = [source.class_names[y] for y in source.y]
  assert source.classes == 12
  assert sorted(names) == ["_silence_"] * 4 + ["_unknown_", "yes"]
  middle = source.arrays()[0][names.index("_unknown_"), :, 0]  # half a second, between silence
  assert not middle[:4000].any() and not middle[-4000:].any() and middle[4001:-4001].any()
  test = open_source("tfds:speech_commands", "validation", 16_000, root, rate=16_000)
  assert [source.class_names[y] for y in test.y].count("no") == 1
