"""Classes by name: from a folder to a checkpoint, to samples, to a card."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxgen.data.npz import open_npz
from jaxgen.errors import UserError
from jaxgen.evaluation.collect import Collected
from jaxgen.evaluation.images import Folder, choose_labels
from jaxgen.evaluation.protocols import PROTOCOLS
from jaxgen.evaluation.run import numbered
from jaxgen.evaluation.scores import Comparison, score
from jaxgen.experiment import describe
from jaxgen.sample import parse_labels
from jaxgen.sampling.output import write
from jaxgen.sampling.sampler import Sampler, number_of

NAMES = ("2", "10", "nature")
MODEL = Sampler(None, None, (4, 4, 3), np.dtype("uint8"), 3, {}, NAMES)


@pytest.mark.parametrize(("text", "labels"), [
  ("nature", [2]), ("nature,0", [2, 0]), (" nature , 1", [2, 1]), ("#2", [2]),
  ("10", [1]),  # no number of a class, so a name
  ("0,1,1", [0, 1, 1]),
])  # fmt: skip
def test_labels_by_name(text, labels):
  assert MODEL.numbers(parse_labels(text)) == labels
  want = np.resize(labels, 4)
  np.testing.assert_array_equal(MODEL.labels(4, parse_labels(text)), want)
  np.testing.assert_array_equal(choose_labels(MODEL, text, 4, 0), want)


@pytest.mark.parametrize(("text", "message"), [
  ("natur", "did you mean 'nature'"), ("2", "say #0 or #2"), ("", "want numbers"),
  ("3", "labels run from 0 to 2"), ("-2", "0 to 2"), ("99999999999999999999", "want numbers"),
])  # fmt: skip
def test_labels_that_name_nothing(text, message):
  with pytest.raises(UserError, match=message):
    MODEL.labels(4, parse_labels(text))


def test_names_may_be_unknown():
  old = Sampler(None, None, (4, 4, 3), np.dtype("uint8"), 3, {})
  assert old.labels(3, parse_labels("2,1")).tolist() == [2, 1, 2]
  with pytest.raises(UserError, match="names of this model's classes are not"):
    old.labels(1, parse_labels("nature"))
  assert number_of("7", [str(i) for i in range(10)]) == 7


class Labelled:
  name, shape, dtype, fingerprint = "n", (4, 4, 3), np.dtype("uint8"), ""
  class_names = NAMES

  def __len__(self):
    return 5


@pytest.mark.parametrize("classes", [0, 3])
def test_a_checkpoint_says_them_where_its_model_has_labels(classes):
  config = ConfigDict(dict(data=dict(classes=classes)))
  names = describe(config, Labelled())["data"]["class_names"]
  assert json.loads(json.dumps(names)) == (list(NAMES) if classes else [])


def test_sample_files_and_pictures_say_them(tmp_path):
  from jaxgen.monitor.pictures import read_info

  x = np.zeros((4, 4, 4, 3), np.uint8)
  info = {"class_names": NAMES}
  write(str(tmp_path / "x.npz"), x, np.array([0, 1, 1, 0]), info)
  source = open_npz(tmp_path / "x.npz", "train", None, None)
  assert source.class_names == NAMES and source.classes == 3
  write(str(tmp_path / "all"), x, np.array([2, 0, 1, -1]), info)
  infos = [read_info(p) for p in sorted((tmp_path / "all").iterdir())]
  assert [i.get("class") for i in infos] == ["nature", "2", "10", None]
  for info in ("no json", "[1]", '{"class_names": 3}', '{"class_names": [1]}'):
    np.savez(tmp_path / "y.npz", x, np.array([0, 1, 1, 0]), info=info)
    other = open_npz(tmp_path / "y.npz", "train", None, None)
    assert (other.class_names, other.classes) == ((), 2)


def test_a_reference_is_numbered_by_name(tmp_path):
  from PIL import Image

  for name in ("10", "nature", "other/deep"):
    (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / name / "x.png")
  real = Folder.open(str(tmp_path), False, False)
  assert real.class_names == ("10", "nature", "other")
  assert real.labels.tolist() == [0, 1, 2]
  assert numbered(real, NAMES).tolist() == [1, 2, -1]
  assert numbered(real, ()).tolist() == [0, 1, 2]


OLD = {
  "crop": 0.0,
  "holdout": 0.0,
  "fraction": 1.0,
  "rate": 0,
}  # fields that runs of before have, beside what all have


@pytest.mark.parametrize(("saved", "now", "shape", "continues"), [
  ({}, 0, 3, True), ({}, 3, 3, True), ({}, 1, 3, False), ({}, 0, 1, False),
  ({"channels": 0}, 0, 3, True), ({"channels": 3}, 0, 3, False),
])  # fmt: skip
def test_runs_of_before_go_on(saved, now, shape, continues, monkeypatch):
  from jaxgen import train

  data = {"source": "folder:x", "size": 8}
  was = {
    "config": {"data": data | saved},
    "step": 3,
    "data": {"shape": [8, 8, 3], "fingerprint": "f"},
  }
  meta = {
    "config": {"data": data | OLD | {"channels": now}},
    "data": {"name": "x", "shape": [8, 8, 3 if now == 3 else now or shape], "fingerprint": "f"},
  }
  monkeypatch.setattr(train, "latest", lambda workdir: was)
  if continues:
    train.check_same("w", meta)
  else:
    with pytest.raises(UserError, match="data.channels"):
      train.check_same("w", meta)


@pytest.mark.parametrize(
  ("names", "keys"),
  [(NAMES, ["2", "10", "nature"]), ((), ["0", "1", "2"]), (NAMES[:2], ["2", "10", "#2"])],
)
def test_cards_name_classes(names, keys):
  rng = np.random.default_rng(0)
  y = np.arange(40, dtype=np.int32) % 3
  own, real = (Collected(40, {}, {"t": rng.normal(size=(40, 3))}, np.zeros(3)) for _ in range(2))
  inputs = Comparison(own, real, ("t",), PROTOCOLS["adm"], (y, y), class_names=names)
  score(inputs, ("fid_by_class",), "inception", strict=True)
  assert list(inputs.by_class) == keys
