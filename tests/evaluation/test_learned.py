"""Judges of images without labels, of few, of large ones; published features."""

import functools

import looks
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxgen.data.arrays import Arrays
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation import features, learned, weights
from jaxgen.evaluation import judge as judges


@functools.cache
def digits(split):
  return open_source("digits", split=split).arrays()


def opened(patch, train, test, folder, steps, labels=(None, None), classes=0, **how):
  """The judge of a folder that holds such images."""
  splits = {
    "train": Arrays("folder:/my/images/", train, labels[0], classes),
    "test": Arrays("folder:/my/images/", test, labels[1], classes),
  }
  full = learned.judge_config

  def short(*args):
    c = full(*args)
    c.steps = c.checkpoint.every = steps
    return c

  file = folder / "train.npz"
  file.parent.mkdir(exist_ok=True)
  np.savez(file, *(a for a in (train, labels[0]) if a is not None))
  patch.setattr(judges, "open_split", lambda data, split=None: splits[split or data.split])
  patch.setattr(learned, "judge_config", short)
  data = ConfigDict(dict(source=f"npz:{file}", split="train", size=train.shape[1]))
  return judges.open_judge(data, str(folder), **how)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
  """Of digits, whose labels nobody knows."""
  with pytest.MonkeyPatch.context() as patch:
    x, test = digits("train")[0], digits("test")[0]
    yield opened(patch, x, test, tmp_path_factory.mktemp("judge"), 150, sets=4)


def frechet(judge, x):
  return judges.means(judge.scores(x, None))["frechet@images-exemplar"]


def test_learned_features_rank_what_is_worse(judge):
  (x, y), (test, _) = digits("train"), digits("test")
  rng = np.random.default_rng(0)
  noisy = np.clip(test + rng.normal(0, 12, test.shape), 0, 255).astype(np.uint8)
  padded = np.pad(test.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
  shifts = [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
  blurred = np.mean(shifts, 0).astype(np.uint8)
  one = x[y == 4][:100]
  floor = judges.means(judge.floor())["frechet@images-exemplar"]
  scores = [frechet(judge, a) for a in (x, test, noisy, blurred, one)]
  assert scores == sorted(scores) and scores[1] == floor
  assert scores[2] > 1.2 * floor and scores[3] > 3 * floor and scores[4] > 10 * floor


def test_names_and_sets(judge):
  scores = judge.scores(np.tile(digits("test")[0], (4, 1, 1, 1)), np.arange(4 * 359) % 10)
  metrics = ("frechet", "precision", "recall", "density", "coverage")
  assert set(scores) == {f"{m}@images-exemplar" for m in metrics} == set(judge.floor())
  assert judge.count == 4 * 359 and {len(v) for v in scores.values()} == {4}
  assert judge.card["network"].startswith("a network that tells 256 training images apart")
  assert "principal" not in judge.card["protocol"]


def test_copies_are_found(judge):
  x, test = digits("train")[0], digits("test")[0]
  floor = judge.copies(test)
  assert 0 < floor.share == floor.floor <= 0.05
  mixed = np.concatenate([test[:60], x[[5, 900, 77]]])
  copies = judge.copies(mixed)
  assert set(copies.samples[:3]) == {60, 61, 62} and set(copies.images[:3]) == {5, 900, 77}
  assert judge.copies(x[:100]).share == 1 and judge.copies(255 - test).share == 0


def test_few_images_of_a_folder_have_finite_scores(tmp_path, monkeypatch):
  x = looks.pictures(16, 1, size=16)
  judge = opened(monkeypatch, x[:13], x[13:], tmp_path, 2)
  assert judge.count == 32
  scores, floor = judge.scores(looks.pictures(32, 2, size=16), None), judge.floor()
  assert np.isfinite(list(scores.values())).all() and len(scores["recall@images-exemplar"]) == 10
  assert np.isfinite(list(floor.values())).all() and set(floor) == set(scores)
  assert "2 leading principal components of the 64 features" in judge.card["protocol"]
  assert "recall with k=2" in judge.card["protocol"]
  assert judge.copies(x[:13]).share == 1
  with pytest.raises(UserError, match="13 images to train on and 1 held out"):
    opened(monkeypatch, x[:13], x[:1], tmp_path / "one", 2)


def test_large_images_are_seen_at_a_smaller_size(tmp_path, monkeypatch):
  x, y = looks.pictures(40, 1, size=96), np.arange(40, dtype=np.int32) % 2
  judge = opened(monkeypatch, x, x[:8], tmp_path, 1, labels=(y, y[:8]), classes=2)
  assert judge.features == "images-cnn" and "sees images at 64 pixels" in judge.card["network"]
  assert judge.network.embed(x[:3]).shape == (3, 64)
  small = features.shrunk(x[:3], 64)
  extractor = learned.extractor_of(learned.load(tmp_path, samples=False), "small")
  own = extractor.features([small], ("features",))["features"]
  np.testing.assert_allclose(judge.embed(x[:3]), own, rtol=1e-5, atol=1e-6)
  assert "cas@images-cnn" in judge.floor()


def test_exemplars_are_different_images_and_always_the_same(monkeypatch):
  x = looks.pictures(30)
  source = Arrays("twins", np.concatenate([x, x]))
  found = learned.exemplars(source)
  assert {a.tobytes() for a in found} == {a.tobytes() for a in x} and len(found) == 30
  monkeypatch.setattr(learned, "EXEMPLARS", 10)
  assert len(learned.exemplars(source)) <= 10
  np.testing.assert_array_equal(learned.exemplars(source), learned.exemplars(source))
  large = learned.exemplars(Arrays("large", looks.pictures(3, size=300)))
  assert large.shape == (3, 128, 128, 3)


def test_published_features_want_weights_that_are_here(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.delenv("JAXGEN_INCEPTION", raising=False)
  monkeypatch.setenv("TORCH_HOME", str(tmp_path))
  monkeypatch.setattr(weights, "download", lambda *_: pytest.fail("it must not be fetched"))
  data = ConfigDict(dict(source="digits", split="train"))
  open_judge = functools.partial(judges.open_judge, data, str(tmp_path / "judge"))
  with pytest.raises(UserError, match="Inception's weights are not here: fetch https"):
    open_judge(features="inception")
  with pytest.raises(UserError, match="want inception or dinov2"):
    open_judge(features="vgg")
  monkeypatch.setattr(weights, "at_hand", lambda file: tmp_path)
  monkeypatch.setattr(features, "open_extractor", looks.opened)
  judge = open_judge(features="inception", sets=1)
  monkeypatch.setattr(judge.extractor, "channels", 3)
  x, y = digits("test")
  scores = judge.scores(x, y)
  assert scores == judge.floor() and set(scores) >= {"frechet@digits-inception"}
  assert judge.real_features.shape == (len(judge.real), looks.TAPS["pool3"])
