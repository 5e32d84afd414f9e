"""Sound that is none, odd or broken: one line, or the right thing."""

import numpy as np
import pytest
from PIL import Image

from jaxgen import config
from jaxgen.data import recordings
from jaxgen.data.pipeline import batches
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.sharding import make_mesh

soundfile = pytest.importorskip("soundfile")
RATE = 8000
TONE = np.float32(0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE))


@pytest.mark.parametrize("kind", ["empty", "cut", "header", "noise", "text"])
def test_broken_files(tmp_path, kind):
  path = tmp_path / "x.wav"
  soundfile.write(path, TONE, RATE)
  whole = path.read_bytes()
  path.write_bytes(
    {
      "empty": b"",
      "cut": whole[:6000],
      "header": whole[:20],
      "noise": bytes(range(256)) * 8,
      "text": b"this is no sound",
    }[kind]
  )
  if kind == "cut":  # what is there is sound
    assert 2900 < len(recordings.decode(path, RATE)) < 3000
  else:
    with pytest.raises(ValueError, match="."):
      recordings.decode(path, RATE)


@pytest.mark.parametrize("fault, wave", [
  ("no numbers", np.full(4000, np.nan)), ("no numbers", np.full(4000, -np.inf)),
  ("3 samples", np.ones(3)), ("0 samples", np.ones(0)), ("silent", np.zeros(4000)),
])  # fmt: skip
def test_what_is_no_recording(tmp_path, fault, wave):
  soundfile.write(tmp_path / "x.wav", np.float32(wave), RATE, subtype="FLOAT")
  with pytest.raises(ValueError, match=fault):
    recordings.decode(tmp_path / "x.wav", RATE)
  with pytest.raises(ValueError, match=fault):
    recordings.resampled(np.float32(wave), RATE, RATE)


def test_arrays_of_other_kinds():
  expected = recordings.as_int16(TONE)
  stereo = np.stack([TONE, TONE], 1)
  whole = expected.astype(np.int64)
  for wave in (TONE, stereo, expected, whole, whole << 16, TONE.astype(np.float64)):
    got = recordings.resampled(wave, RATE, RATE)
    assert got.dtype == np.int16 and np.abs(got - expected.astype(int)).max() <= 1
  assert len(recordings.resampled(np.tile(TONE, 12), 12 * RATE, RATE)) == RATE


def refused(match, name, **kw):
  with pytest.raises(UserError, match=match) as e:
    open_source(name, **kw)
  assert "\n" not in str(e.value)


def test_sound_where_images_are_wanted_and_the_other_way(tmp_path):
  sound, images = tmp_path / "sound", tmp_path / "images"
  sound.mkdir()
  images.mkdir()
  soundfile.write(sound / "x.flac", TONE, RATE)
  Image.new("RGB", (8, 8)).save(images / "x.png")
  refused("holds sound, 1 recordings: .*--config.data.rate=16000", f"folder:{sound}", size=8)
  refused("holds 1 images and no recordings: leave", f"folder:{images}", size=8, rate=RATE)
  refused("is a file", f"folder:{sound / 'x.flac'}", size=8, rate=RATE)
  refused("holds no sound: leave out --config.data.rate", "digits", rate=RATE)
  refused("holds no sound", f"zip:{sound}", size=8, rate=RATE)
  refused("want 1,000 to 384,000", f"folder:{sound}", size=8, rate=3)
  refused("one channel", f"folder:{sound}", size=8, rate=RATE, channels=3)
  refused("one channel", "spoken_digits", channels=1)
  refused("want 1,000 to 384,000", "spoken_digits", rate=3)
  source = open_source(f"folder:{sound}", size=100, rate=RATE, data_dir=str(tmp_path / "data"))
  for option in ({"flip": True}, {"crop": 0.8}):
    with pytest.raises(UserError, match="images"):
      batches(source, batch=1, seed=0, **option)
  c = config.load("configs/digits_diffusion.py:debug")
  c.data.update(source=f"folder:{sound}", rate=RATE, size=100, classes=0)
  c.model.update(classes=0)
  c.model.net.labels = 0
  with pytest.raises(UserError, match="clips of sound: is it a model of sound"):
    Experiment.of(c).abstract(source, make_mesh())
