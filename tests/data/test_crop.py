"""Random crops: the published rule, a function of (seed, position) alone."""

import io
import itertools
import math

import numpy as np
import pytest
import tensorflow_datasets as tfds
import test_folder
import test_pipeline
from PIL import Image

from jaxgen import config, sharding
from jaxgen.data import image, order, pack
from jaxgen.data.arrays import Arrays
from jaxgen.data.catalogue import open_tfds
from jaxgen.data.pipeline import batches
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, check_fields

rng = np.random.default_rng(0)
N = 20
X = rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
SOURCE = Arrays("random", X, np.arange(N, dtype=np.int32), N)


def take(n, source=SOURCE, **options):
  return test_pipeline.take(n, source, **{"batch": 8, "crop": 0.6} | options)


def same(a, b):
  pairs = zip(a, b, strict=True)
  return all(np.array_equal(p[k], q[k]) for p, q in pairs for k in p)


def reference_crop(pil_image, image_size, randrange, min_crop_frac):
  """openai/guided-diffusion's rule, in its own order, of given draws."""
  smallest = math.ceil(image_size / 1.0)
  largest = math.ceil(image_size / min_crop_frac)
  arr = test_folder.reference_resize(pil_image, randrange(smallest, largest + 1))
  crop_y = randrange(0, arr.shape[0] - image_size + 1)
  crop_x = randrange(0, arr.shape[1] - image_size + 1)
  return arr[crop_y : crop_y + image_size, crop_x : crop_x + image_size]


@pytest.mark.parametrize("width, height", [(16, 16), (33, 47), (100, 64), (5, 9), (257, 70)])
def test_the_rule_is_guided_diffusions(width, height):
  noise = rng.integers(0, 256, (height, width, 3), np.uint8)
  picture, results = Image.fromarray(noise), set()
  for _ in range(40):
    words = rng.integers(0, 2**32, 3, dtype=np.uint64)
    draws = iter(words.tolist())
    randrange = lambda a, b, d=draws: a + next(d) * (b - a) // 2**32
    got = image.pixels(image.random_crop(picture, 16, 0.8, words))
    np.testing.assert_array_equal(got, reference_crop(picture, 16, randrange, 0.8))
    results.add(got.tobytes())
  assert len(results) > 10


def test_every_box_is_within_bounds_and_about_as_likely():
  """Pixels that say where they stand: one size, 3 x 2 places."""
  at = np.stack(np.meshgrid(np.arange(6), np.arange(5)), -1)
  picture = Image.fromarray(np.concatenate([at, np.zeros_like(at[..., :1])], -1).astype(np.uint8))
  words = order.crops(3, np.arange(1200))
  corners = []
  for w in words:  # share 1: the short side stays 5 pixels
    x = image.pixels(image.random_crop(picture, 5, 1.0, w))
    assert x.shape == (5, 5, 3)
    corners.append(tuple(x[0, 0]))
  assert set(corners) == {(0, 0, 0), (1, 0, 0)}
  share = np.mean([c == (1, 0, 0) for c in corners])
  assert abs(share - 0.5) < 6 * 0.5 / np.sqrt(1200)
  # The ends of the range of sizes, 8 .. 10, with the last box of each.
  grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
  first, last = np.uint64(0), np.uint64(2**32 - 1)
  expected = image.random_crop(grey, 8, 0.8, np.array([first, last, last]))
  np.testing.assert_array_equal(expected, grey)
  corner = image.random_crop(grey, 8, 0.8, np.array([last] * 3))
  wide = np.asarray(grey.resize((10, 10), Image.BICUBIC))
  np.testing.assert_array_equal(corner, wide[2:, 2:])


def test_draws_are_pinned_and_independent():
  # A change here would break the resumption of every stopped run.
  assert order.crops(0, np.arange(2)).tolist() == PINNED
  words = order.crops(5, np.arange(50_000)) / 2**32
  assert np.abs(words.mean(0) - 0.5).max() < 6 / np.sqrt(12 * 50_000)
  apart = np.corrcoef(np.hstack([words[1:], words[:-1]]).T) - np.eye(6)
  assert np.abs(apart).max() < 6 / np.sqrt(50_000)


PINNED = [[696293153, 609411131, 137281550], [2104557821, 1971823092, 2492256913]]


def test_off_changes_nothing():
  plain = batches(SOURCE, batch=8, seed=7, flip=True)
  assert same(take(5, crop=0.0, flip=True), list(itertools.islice(plain, 5)))
  indices = order.indices(7, N, np.arange(8))
  np.testing.assert_array_equal(take(1, crop=0.0)[0]["x"], X[indices])


def test_crops_change_every_epoch_and_leave_order_and_flips_alone():
  before = X.copy()
  plain, crops = take(10, crop=0.0), take(10)
  for a, b in zip(plain, crops, strict=True):
    np.testing.assert_array_equal(a["y"], b["y"])
    assert a["x"].dtype == b["x"].dtype and a["x"].shape == b["x"].shape
  x = np.concatenate([b["x"] for b in crops])
  y = np.concatenate([b["y"] for b in crops])
  views = [len(np.unique(x[y == i], axis=0)) for i in range(N)]
  assert np.mean(views) > 3  # of four epochs
  mirrored = take(10, flip=True)
  coins = order.flips(7, np.arange(80)).reshape(10, 8)
  for a, b, coin in zip(crops, mirrored, coins, strict=True):
    turn = np.where(coin[:, None, None, None], a["x"][:, :, ::-1], a["x"])
    np.testing.assert_array_equal(b["x"], turn)
  np.testing.assert_array_equal(X, before)


def test_start_shares_threads_and_workers_make_no_difference():
  expected = take(4, flip=True, threads=0)
  assert same(take(2, start=2, flip=True, threads=0), expected[2:])
  shares = [take(4, flip=True, process=p, processes=2, threads=0) for p in (0, 1)]
  assert same(test_pipeline.joined(shares), expected)
  assert same(take(2, start=2, flip=True), expected[2:])  # eight threads
  assert same(take(2, start=2, flip=True, workers=1, threads=1), expected[2:])
  assert not same(take(4, seed=8, flip=True, threads=0), expected)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """A folder of pictures of several sizes; the second one is broken."""
  top = tmp_path_factory.mktemp("pictures")
  for i, shape in enumerate([(40, 30), (20, 20), (64, 50), (19, 31)]):
    noise = rng.integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(noise).save(top / f"{i}.png")
  (top / "1.png").write_bytes(b"no picture")
  return top


def cropped(pictures, words):
  return np.stack([image.random_crop(p, 16, 0.6, w) for p, w in zip(pictures, words, strict=True)])


def test_files_are_cropped_from_all_of_the_image(pictures, tmp_path, capfd):
  source = open_source(f"folder:{pictures}", size=16, data_dir=str(tmp_path))
  assert "1.png" in capfd.readouterr().err and len(source) == 3
  names = ["0.png", "2.png", "3.png"]
  positions = np.arange(6)
  indices = order.indices(7, 3, positions)
  words = order.crops(7, positions)
  stored = [Image.open(pictures / names[i]) for i in indices]
  got = take(1, source, batch=6)[0]["x"]
  np.testing.assert_array_equal(got, cropped(stored, words))
  # Also where a worker process opens them; and without, the packed middle.
  assert same(take(1, source, batch=6, workers=1), [{"x": got}])
  middle = take(1, source, batch=6, crop=0.0)[0]["x"]
  np.testing.assert_array_equal(middle, source.x[indices])


def test_arrays_are_cropped_as_they_are_stored(tmp_path):
  x = rng.integers(0, 256, (5, 24, 24, 3), np.uint8)
  np.savez(tmp_path / "x.npz", x)
  source = open_source(f"npz:{tmp_path / 'x.npz'}", size=16)
  stored = [Image.fromarray(x[i]) for i in order.indices(7, 5, np.arange(5))]
  got = take(1, source, batch=5)[0]["x"]
  np.testing.assert_array_equal(got, cropped(stored, order.crops(7, np.arange(5))))


class Photos(tfds.core.GeneratorBasedBuilder):
  """Pictures of no fixed size."""

  VERSION = tfds.core.Version("1.0.0")
  url_infos = {}

  def _info(self):
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=6)}
    features = tfds.features.FeaturesDict(features)
    return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    for i, x in enumerate(PHOTOS):
      file = io.BytesIO()
      Image.fromarray(x).save(file, "PNG")
      file.seek(0)
      yield i, {"image": file, "label": i}


PHOTOS = [rng.integers(0, 256, (20 + i, 30, 3), np.uint8) for i in range(6)]


@pytest.mark.parametrize("where", ["packed", "decoded"])
def test_catalogue_images_are_cropped_as_they_are_stored(tmp_path, monkeypatch, where):
  Photos(data_dir=tmp_path, file_format="array_record").download_and_prepare()
  if where == "decoded":
    monkeypatch.setattr("jaxgen.data.catalogue.PACK_BELOW", 0)
  source = open_tfds("photos", "train", 16, None, tmp_path)
  assert isinstance(source, Arrays) == (where == "packed")
  batch = take(1, source, batch=6)[0]
  stored = [Image.fromarray(PHOTOS[y]) for y in batch["y"]]
  np.testing.assert_array_equal(batch["x"], cropped(stored, order.crops(7, np.arange(6))))


def test_which_rows_a_packed_set_holds():
  names = ["a.png", "b.png", "c.png", "d.png"]
  assert list(pack.readable_rows(names, ())) == [0, 1, 2, 3]
  assert pack.readable_rows(names, ("a.png: cut", "c.png: too: bad")) == [1, 3]
  assert pack.readable_rows(names, ("b.png: x", "c.png: x", "d.png: x")) == [0]


@pytest.mark.parametrize("crop", [-0.5, 0.05, 1.5, float("nan")])
def test_strange_shares(crop):
  with pytest.raises(UserError, match="crop=.* such as 0.8"):
    take(1, crop=crop)


def test_what_cannot_be_cropped():
  for x in (np.zeros((4, 2), np.float32), np.zeros((4, 4, 6, 3), np.uint8)):
    with pytest.raises(UserError, match="squares of images, and p holds"):
      take(1, Arrays("p", x), batch=2)


def test_the_config_knows_it():
  c = config.load("configs/points_vae.py:debug")
  assert c.data.crop == 0
  check_fields(c)
  c.data.crop = 0.8
  with pytest.raises(UserError, match="squares of images"):
    Experiment.of(c).abstract(open_source(c.data.source), sharding.make_mesh())
