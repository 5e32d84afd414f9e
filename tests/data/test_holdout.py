"""Images held out by what they show."""

import pickle

import numpy as np
import pytest
from PIL import Image
from test_phash import texture

from jaxgen.data import holdout, phash
from jaxgen.data.arrays import Arrays
from jaxgen.data.sources import open_source, open_split
from jaxgen.errors import UserError


@pytest.fixture(scope="module")
def textures():
  rng = np.random.default_rng(4)
  return np.stack([texture(rng, 16) for _ in range(1000)])


def write(folder, images, names=None, **how):
  folder.mkdir(exist_ok=True)
  names = names or [f"{i:04d}.png" for i in range(len(images))]
  for name, x in zip(names, images, strict=True):
    Image.fromarray(x).save(folder / name, **how)
  return {"source": f"folder:{folder}", "split": "train", "size": 16, "channels": 3}


def rows_of(data, split, x):
  """Which of x a split holds."""
  held = open_split(data | {"holdout": 0.25}, split).arrays()[0]
  return {int(np.flatnonzero((x == one).all((1, 2, 3)))[0]) for one in held}


def test_the_share_is_about_right_and_nothing_is_lost(textures, tmp_path):
  source = Arrays("x", textures)
  side = holdout.sides(source, 0.25, tmp_path)
  assert np.mean(side == holdout.TEST) == pytest.approx(0.25, abs=0.05)
  assert np.mean(side == holdout.NEITHER) < 0.01
  (kept,) = (tmp_path / "holdout").glob("[!.]*")
  assert (holdout.sides(source, 0.25, tmp_path) == side).all() and kept.stat().st_size == 1000


def test_sides_depend_on_the_images_alone(textures, tmp_path):
  x = textures[:60]
  data = write(tmp_path / "a", x)
  test, train = rows_of(data, "test", x), rows_of(data, "train", x)
  assert test and not test & train and len(test | train) >= 59
  order = np.random.default_rng(5).permutation(60)
  other = write(tmp_path / "b", x[order], [f"picture {i}.bmp" for i in range(60)])
  assert rows_of(other, "test", x) == test


def test_more_images_move_none_across(textures, tmp_path):
  x = textures[:60]
  before = rows_of(write(tmp_path / "a", x), "test", x)
  more = write(tmp_path / "b", textures[:120])
  assert rows_of(more, "test", textures) & set(range(60)) == before


def test_near_duplicates_are_on_one_side(textures, tmp_path):
  noise = np.random.default_rng(6).normal(0, 4, textures.shape)
  x = np.concatenate([textures, np.clip(textures + noise, 0, 255).astype(np.uint8), textures[:50]])
  side = holdout.sides(Arrays("x", x), 0.3, tmp_path)
  f = phash.describe(x)
  pairs = phash.near_pairs(phash.hashes(x, f), f)
  assert len(pairs) > 900
  assert not (np.sort(side[pairs], axis=1) == (holdout.TRAIN, holdout.TEST)).all(1).any()
  np.testing.assert_array_equal(side[2000:], side[:50])
  assert np.mean(side == holdout.TEST) > 0.15  # some were near the other side


def test_a_side_reads_as_its_rows_and_goes_to_other_processes(textures, tmp_path):
  data = write(tmp_path / "a", textures[:40]) | {"holdout": 0.25}
  train = open_split(data)
  x, y = train.arrays()
  assert y is None and len(train) == len(x) and train.shape == (16, 16, 3)
  copy = pickle.loads(pickle.dumps(train))
  np.testing.assert_array_equal(copy.read(np.array([3, 1]))["x"], x[[3, 1]])
  np.testing.assert_array_equal(train[2]["x"], x[2])
  turned = train.read(np.array([1]), lambda k, image: image.rotate(180))["x"]
  np.testing.assert_array_equal(turned[0], x[1][::-1, ::-1])
  assert train.fingerprint == copy.fingerprint != open_split(data, "test").fingerprint


def test_data_with_a_test_split_keep_theirs():
  for split in ("train", "test"):
    own = open_source("digits", split)
    assert open_split({"source": "digits", "split": split, "holdout": 0.2}).fingerprint == (
      own.fingerprint
    )


def test_a_fraction_is_of_what_is_trained_on(textures, tmp_path):
  data = write(tmp_path / "a", textures[:40]) | {"holdout": 0.25}
  whole, held = open_split(data), open_split(data, "test")
  half, tenth = (open_split(data | {"fraction": f}) for f in (0.5, 0.1))
  assert (len(half), len(tenth)) == (round(len(whole) / 2), round(len(whole) / 10))
  rows = [{a.tobytes() for a in s.arrays()[0]} for s in (whole, half, tenth)]
  assert rows[2] < rows[1] < rows[0]
  assert open_split(data | {"fraction": 0.5}, "test").fingerprint == held.fingerprint
  assert open_split(data | {"fraction": 0.5}).fingerprint == half.fingerprint != whole.fingerprint
  with pytest.raises(UserError, match="config.data.fraction=0.001 of them are none"):
    open_split(data | {"fraction": 0.001})


def test_what_cannot_be_held_out_is_refused(textures, tmp_path):
  data = write(tmp_path / "a", textures[:2])
  with pytest.raises(UserError, match="none of them is for test"):
    open_split(data | {"holdout": 0.001}, "test")
  with pytest.raises(UserError, match="points:ring8"):
    open_split({"source": "points:ring8", "split": "other", "holdout": 0.2})
