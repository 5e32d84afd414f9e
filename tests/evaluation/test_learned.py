"""Judges of images without labels, of few, of large ones; published features."""

import dataclasses
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


def splits(train, test):
  """In place of open_split: a folder of such images without labels."""
  sources = {"train": Arrays("folder:/my/images/", train), "test": Arrays("folder:t", test)}
  return lambda data, split=None: sources[split or data.split]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
  """Of digits, whose labels nobody knows."""
  full = learned.judge_config

  def short(*args):
    c = full(*args)
    c.steps = c.checkpoint.every = 120
    return c

  data = ConfigDict(dict(source="folder:/my/images/", split="train", size=8))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(judges, "open_split", splits(digits("train")[0], digits("test")[0]))
    patch.setattr(learned, "judge_config", short)
    judge = judges.open_judge(data, str(tmp_path_factory.mktemp("judge")), sets=4)
  return judge


def frechet(judge, x):
  return judges.means(judge.scores(x, None))["frechet@images-exemplar"]


def test_learned_features_rank_what_is_worse(judge):
  (x, y), (test, _) = digits("train"), digits("test")
  rng = np.random.default_rng(0)
  noisy = np.clip(test + rng.normal(0, 12, test.shape), 0, 255).astype(np.uint8)
  padded = np.pad(test.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
  around = [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
  blurred = (0.7 * test + 0.3 * np.mean(around, 0)).astype(np.uint8)
  one = x[y == 4][:100]
  floor = judges.means(judge.floor())["frechet@images-exemplar"]
  scores = [frechet(judge, images) for images in (test, noisy, blurred, one)]
  assert scores == sorted(scores) and scores[0] == floor
  assert scores[1] > 1.1 * floor and scores[2] > 1.5 * floor and scores[3] > 10 * floor


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


def test_few_images_have_finite_scores(judge, monkeypatch):
  x = digits("train")[0][:16]
  split = splits(x[:13], x[13:])
  few = dataclasses.replace(judge, real=split(None, "train"), test=split(None, "test"))
  assert few.size == 3 and few.count == 32
  scores, floor = few.scores(digits("test")[0][:32], None), few.floor()
  assert np.isfinite(list(scores.values())).all() and len(scores["recall@images-exemplar"]) == 10
  assert np.isfinite(list(floor.values())).all() and set(floor) == set(scores)
  assert "2 leading principal components of the 64 features" in few.card["protocol"]
  assert "recall with k=2" in few.card["protocol"]
  assert few.copies(x[:13]).share == 1
  monkeypatch.setattr(judges, "open_split", splits(x[:13], x[:1]))
  with pytest.raises(UserError, match="13 images to train on and 1 held out"):
    judges.open_judge(judge.data, "nowhere")


def test_leading_directions_are_those_of_most_variance():
  scale = np.array([3.0, 0.1, 5.0, 1.0])
  f = np.random.default_rng(0).normal(size=(4000, 4)) * scale
  found = np.abs(judges.leading(f, 2))
  np.testing.assert_allclose(found, np.eye(4)[:, [2, 0]], atol=0.05)


def test_large_images_are_seen_at_a_smaller_size(judge):
  classifier = learned.load(judge.network.home, samples=False)
  x = looks.pictures(5, 1, size=24)[..., :1]
  large = learned.extractor_of(classifier, "large", (24, 24, 1))
  np.testing.assert_array_equal(large.features([x])["features"], judge.embed(features.shrunk(x, 8)))
  data = ConfigDict(dict(source="folder:/my/images", split="train", size=256))
  for side, size, width in ((256, 64, 16), (32, 256, 16), (16, 256, 32)):
    c = learned.judge_config(data, Arrays("x", looks.pictures(2, size=side)), 3)
    assert (c.data.size, c.model.net.width, c.model.net.classes) == (size, width, 3)


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
