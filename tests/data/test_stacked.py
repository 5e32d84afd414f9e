"""Stacked digits: what images hold, and what their judge makes of them."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation import judge as judges
from jaxgen.evaluation import learned
from jaxgen.evaluation.modes_judge import SURE, StackedJudge
from jaxgen.metrics.mode_coverage import kl_to_uniform

SPLITS = "train", "test"


@pytest.mark.parametrize("split, count", [("train", 50_000), ("test", 25_600)])
def test_channels_are_digits_of_their_split(split, count):
  source = open_source("stacked_digits", split)
  x, y = source.arrays()
  assert len(source) == len(x) == len(y) == count
  assert source.shape == (8, 8, 3) and source.classes == 1000
  assert x.dtype == np.uint8 and y.dtype == np.int32
  digits, labels = open_source("digits", split).arrays()
  real = {d.tobytes(): str(n) for d, n in zip(digits, labels, strict=True)}
  for image, number in zip(x[:2000], y[:2000], strict=True):
    assert "".join(real[image[:, :, c].tobytes()] for c in range(3)) == f"{number:03}"
  # Every digit is drawn, in every channel.
  for c in range(3):
    assert len({i.tobytes() for i in x[..., c]}) == len(real)


def test_numbers_are_even_draws():
  for split in SPLITS:
    y = open_source("stacked_digits", split).arrays()[1]
    assert len(np.unique(y)) == 1000
    # 2 N KL is chi-squared with 999 degrees of freedom.
    excess = 2 * len(y) * kl_to_uniform(y, 1000) - 999
    assert abs(excess) < 5 * np.sqrt(2 * 999)


def test_the_table_is_fixed():
  prints = {s: open_source("stacked_digits", s).fingerprint for s in SPLITS}
  assert prints["train"] != prints["test"]
  assert prints["test"] == open_source("stacked_digits", "test").fingerprint
  # What numbers are measured on: a change here makes old ones incomparable.
  assert prints == {"train": "8a02078e565d83bc", "test": "b5ae78e4c1e30639"}


def test_other_sizes_are_of_the_same_digits():
  small, usual = (open_source("stacked_digits", "test", size) for size in (4, None))
  assert small.shape == (4, 4, 3)
  np.testing.assert_array_equal(small.arrays()[1], usual.arrays()[1])


@pytest.mark.parametrize("args, message", [
  (dict(name="stacked_digits", split="val"), "splits train and test"),
  (dict(name="stacked_digits", channels=1), "has 3 channels, not 1"),
  (dict(name="stacked_digit"), "did you mean stacked_digits"),
  (dict(name="stacked_digits:8"), "there is no data set"),
])  # fmt: skip
def test_slips_are_one_line(args, message):
  with pytest.raises(UserError, match=message) as e:
    open_source(**args)
  assert "\n" not in str(e.value)


def test_kl_to_uniform_is_its_definition():
  y = np.array([0, 0, 0, 2])
  q = np.array([3, 1]) / 4
  np.testing.assert_allclose(kl_to_uniform(y, 5), q @ (np.log(q) - np.log(1 / 5)))
  assert kl_to_uniform(np.arange(7), 7) == 0
  np.testing.assert_allclose(kl_to_uniform(np.zeros(9, int), 50), np.log(50))
  # Half of the modes, evenly: log 2.
  np.testing.assert_allclose(kl_to_uniform(np.arange(500), 1000), np.log(2))


def grey_levels(x):
  """Logits of a classifier that goes by grey levels, twenty to a digit.

  Of an odd level it is a little surer than SURE, of an even one a little less.
  """
  digit, sure = np.divmod(x.reshape(len(x), -1).max(-1), 20)
  p = np.where(sure > 0, SURE + 0.01, SURE - 0.01)
  return np.log(9 * p / (1 - p))[:, None] * np.eye(10)[digit]


def painted(numbers, sure=True):
  digits = np.array([[int(d) for d in f"{n:03}"] for n in numbers])
  x = np.zeros((len(digits), 8, 8, 3), np.uint8)
  x[:, 2, 5] = digits * 20 + sure
  return x


@pytest.fixture
def reader():
  return StackedJudge(open_source("stacked_digits", "test"), grey_levels, {})


def test_numbers_are_read_hundreds_first(reader):
  numbers = [0, 7, 123, 990, 999]
  got, sure = reader.read(painted(numbers))
  np.testing.assert_array_equal(got, numbers)
  np.testing.assert_allclose(sure, SURE + 0.01)
  # One digit that it doubts is enough.
  x = painted(numbers)
  x[:, :, :, 1] = painted(numbers, sure=False)[:, :, :, 1]
  np.testing.assert_allclose(reader.read(x)[1], SURE - 0.01)


def test_what_is_painted_is_scored(reader):
  score = lambda x: judges.means(reader.scores(x, None))
  every = painted(range(1000))
  assert score(np.concatenate([every, every]))["modes"] == 1000
  assert score(every)["kl"] == 0
  one = score(painted([123] * 64))
  assert one["modes"] == 1
  np.testing.assert_allclose(one["kl"], np.log(1000))
  half = np.concatenate([painted(range(250)), painted(range(500), False)])
  got = score(half)
  assert got["modes"] == 500 and got["modes_sure"] == 250
  np.testing.assert_allclose(got["high_quality"], 1 / 3)
  q = np.repeat([2, 1], 250) / 750
  np.testing.assert_allclose(got["kl"], q @ np.log(q * 1000))


def test_strange_samples_are_refused(reader):
  with pytest.raises(UserError, match=r"uint8 \[8, 8, 1\], but stacked_digits"):
    reader.scores(np.zeros((40, 8, 8, 1), np.uint8), None)
  with pytest.raises(UserError, match="samples are float32"):
    reader.scores(np.zeros((40, 8, 8, 3), np.float32), None)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
  """The one that verbs open, by a classifier trained half as long."""
  usual = learned.judge_config

  def short(*args):
    c = usual(*args)
    c.steps = c.checkpoint.every = 150
    return c

  data = ConfigDict(dict(source="stacked_digits", split="train"))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(learned, "judge_config", short)
    yield judges.open_judge(data, str(tmp_path_factory.mktemp("judge")))


def test_real_images_are_read_rightly(judge):
  x, y = open_source("stacked_digits", "test").arrays()
  number, sure = judge.read(x[:2000])
  # Three digits in a row; and the more so where it is sure of all three.
  assert np.mean(number == y[:2000]) > 0.85
  good = sure >= SURE
  assert np.mean((number == y[:2000])[good]) > np.mean(number == y[:2000])


def test_the_floor_has_nearly_every_mode(judge):
  floor = judges.means(dataclasses.replace(judge, count=6000).floor())
  assert floor["modes"] >= 990 and floor["high_quality"] > 0.6
  # By chance alone it would be 999 / 12,000; slips of the judge come on top.
  assert 0.07 < floor["kl"] < 0.15
  assert judge.count == 25_600 == len(judge.test)


def test_a_collapsed_sample(judge):
  x = open_source("stacked_digits", "test").arrays()[0]
  got = judges.means(judge.scores(np.repeat(x[:1], 100, 0), None))
  assert got["modes"] == 1
  np.testing.assert_allclose(got["kl"], np.log(1000))
  noise = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), np.uint8)
  assert judges.means(judge.scores(noise, None))["high_quality"] < 0.6


def test_both_judges_call_it_the_same(judge):
  points = judges.open_judge(ConfigDict(dict(source="points:ring8")))
  x = points.scores(np.zeros((40, 2), np.float32), None)
  y = judge.scores(np.zeros((40, 8, 8, 3), np.uint8), None)
  assert {"modes", "kl", "high_quality"} == set(x) & set(y)
