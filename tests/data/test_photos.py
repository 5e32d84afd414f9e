"""Photographs: what patches hold, that splits are apart, that sizes agree."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest
from skimage import data as shipped
from sklearn.datasets import load_sample_image

from jaxgen.data import photos
from jaxgen.data.pipeline import batches
from jaxgen.data.sources import open_source
from jaxgen.diffusion import degrade
from jaxgen.errors import UserError

SPLITS = "train", "test"


def box(x, k):
  """Mean over boxes of k x k, by hand: [H, W, C] float64; the rest is cut."""
  h, w, c = x.shape
  h, w = h // k * k, w // k * k
  return np.float64(x[:h, :w]).reshape(h // k, k, w // k, k, c).mean((1, 3))


def test_patches_and_labels():
  for split, count, photographs in (("train", 3969, 7), ("test", 1319, 3)):
    source = open_source("photos", split)
    x, y = source.arrays()
    assert len(source) == len(x) == len(y) == count
    assert source.shape == (64, 64, 3) and source.dtype == np.uint8
    # As many in both splits: what is trained on one can be asked of the other.
    assert source.classes == 7 and source.in_memory
    assert np.bincount(y).min() > 200 and len(np.bincount(y)) == photographs
    assert len({a.tobytes() for a in x}) > 0.99 * count
    assert x.mean(-1).std((1, 2)).min() >= photos.FLAT
    assert not x.flags.writeable
    assert source.read(np.array([3]))["x"].flags.writeable


def test_patches_are_of_their_photographs():
  # As the packages themselves read the files, at the finest scale.
  photographs = {
    "train": [
      load_sample_image("china.jpg"), shipped.astronaut(), shipped.stereo_motorcycle()[0],
      shipped.rocket(), shipped.immunohistochemistry(),
    ],
    "test": [load_sample_image("flower.jpg"), shipped.chelsea(), shipped.coffee()],
  }  # fmt: skip
  for split, pictures in photographs.items():
    x, y = open_source("photos", split).arrays()
    for label, picture in enumerate(pictures):
      mine = {a.tobytes() for a in x[y == label]}
      rows, columns = (range(0, n - 63, 20) for n in picture.shape[:2])
      patches = [picture[i : i + 64, j : j + 64] for i in rows for j in columns]
      patches = [a for a in patches if a.mean(-1).std() >= photos.FLAT]
      assert len(patches) > 100 and all(a.tobytes() in mine for a in patches)


def test_coarser_patches_are_box_means():
  picture = shipped.chelsea()
  x = photos.of_photo(picture)
  for k in (2, 4):
    small = box(picture, k)[:64, :64]
    error = abs(x - small).max((1, 2, 3))
    assert error.min() <= 0.5 + 1e-9
  # Large ones begin where their short side is about 400.
  large = np.repeat(np.repeat(picture, 4, 0), 4, 1)  # 1200 x 1804: by three
  x = photos.of_photo(large)
  want = box(large, 3)[:64, :64]
  assert abs(x - want).max((1, 2, 3)).min() <= 0.5 + 1e-9


def test_splits_are_of_different_photographs():
  names = [{pathlib.PurePath(n).name for n in photos.PHOTOS[s]} for s in SPLITS]
  assert not names[0] & names[1] and len(names[1]) >= 3
  x, z = (open_source("photos", s).arrays()[0] for s in SPLITS)
  assert not {a.tobytes() for a in x} & {a.tobytes() for a in z}
  fingerprints = {open_source("photos", s, size).fingerprint for s in SPLITS for size in (None, 32)}
  assert len(fingerprints) == 4
  assert open_source("photos", size=64).fingerprint in fingerprints


@pytest.mark.parametrize("size", [32, 16, 8])
def test_sizes_are_the_same_patches(size):
  large, small = (open_source("photos", "test", s) for s in (64, size))
  x, y = large.arrays()
  z, labels = small.arrays()
  np.testing.assert_array_equal(y, labels)
  k = 64 // size
  exact = x.reshape(-1, size, k, size, k, 3).sum((2, 4), dtype=np.int64)
  exact = exact / k**2  # in float64: as box sums are, without an error
  np.testing.assert_array_equal(z, np.floor(exact + 0.5))  # ties up
  # A model trained on them sees what upsamplers are given in training.
  on_device = jax.jit(degrade.area, static_argnums=1)(np.float32(x[:64]) / 127.5 - 1, size)
  assert abs((np.asarray(on_device) + 1) * 127.5 - z[:64]).max() < 0.5001


def test_digits_of_four_pixels_are_box_means():
  # The base of a cascade on digits. PIL makes them, which rounds twice: each
  # row's pairs, then the pairs of these; ties up.
  x, z = (open_source("digits", size=s).arrays()[0] for s in (None, 4))
  assert z.shape[1:] == (4, 4, 1)
  x = np.float64(x).reshape(-1, 8, 4, 2)
  rows = np.floor(x.mean(-1) + 0.5).reshape(-1, 4, 2, 4)
  np.testing.assert_array_equal(z[..., 0], np.floor(rows.mean(2) + 0.5))


def test_other_sizes_and_grey():
  for size in (24, 96):
    assert open_source("photos", "test", size).shape == (size, size, 3)
  grey = open_source("photos", "test", 16, channels=1)
  assert grey.shape == (16, 16, 1)
  colour = np.float64(open_source("photos", "test", 16).x)
  luma = colour @ [0.299, 0.587, 0.114]
  assert abs(grey.x[..., 0] - luma).max() < 1


def test_random_crops_are_of_the_original():
  source = open_source("photos", "test", 32)
  batch = next(batches(source, batch=4, seed=0, crop=0.5, threads=0))
  assert batch["x"].shape == (4, 32, 32, 3)
  assert source.original(5).size == (64, 64)


def test_mistakes(monkeypatch):
  with pytest.raises(UserError, match="train and test, not validation"):
    open_source("photos", "validation")
  with pytest.raises(UserError, match="did you mean photos?"):
    open_source("photo")
  photos.patches.cache_clear()
  find = importlib.util.find_spec
  without = lambda name: None if name == "skimage" else find(name)
  monkeypatch.setattr(importlib.util, "find_spec", without)
  with pytest.raises(UserError, match=r"pip install 'jaxgen\[photos\]'"):
    open_source("photos")
  monkeypatch.undo()
  with pytest.raises(UserError, match="skimage has no data/dodo.png"):
    photos.locate("skimage/data/dodo.png")
