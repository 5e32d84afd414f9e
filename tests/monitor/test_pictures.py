"""Grids place every pixel; files say how they were made."""

import os

import numpy as np
import PIL.Image
import pytest

from jaxgen.errors import UserError
from jaxgen.monitor import pictures


def test_grid_places_images_row_by_row():
  x = np.arange(5, dtype=np.uint8)[:, None, None, None] * 50
  x = np.broadcast_to(x, (5, 2, 3, 1))
  got = pictures.grid(x, columns=2, scale=4, pad=1)
  assert got.shape == (3 * 8 + 2, 2 * 12 + 1, 3)
  for i in range(5):
    y, x0 = (i // 2) * 9, (i % 2) * 13
    assert (got[y : y + 8, x0 : x0 + 12] == 50 * i).all()
  assert (got[18:, 13:] == 255).all()  # the missing sixth
  assert (got[8] == 255).all() and (got[:, 12] == 255).all()


def test_grid_enlarges_small_images_only_and_by_nearest():
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (1, 8, 8, 3), np.uint8)
  got = pictures.grid(x)
  assert got.shape == (64, 64, 3)
  np.testing.assert_array_equal(got[4::8, 4::8], x[0])
  big = rng.integers(0, 256, (1, 128, 128, 3), np.uint8)
  np.testing.assert_array_equal(pictures.grid(big), big[0])


def test_grid_refuses_floats():
  with pytest.raises(ValueError, match="uint8"):
    pictures.grid(np.zeros((1, 8, 8, 3), np.float32))


def test_png_says_how_it_was_made(tmp_path):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (6, 5, 3), np.uint8)
  info = {"knobs": {"steps": 25}, "dataset": "épée", "seed": 3}
  path = tmp_path / "new" / "x.png"
  pictures.save_png(path, np.zeros_like(image), {})
  pictures.save_png(path, image, info)
  assert pictures.read_info(path) == info
  np.testing.assert_array_equal(np.asarray(PIL.Image.open(path)), image)
  assert os.listdir(path.parent) == ["x.png"]


def test_other_files_say_nothing(tmp_path):
  PIL.Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
  (tmp_path / "y.png").write_text("no picture")
  for name in ("x.png", "y.png", "absent.png"):
    with pytest.raises(UserError, match=name):
      pictures.read_info(tmp_path / name)


def test_scatter_shows_where_the_points_are():
  x = np.array([[0.5, 0.5], [np.nan, 0]])
  got = pictures.scatter(x, limit=1.0, pixels=200).astype(int)
  blue = np.argwhere(got[..., 2] - got[..., 0] > 40)
  np.testing.assert_allclose(blue.mean(0), [200 * 0.26, 200 * 0.74], atol=4)
  assert pictures.scatter(x, real=x[:1] * 9).shape == (512, 512, 3)


def test_spectrograms_rise_with_time_and_pitch():
  """A tone that rises is a line from low on the left to high on the right."""
  rate, n = 8000, 4096
  t = np.arange(n) / rate
  rising = 8000 * np.sin(2 * np.pi * (300 * t + 2500 * t**2))
  x = np.stack([rising, 0.01 * rising, 0 * t]).astype(np.int16)
  loud, quiet, silent = pictures.spectrograms(x, rate)
  assert loud.shape == (80, 128, 3) and loud.dtype == np.uint8
  top = lambda image: image.astype(int).sum(-1).argmax(0)  # row of the loudest band
  rows = top(loud)
  assert (np.diff(rows[8:-8]) <= 1).all() and rows[10] > 60 > 30 > rows[-10]
  assert np.abs(top(quiet)[8:-8] - rows[8:-8]).max() <= 3  # relative to its own loudest
  assert silent.max() < 8 and loud.max() > 200
  assert pictures.spectrograms(x[:, :100], rate).shape == (3, 80, 128, 3)
