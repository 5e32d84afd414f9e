"""Sound: files of all kinds, some broken, as clips of one length."""

import contextlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from jaxgen import core
from jaxgen.audio import wav
from jaxgen.data import spoken
from jaxgen.data.clips import Clips
from jaxgen.data.mel_images import mel_images
from jaxgen.data.pipeline import Batches, batches
from jaxgen.data.sources import open_source, open_split
from jaxgen.errors import UserError

soundfile = pytest.importorskip("soundfile")
RATE = 8000


def tone(hz, seconds, rate, level=0.5):
  return np.float32(level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate))


def peak(x, rate=RATE):
  """The strongest frequency, in Hz."""
  return np.abs(np.fft.rfft(x)).argmax() * rate / len(x)


@pytest.fixture
def folder(tmp_path):
  """The same tone in every way that it can be stored."""
  top = tmp_path / "tones"
  for name in ("low", "high"):
    (top / name).mkdir(parents=True)
  stereo = np.stack([tone(440, 1, 44_100), np.zeros(44_100, np.float32)], 1)
  soundfile.write(top / "low" / "a.wav", stereo, 44_100)
  soundfile.write(top / "low" / "b.flac", tone(440, 1, 96_000), 96_000)
  soundfile.write(top / "low" / "c.ogg", tone(440, 1, 16_000), 16_000)
  soundfile.write(top / "low" / "d.mp3", tone(440, 1, 22_050), 22_050)
  soundfile.write(top / "high" / "e.wav", tone(880, 1, 8000), 8000, subtype="PCM_U8")
  soundfile.write(top / "high" / "f.wav", tone(880, 0.2, 8000), 8000, subtype="FLOAT")
  return top


def test_all_kinds_rates_and_channels(folder, tmp_path):
  source = open_source(f"folder:{folder}", size=4000, rate=RATE, data_dir=tmp_path / "data")
  assert (len(source), source.shape, source.dtype, source.classes) == (6, (4000, 1), np.int16, 2)
  assert source.class_names == ("high", "low") and not source.skipped
  x, y = source.arrays()
  for wave, label in zip(x[:, :, 0], y, strict=True):
    assert peak(wave) == pytest.approx(440 if source.class_names[label] == "low" else 880, abs=6)
  levels = np.abs(x.astype(int)).max((1, 2)) / 2**15
  np.testing.assert_allclose(levels, [0.5, 0.5, 0.25, 0.5, 0.5, 0.5], atol=0.06)  # c: stereo
  short = x[1, :, 0]  # 0.2 seconds, between silence
  assert (short[:1200] == 0).all() and (short[-1200:] == 0).all() and short[1300:2700].any()


def test_clips_are_drawn_in_training_and_of_the_middle_elsewhere(folder, tmp_path):
  source = open_source(f"folder:{folder}", size=2000, rate=RATE, data_dir=tmp_path / "data")
  middle = source.read(np.array([0]))["x"]
  start = (source.ends[0] - 2000) // 2
  np.testing.assert_array_equal(middle[0, :, 0], source.wave[start : start + 2000])
  batches = Batches(source, 6, seed=1)
  first, later = batches[3]["x"], batches[4]["x"]
  np.testing.assert_array_equal(first, Batches(source, 6, seed=1)[3]["x"])
  assert (first != later).any()
  halves = [Batches(source, 6, seed=1, process=i, processes=2)[3]["x"] for i in range(2)]
  np.testing.assert_array_equal(np.concatenate(halves), first)
  again = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(again.read(np.arange(6))["x"], source.arrays()[0])
  assert len(pickle.dumps(source)) < 2000


def test_broken_files_are_named(tmp_path, capsys):
  top = tmp_path / "sounds"
  top.mkdir()
  (top / "text.wav").write_text("this is no sound")
  soundfile.write(top / "nan.wav", np.array([np.nan] * 4000, np.float32), RATE, subtype="FLOAT")
  soundfile.write(top / "tiny.wav", np.ones(3, np.float32), RATE)
  soundfile.write(top / "silent.wav", np.zeros(4000, np.float32), RATE)
  opened = lambda: open_source(f"folder:{top}", size=100, rate=RATE, data_dir=tmp_path / "data")
  with pytest.raises(
    UserError, match="none of 4 recordings can be read, e.g. nan.wav: has samples"
  ):
    opened()
  soundfile.write(top / "whole.wav", tone(440, 0.5, RATE), RATE)
  source = opened()
  assert len(source) == 1
  reasons = dict(line.split(": ", 1) for line in source.skipped)
  assert reasons.keys() == {"text.wav", "nan.wav", "tiny.wav", "silent.wav"}
  assert reasons["tiny.wav"] == "has 3 samples, less than 10 ms"
  assert reasons["silent.wav"] == "is silent"
  assert "4 of 5 left out" in capsys.readouterr().err


def test_what_is_no_data_of_sound(tmp_path):
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match="there are no recordings in"):
    open_source(f"folder:{tmp_path / 'empty'}", size=100, rate=RATE)
  with pytest.raises(UserError, match="there is no folder"):
    open_source(f"folder:{tmp_path / 'none'}", size=100, rate=RATE)
  with pytest.raises(UserError, match="how many samples a clip has, --config.data.size=8000"):
    open_source(f"folder:{tmp_path / 'empty'}", rate=RATE)


def test_samples_become_numbers_and_back():
  x = np.array([[-(2**15)], [-1], [0], [2**15 - 1]], np.int16)
  on = core.on_device({"x": x})["x"]
  assert float(on.min()) == -1 and float(on.max()) < 1
  np.testing.assert_array_equal(core.as_data(on, np.dtype(np.int16)), x)
  np.testing.assert_array_equal(core.as_data(2 * on, np.dtype(np.int16))[::3], x[::3])


def test_wav_files_say_how_they_were_made(tmp_path):
  x = np.random.default_rng(0).integers(-(2**15), 2**15, (1001, 1)).astype(np.int16)
  wav.save_wav(tmp_path / "x.wav", x, 16_000, {"seed": 3, "name": "å"})
  back, rate = soundfile.read(tmp_path / "x.wav", dtype="int16")
  assert rate == 16_000
  np.testing.assert_array_equal(back, x[:, 0])
  assert wav.read_info(tmp_path / "x.wav") == {"seed": 3, "name": "å"}
  soundfile.write(tmp_path / "y.wav", x, 16_000)
  with pytest.raises(UserError, match="not a WAV written by jaxgen"):
    wav.read_info(tmp_path / "y.wav")


def test_what_a_judge_sees(tmp_path):
  """A tone is a line; an octave is higher up."""
  x = np.stack([tone(hz, 0.512, RATE) for hz in (500, 1000, 2000)])
  images = mel_images(np.int16(x * 2**15)[..., None], RATE)
  assert images.shape == (3, 32, 32, 1) and images.dtype == np.uint8
  rows = images[:, :, 16, 0].argmax(1)
  assert rows[0] > rows[1] > rows[2]


SPEAK = """
import sys
from jaxgen.data import spoken
few = [u for u in spoken.utterances() if u[:4] == ("en-us", "f2", 150, 40)]
few += spoken.utterances()[::200]  # of all voices, breathy ones among them
spoken.utterances = lambda: few
spoken.render(sys.argv[1])
"""


def test_spoken_digits(tmp_path):
  """In processes of their own, as they are rendered: those say the same."""
  pytest.importorskip("espeakng_loader")
  again = tmp_path / "again"
  again.mkdir()
  for folder in (tmp_path, again):
    subprocess.run([sys.executable, "-c", SPEAK, str(folder)], check=True)
  for name in ("ends.bin", "x.bin"):
    assert (tmp_path / name).read_bytes() == (again / name).read_bytes()
  ends = np.fromfile(tmp_path / "ends.bin", np.int64)
  wave = np.fromfile(tmp_path / "x.bin", np.int16)
  assert len(ends) == 10 + 31 and ends[-1] == len(wave)
  lengths = np.diff(ends, prepend=0)[:10] / spoken.SPOKEN_RATE
  assert (lengths > 0.15).all() and (lengths < 0.8).all()
  assert set(np.argsort(lengths)[-2:]) == {7, 9} and lengths.argmin() == 2  # of "two"
  assert sum(map(spoken.held_out, spoken.VOICES)) == 4


def test_speakers_of_the_test_split_say_nothing_in_training(tmp_path, monkeypatch):
  pytest.importorskip("espeakng_loader")
  few = [u for u in spoken.utterances() if u[0] == "en-us" and u[1] in ("m1", "m3") and u[2] == 150]
  few = [u for u in few if u[3] == 40]
  monkeypatch.setattr(spoken, "utterances", lambda: few)

  def speak(folder):
    target = folder / f"spoken_digits-v{spoken.VERSION}"
    target.mkdir()
    spoken.render(str(target))

  monkeypatch.setattr(spoken, "speak", speak)
  train, test = (
    open_source("spoken_digits", split, size=2048, rate=4000, data_dir=tmp_path)
    for split in ("train", "test")
  )
  assert not spoken.held_out("m1") and spoken.held_out("m3")
  for source in (train, test):
    assert source.y.tolist() == list(range(10)) and source.class_names == tuple("0123456789")
    assert (source.rate, source.shape) == (4000, (2048, 1))
    assert np.abs(source.arrays()[0].astype(int)).max((1, 2)).min() > 1000
  assert (train.arrays()[0] != test.arrays()[0]).any((1, 2)).all()
  with pytest.raises(UserError, match="splits train and test, not val"):
    open_source("spoken_digits", "val", data_dir=tmp_path)


@pytest.fixture
def pauses(tmp_path):
  """Half a second of a tone within ten of next to nothing, and files that are short."""
  top = tmp_path / "pauses"
  top.mkdir()
  wave = np.random.default_rng(0).normal(0, 1e-4, 10 * RATE).astype(np.float32)
  wave[6 * RATE : 13 * RATE // 2] += tone(440, 0.5, RATE)
  soundfile.write(top / "long.wav", wave, RATE)
  soundfile.write(top / "short.wav", np.pad(tone(440, 0.1, RATE), 400), RATE)
  for i in range(18):
    soundfile.write(top / f"tone{i}.wav", tone(300 + i, 1 + i / 10, RATE), RATE)
  return top


def test_no_clip_of_a_longer_recording_is_all_pause(pauses, tmp_path):
  source = open_source(f"folder:{pauses}", size=2 * RATE, rate=RATE, data_dir=tmp_path / "data")
  loud = lambda x: np.abs(x.astype(int)).max() > 0.3 * 2**15
  assert loud(source[0]["x"])  # and the middle is a pause
  words = np.random.default_rng(1).integers(0, 2**32, 50).astype(np.uint64)
  clips = source.read(np.zeros(50, int), words=words)["x"][:, :, 0]
  assert np.mean([loud(x) for x in clips]) > 0.8  # by chance it would be a quarter
  again = source.read(np.zeros(2, int), words=words[[7, 3]])["x"][:, :, 0]
  np.testing.assert_array_equal(again, clips[[7, 3]])
  begins = {x.tobytes() for x in clips}
  assert len(begins) > 30
  short = source[1]["x"][:, 0]  # its own ends are as they were
  assert len(list(source.waves())[1]) == 1600 and np.count_nonzero(short) <= 800


def test_parts_of_recordings(pauses, tmp_path, monkeypatch):
  monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "data"))
  data = dict(source=f"folder:{pauses}", split="train", size=4000, rate=RATE, channels=0)
  whole = open_split(data)
  sides = [open_split(data | {"holdout": 0.3}, split) for split in ("train", "test")]
  assert all(isinstance(s, Clips) and s.rate == RATE and len(s) for s in sides)
  rows = np.concatenate([s.rows for s in sides])
  left_out = int(sides[1].notes[-1].split()[0])  # near duplicates, of either side's
  assert len(set(rows)) == len(rows) == len(whole) - left_out > 0
  some = open_split(data | {"fraction": 0.5})
  assert len(some) == len(whole) / 2 and some.fingerprint != whole.fingerprint
  for part in (*sides, some):
    np.testing.assert_array_equal(part.arrays()[0], whole.arrays()[0][part.rows])
    copy = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(copy.arrays()[0], part.arrays()[0])
    first = Batches(part, 4, seed=2)[5]["x"]
    np.testing.assert_array_equal(first, Batches(copy, 4, seed=2)[5]["x"])
  # Places of clips are drawn, of parts as of the whole.
  assert (Batches(some, len(some), 2)[0]["x"] != Batches(some, len(some), 2)[1]["x"]).any()


def test_workers_and_a_later_start_give_the_same_clips(pauses, tmp_path):
  source = open_source(f"folder:{pauses}", size=2000, rate=RATE, data_dir=tmp_path / "data")
  stream = Batches(source, 8, seed=3)
  for options in ({"start": 4}, {"start": 3, "workers": 1}, {"start": 2, "threads": 2}):
    with contextlib.closing(batches(source, batch=8, seed=3, **options)) as later:
      for step, batch in zip(range(options["start"], 6), later, strict=False):
        np.testing.assert_array_equal(batch["x"], stream[step]["x"])


def test_damaged_packed_copies(pauses, tmp_path):
  opened = lambda: open_source(f"folder:{pauses}", size=99, rate=RATE, data_dir=tmp_path / "data")
  folder = opened().folder
  (folder / "peaks.bin").write_bytes(b"")
  with pytest.raises(UserError, match="is damaged .* delete that folder"):
    opened()
