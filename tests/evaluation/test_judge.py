"""Judges: what real data, copies, noise and half of the classes score."""

import dataclasses
import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from verbs import call

from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation import judge as judges
from jaxgen.evaluation import learned


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
  patch = pytest.MonkeyPatch()
  full = learned.judge_config

  def short(*args):
    c = full(*args)
    c.steps = c.checkpoint.every = 150
    return c

  patch.setattr(learned, "judge_config", short)
  data = ConfigDict(dict(source="digits", split="train"))
  yield judges.open_judge(data, str(tmp_path_factory.mktemp("judge")))
  patch.undo()


def test_real_training_images_beat_the_floor(judge):
  x, y = judge.real.arrays()
  own, floor = (judges.means(s) for s in (judge.scores(x, y, cas=False), judge.floor()))
  assert own["frechet@digits-cnn"] < floor["frechet@digits-cnn"]
  assert own["precision@digits-cnn"] == 1 >= floor["precision@digits-cnn"]
  assert 0.9 < floor["cas@digits-cnn"] <= 1


def test_real_samples_train_as_good_a_classifier(judge):
  x, y = judge.real.arrays()
  scores = judges.means(judge.scores(x, y))
  floor = judges.means(judge.floor())
  # The same images and the same seed: the same classifier.
  assert scores["cas@digits-cnn"] == floor["cas@digits-cnn"]


def test_wrong_labels_cost_accuracy(judge):
  x, y = judge.real.arrays()
  assert judge.cas(x, ((y + 1) % 10).astype(np.int32)) < 0.1


def test_noise_is_far_and_false(judge):
  x = np.random.default_rng(0).integers(0, 256, (720, 8, 8, 1)).astype(np.uint8)
  scores = judges.means(judge.scores(x, None))
  floor = judges.means(judge.floor())
  assert scores["frechet@digits-cnn"] > 20 * floor["frechet@digits-cnn"]
  assert scores["precision@digits-cnn"] < 0.3
  assert "cas@digits-cnn" not in scores  # nothing to train on without labels


def test_lost_classes_cost_diversity_not_fidelity(judge):
  x, y = judge.real.arrays()
  half = x[y < 5][:359]
  scores = judges.means(judge.scores(half, None))
  assert scores["precision@digits-cnn"] == 1
  assert scores["recall@digits-cnn"] < 0.65
  assert scores["coverage@digits-cnn"] < 0.6


@pytest.mark.parametrize("labelled", [True, False])
def test_the_order_of_a_file_hardly_matters(judge, labelled):
  x, y = judge.real.arrays()
  for order in (np.argsort(y), np.random.default_rng(0).permutation(len(x))):
    own = judge.scores(x[order], y[order] if labelled else None, cas=False)
    # A set that lacked classes would be an order of magnitude further off.
    assert judges.means(own)["frechet@digits-cnn"] < 5


def test_scores_are_means_over_sets_as_large_as_the_test_split(judge):
  x, _ = judge.real.arrays()
  scores = judge.scores(x, None)
  assert len(scores["frechet@digits-cnn"]) == len(x) // len(judge.test)
  few = judge.scores(x[: len(judge.test)], None)
  assert len(few["frechet@digits-cnn"]) == 1


def test_sets_are_counted(judge):
  few = dataclasses.replace(judge, sets=2)
  assert judge.count == len(judge.real) and few.count == 2 * len(judge.test)
  x, y = judge.real.arrays()
  scores = few.scores(x[: few.count], y[: few.count], cas=False)
  assert {len(v) for v in scores.values()} == {2}
  assert few.floor() == judge.floor()  # the test split is small, and so is all of it


def test_of_many_images_a_part_is_judged(judge, monkeypatch):
  monkeypatch.setattr(judges, "LARGEST_REFERENCE", 500)
  part = dataclasses.replace(judge, sets=3, most=100)
  assert part.count == 300 and len(part.held[0]) == 100 and len(part.rows) == 500
  assert np.bincount(part.held[1]).min() >= 8  # classes alike
  assert "500 real training images" in part.card["reference"]
  x = judge.real.arrays()[0]
  copies = part.copies(x[part.rows[-40:]])
  assert copies.share == 1
  np.testing.assert_array_equal(copies.images, part.rows[-40:][copies.samples])


def test_labels_are_as_frequent_as_real_ones(judge):
  y = judge.real.arrays()[1]
  own = judge.labels(300)
  np.testing.assert_allclose(np.bincount(own) / 300, np.bincount(y) / len(y), atol=1 / 300)
  assert own[:20].tolist() != sorted(own[:20])


def test_intervals_are_students():
  scores = {"a": [1.0, 2.0, 4.0, 5.0], "b": [3.0]}
  # t = 3.1824463 for three degrees of freedom (Student's table).
  half = 3.1824463053 * np.sqrt(10 / 3) / 2
  assert judges.intervals(scores) == {"a": pytest.approx((3 - half, 3 + half), rel=1e-6)}


@pytest.mark.parametrize(
  "x, word",
  [
    (np.zeros((100, 8, 8, 3), np.uint8), "samples are uint8"),
    (np.zeros((100, 8, 8, 1), np.float32), "samples are float32"),
    (np.zeros((9, 8, 8, 1), np.uint8), "too few"),
  ],
)
def test_strange_samples_are_refused(judge, x, word):
  with pytest.raises(UserError, match=word):
    judge.scores(x, None)


def test_points_know_their_modes():
  judge = judges.open_judge(ConfigDict(dict(source="points:grid25")))
  floor = judges.means(judge.floor())
  assert floor["modes"] == 25
  # Within three standard deviations in the plane: 1 - exp(-9 / 2).
  assert floor["high_quality"] == pytest.approx(0.98889, abs=0.005)
  x, y = open_source("points:grid25").arrays()
  assert judges.means(judge.scores(x[y < 7], None))["modes"] == 7


def test_the_verb_judges_a_file(judge, tmp_path, capsys, monkeypatch):
  x, y = judge.real.arrays()
  np.savez(tmp_path / "x.npz", x[:400], y[:400])
  flags = (
    f"--samples={tmp_path}/x.npz --data=digits --judge={judge.network.home} --out={tmp_path}/s.json"
  )
  status, out, _ = call(capsys, monkeypatch, "evaluate", *flags.split())
  assert status == 0 and "frechet@digits-cnn" in out
  card = json.loads((tmp_path / "s.json").read_text())
  assert card["scores"]["precision@digits-cnn"] == 1
  assert card["judge"]["features"] == "digits-cnn"
  assert card["made"]["fingerprint"]


@pytest.mark.parametrize(
  "flags, word",
  [
    ((), "one of --workdir"),
    (("--samples=x.npz",), "--data"),
    (("--samples=nowhere.npz", "--data=digits"), "no file"),
    (("--workdir=nowhere",), "no folder"),
  ],
)
def test_mistakes_end_in_a_line(flags, word, capsys, monkeypatch):
  status, _, err = call(capsys, monkeypatch, "evaluate", *flags)
  assert status == 2 and len(err) == 1 and word in err[0]


def test_the_accuracy_of_each_class_by_name(judge):
  x, y = judge.real.arrays()
  wrong = np.where(y == 3, 4, y).astype(np.int32)
  by_class = judge.cas_by_class(x, wrong)
  assert list(by_class) == [str(i) for i in range(10)]
  assert by_class["3"] == 0 and min(v for k, v in by_class.items() if k not in "34") > 0.5
  truth = judge.test.arrays()[1]
  full = sum(v * (truth == int(k)).sum() for k, v in by_class.items())
  assert judge.cas(x, wrong) == pytest.approx(full / len(truth))


def test_recognition_tells_lost_classes_and_wrong_labels(judge):
  own = dataclasses.replace(judge, recognises=True)
  x, y = judge.real.arrays()
  real, floor = (judges.means(s) for s in (own.scores(x, y, cas=False), own.floor()))
  assert floor["accuracy@digits-cnn"] == floor["cas@digits-cnn"]
  assert real["ndb@digits-cnn"] <= 0.2 and real["js@digits-cnn"] < 0.02
  assert 8 < floor["is@digits-cnn"] < 10 < floor["mis@digits-cnn"]
  assert judge.scores(x, y, cas=False).keys() < own.scores(x, y, cas=False).keys()
  lost = judges.means(own.scores(x[y < 5], (y[y < 5] + 1) % 10, cas=False))
  assert lost["is@digits-cnn"] < 5.5 and lost["accuracy@digits-cnn"] < 0.05
  assert lost["am@digits-cnn"] > 0.5 + real["am@digits-cnn"]
  assert lost["ndb@digits-cnn"] > 0.6 and lost["js@digits-cnn"] > 0.1


def test_accuracies_of_sets_have_one_interval():
  # Of 9 in 10 (statsmodels' proportion_confint): 0.596 .. 0.982.
  ends = judges.rate_intervals({"accuracy@a": [0.8, 1.0], "is@a": [3.0]}, 5)
  assert ends == {"accuracy@a": pytest.approx((0.59585, 0.98212), abs=1e-4)}


def test_reports_say_what_numbers_are(judge, monkeypatch):
  monkeypatch.setattr(judges.ImageJudge, "cas", lambda *_: 0.5)  # which trains a network
  x, y = judge.real.arrays()
  text, card = judges.report(
    dataclasses.replace(judge, recognises=True), x[:300], y[:300], {"samples": "x"}
  )
  assert "95% interval" in text and "NDB/K: share of 50 K-means bins" in text
  assert "300 samples are fewer" in text
  low, high = card["intervals"]["accuracy@digits-cnn"]
  assert low < card["scores"]["accuracy@digits-cnn"] <= high
  assert card["scores"]["copies@digits-cnn"] == 1 > card["floor"]["copies@digits-cnn"]
  assert "accuracy@digits-cnn" in card["floor_intervals"]
