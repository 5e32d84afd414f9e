"""Pairs of images and images of two kinds: who goes with whom, and what is refused."""

import pickle

import numpy as np
import pytest
from PIL import Image

from jaxgen.data.pipeline import batches
from jaxgen.data.sources import open_source
from jaxgen.data.unpaired import invert, mirror, slant
from jaxgen.errors import UserError


def save(folder, name, x):
  folder.mkdir(parents=True, exist_ok=True)
  Image.fromarray(x).save(folder / name)


@pytest.fixture
def pair(tmp_path):
  """Folders a and b of ten pairs, b = 255 - a; and both side by side in c."""
  rng = np.random.default_rng(0)
  for i in range(10):
    x = rng.integers(0, 256, (12, 12, 3), np.uint8)
    save(tmp_path / "a", f"{i}.png", x)
    save(tmp_path / "b", f"{i}.bmp", 255 - x)
    save(tmp_path / "c", f"{i}.png", np.concatenate([x, 255 - x], 1))
  return tmp_path


def of(name, root, size=12, **more):
  return open_source(name, size=size, data_dir=str(root / "cache"), **more)


def test_two_folders_and_halves_are_the_same_pairs(pair):
  two = of(f"pairs:{pair}/a,{pair}/b", pair)
  one = of(f"sides:{pair}/c", pair)
  other = of(f"sides:{pair}/c,ba", pair)
  assert two.brings == ("source",) and two.shape == (12, 12, 3) and len(two) == 10
  rows = np.array([7, 0, 7])
  batch = two.read(rows)
  np.testing.assert_array_equal(batch["source"], 255 - batch["x"])
  for k in ("x", "source"):
    np.testing.assert_array_equal(one.read(rows)[k], batch[k])
  np.testing.assert_array_equal(other.read(rows)["x"], batch["source"])
  np.testing.assert_array_equal(two.arrays()[0][rows], batch["x"])
  assert len({two.fingerprint, other.fingerprint}) == 2 and two.fingerprint == one.fingerprint
  again = pickle.loads(pickle.dumps(two))  # as worker processes get it
  np.testing.assert_array_equal(again[3]["x"], two[3]["x"])


def test_pairs_are_flipped_and_cropped_alike(pair):
  """From a stream of batches: crops of 8 out of 12 pixels."""
  source = of(f"pairs:{pair}/a,{pair}/b", pair, size=8)
  stream = batches(source, batch=20, seed=1, flip=True, crop=8 / 12, threads=0)
  for _, batch in zip(range(2), stream, strict=False):
    # (Resized on the way, bicubically: to rounding.)
    gap = batch["source"].astype(int) + batch["x"]
    assert np.abs(gap - 255).max() <= 1 and batch["x"].shape == (20, 8, 8, 3)
  straight = of(f"sides:{pair}/c", pair)
  stream = batches(straight, batch=40, seed=1, flip=True)
  batch = next(stream)
  np.testing.assert_array_equal(batch["source"], 255 - batch["x"])
  known = {x.tobytes() for x in straight.arrays()[0]}
  turned = [x.tobytes() not in known for x in batch["x"]]
  assert 5 < sum(turned) < 35 and all(x[:, ::-1].tobytes() in known for x in batch["x"][turned])


def test_splits_and_what_cannot_be_read(pair):
  for split in ("train", "test"):
    for kind in "ab":
      (pair / "s" / kind / split).mkdir(parents=True)
  for i in range(4):
    for name in (f"a/{i}.png", f"b/{i}.bmp"):
      kind, file = name.split("/")
      (pair / name).rename(pair / "s" / kind / ("test" if i == 3 else "train") / file)
  (pair / "s" / "b" / "train" / "1.bmp").write_bytes(b"no image")
  source = of(f"pairs:{pair}/s/a,{pair}/s/b", pair)
  assert source.names == ("0", "2") and len(source.skipped) == 1
  batch = source.read(np.array([1]))
  np.testing.assert_array_equal(batch["source"], 255 - batch["x"])
  cut = source.read(np.array([1]), lambda k, image: image)  # of the file itself
  np.testing.assert_array_equal(cut["x"], batch["x"])
  assert len(of(f"pairs:{pair}/s/a,{pair}/s/b", pair, split="test")) == 1


def test_what_does_not_pair(pair):
  a, b = pair / "a", pair / "b"

  def refused(says, name, **more):
    with pytest.raises(UserError, match=says) as e:
      of(name, pair, **more)
    assert "\n" not in str(e.value)

  refused("needs a size", f"pairs:{a},{b}", size=None)
  refused("two folders with a comma", f"pairs:{a}")
  refused("there is no folder", f"pairs:{a},{pair}/none")
  refused("want sides:PATH", f"sides:{pair}/c,cb")
  save(b, "3.png", np.zeros((12, 12, 3), np.uint8))
  refused("holds 3.bmp and 3.png: which is of the pair", f"pairs:{a},{b}")
  (b / "3.png").unlink()
  save(b, "4.bmp", np.zeros((12, 13, 3), np.uint8))
  refused("4 is 12x12 in the one and 13x12 in the other", f"pairs:{a},{b}")
  save(pair / "c", "5.png", np.zeros((12, 25, 3), np.uint8))
  refused("5.png is 25x12, and two images side by side are of even width", f"sides:{pair}/c")
  for name in ("6", "7"):
    (b / f"{name}.bmp").unlink()
  (a / "8.png").unlink()
  refused(
    r"2 only in .*a \(6.png, 7.png\) and 1 only in .*b \(8.bmp\), 7 in both", f"pairs:{a},{b}"
  )
  assert not (pair / "cache" / "packed").exists()  # nothing was begun


def test_alterations():
  x = np.zeros((1, 5, 5, 1), np.uint8)
  x[0, :, 2] = 200  # a bar
  assert (invert(x) == 255 - x).all() and (mirror(x) == x).all()
  y = slant(x).astype(float)[0, :, :, 0]
  centre = (y * np.arange(5)).sum(1) / y.sum(1)
  np.testing.assert_allclose(centre, 2 + 0.45 * (2 - np.arange(5)), atol=0.01)  # to the right above
  np.testing.assert_allclose(y.sum(1), 200, atol=1)


def test_digits_and_altered_digits_share_no_image(tmp_path):
  source = of("unpaired:digits,digits-inverted", tmp_path, None)
  assert source.shape == (8, 8, 1) and source.brings == ("source",) and len(source) == 719
  digits = open_source("digits", data_dir=str(tmp_path / "cache")).arrays()[0]
  everything = source.read(np.arange(len(source)))
  rows = {x.tobytes(): i for i, x in reversed([*enumerate(digits)])}
  a = {rows[x.tobytes()] for x in everything["source"]}
  b = {rows[(255 - x).tobytes()] for x in everything["x"]}
  assert not a & b and len(a | b) > 1400  # but for twins
  test = of("unpaired:digits,digits-inverted", tmp_path, None, split="test")
  np.testing.assert_array_equal(test.base, 255 - test.a.arrays()[0])
  assert test.read(np.arange(3))["x"].shape == (3, 8, 8, 1)
  labelled = of("digits-slanted", tmp_path, None)
  assert labelled.classes == 10 and labelled.name == "digits-slanted"


def test_folders_of_two_kinds(pair):
  for kind, folder in (("A", "a"), ("B", "b")):
    (pair / folder).rename(pair / f"train{kind}")
  (pair / "trainB" / "9.bmp").unlink()
  source = of(f"unpaired:{pair}", pair)
  assert len(source) == 10  # of the larger kind; of the other some come again
  batch = source.read(np.arange(10))
  assert len(np.unique(batch["source"], axis=0)) == 10 and len(np.unique(batch["x"], axis=0)) == 9
  same = of(f"unpaired:{pair}/trainA,{pair}/trainB", pair)
  assert same.fingerprint == source.fingerprint
  with pytest.raises(UserError, match="has no folder testA: want testA and testB"):
    of(f"unpaired:{pair}", pair, split="test")
  with pytest.raises(UserError, match="did you mean 'slanted'"):
    of("unpaired:digits,digits-slanted", pair).a.read(np.arange(1))
    of("digits-slantd", pair)
