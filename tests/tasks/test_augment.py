"""Classifiers on generated data: who is trained on what, once, and what is said of it."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from pixel_judge import pixel_judge

from jaxgen import config, train
from jaxgen.data.labelled_sets import FORMS, write_set
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.monitor import pictures
from jaxgen.sampling import sampler
from jaxgen.tasks import augment_generators, augment_page, augment_trials, memorisation


def trained(folder, source="digits"):
  c = config.load("configs/digits_vae.py:debug")
  c.steps, c.log.pictures, c.data.source = 2, 0, source
  train.train(c, str(folder), quiet=True)
  return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
  """VAEs of two steps: on all digits, and on the first five of each."""
  home = tmp_path_factory.mktemp("makers")
  trained(home / "whole")
  trained(home / "few", "digits:first=5")
  return home


def test_every_training_is_done_once(verb, home, tmp_path, monkeypatch):
  out = tmp_path / "report"
  workdirs = f"--workdirs={home / 'whole'},{home / 'few'}"
  argv = (workdirs, f"--out={out}", "--real=5,20", "--shares=50,100", "--classifier_steps=2")
  argv += ("--copies=own",)
  monkeypatch.setattr(memorisation, "open_judge", pixel_judge)
  status, first, lines = verb("augment", *argv, "--seeds=1", "--save=npz")
  assert status == 0 and "At 100% of samples: " in first, lines
  results = json.loads((out / "augment.json").read_text())
  rows = {tuple(r[k] for k in augment_trials.PLACE): r["count"] for r in results["rows"]}
  models = {"5": ("whole", "few"), "20": ("whole",)}  # `few` learned its own part
  real = {"5": 50, "20": 200}
  want = {}
  for size, names in models.items():
    for seed in (0,):
      want[size, "", True, 0, seed] = real[size]
      for name in names:
        want[size, name, False, 100, seed] = real[size]
        for share in (50, 100):
          want[size, name, True, share, seed] = real[size] * (1 + share / 100)
  assert rows.keys() == want.keys()
  assert all(abs(rows[k] - want[k]) <= 5 for k in want)  # rounded class by class
  notes = {name: model["notes"] for name, model in results["models"].items()}
  saw = "saw 1,438 real images, the classifier"
  assert notes == {"whole": {"5": f"{saw} 50", "20": f"{saw} 200"}, "few": {}}
  page = (out / "augment.html").read_text()
  assert {w.rpartition("/")[2] for w in results["copies"]} == {"whole", "few"}
  assert all(0 <= c["share"] <= 1 for c in results["copies"].values())
  assert page.count("as near to training images of digits") == 2 == first.count("copies: ")
  assert "Not fair everywhere" in page and "saw 1,438 real images" in page
  assert "--classifier_steps=2" in pictures.read_info(out / "augment.png")["command"]
  made = open_source(f"npz:{out / 'sets' / 'whole-0.npz'}")
  assert made.class_names == tuple("0123456789") and len(set(made.arrays()[1])) == 10
  # A killed run goes on: what is there is not done again, nor samples drawn.
  results["rows"] = [r for r in results["rows"] if r["size"] != "5" or r["share"] == 50]
  (out / "augment.json").write_text(json.dumps(results))
  monkeypatch.setattr(sampler.Sampler, "sample", None)
  monkeypatch.setattr(augment_trials, "announce", lambda verb, text: lines.append(text))
  lines = []
  status, again, _ = verb("augment", *argv, "--seeds=1", "--save=npz")
  assert status == 0 and again == first
  assert [line.partition(":")[0] for line in lines] == ["0/11", "1/11", "4/11"]


REFUSED = {
  "nothing": ([], "needs --out=FOLDER"),
  "unlabelled data": (["--data=npz:{}/x.npz"], "has no labels"),
  "real": (["--real=many"], "want whole numbers above 0, or all"),
  "too many": (["--real=5000"], "has 139 images of some class"),
  "form": (["--save=zip"], "want folder, npz, array_record"),
  "part": (["--data=digits:first=5"], "name all of the data"),
  "own part": (["--workdirs=few", "--real=all"], "want --real=5 among the numbers"),
}


CARD = {"classes": 10, "shape": [8, 8, 1], "class_names": list("0123456789")}
MISFITS = {
  "W was trained without labels": {"classes": 0},
  "W has 9 classes, and digits 10": {"classes": 9},
  "other names": {"class_names": list("9876543210")},
  r"W makes images \[16, 16, 1\]": {"shape": [16, 16, 1]},
}


@pytest.mark.parametrize("says", MISFITS)
def test_generators_that_do_not_fit(says):
  real = open_source("digits")
  augment_generators.check_generator("W", CARD, real)
  with pytest.raises(UserError, match=says):
    augment_generators.check_generator("W", CARD | MISFITS[says], real)


@pytest.mark.parametrize("case", REFUSED)
def test_one_line(verb, home, tmp_path, case):
  argv, says = REFUSED[case]
  argv = [a.replace("=few", f"={home / 'few'}") for a in argv]
  x = np.zeros((30, 8, 8, 1), np.uint8)
  np.savez(tmp_path / "x.npz", x)
  if case != "nothing":
    workdirs = [] if any("--workdirs" in a for a in argv) else [f"--workdirs={home / 'whole'}"]
    argv = [*workdirs, f"--out={tmp_path / 'out'}", *argv]
  status, out, lines = verb("augment", *(a.replace("{}", str(tmp_path)) for a in argv))
  assert status == 2 and says in lines[-1], lines
  assert not (tmp_path / "out").exists()


def results_of(gains, notes=None):
  """Results of two models by (size, model): what samples add, by seed."""
  base = {"20": 0.7, "all": 0.95}
  rows = [
    {"size": s, "model": "", "real": True, "share": 0, "seed": i, "accuracy": base[s] + i / 100}
    for s in base
    for i in range(3)
  ]
  for (size, model), own in gains.items():
    rows += [
      {"size": size, "model": model, "real": True, "share": 100, "seed": i}
      | {"accuracy": base[size] + i / 100 + gain}
      for i, gain in enumerate(own)
    ]
  about = {"sizes": {"20": 200, "all": 1438}, "shares": [50, 100], "classes": 10, "test": 359}
  models = {m: {"notes": {}, "workdirs": {}, "examples": {}} for m in ("vae", "gan")}
  models["gan"]["notes"] = notes or {}
  return {"augment": about, "models": models, "rows": rows, "made": {}}


def test_what_is_said():
  gains = {
    ("20", "vae"): (0.05, 0.06, 0.07),
    ("20", "gan"): (0.0, 0.1, -0.1),
    ("all", "vae"): (-0.03, -0.04, -0.05),
    ("all", "gan"): (-0.05, -0.05, -0.06),
  }
  own = augment_page.Results(results_of(gains))
  score = own.gain("20", "vae", 100)  # of equal seeds, whose spread is not theirs
  assert score.mean == pytest.approx(0.06)
  assert score.high - score.mean == pytest.approx(4.302653 * 0.01 / 3**0.5, rel=1e-5)
  text = augment_page.verdict(own)
  assert "with 20 real images of a class vae helps most, +0.060" in text
  assert "with all real images no samples help: the best, vae, costs 0.040" in text
  assert own.main == 100 and augment_page.caution(own).startswith("Fair")
  unsure = augment_page.Results(results_of({("20", "gan"): (0.0, 0.1, -0.1)}, {"20": "saw more"}))
  assert "none surely helps (best: gan, +0.000)" in augment_page.verdict(unsure)
  assert "gan at 20 of a class: saw more" in augment_page.caution(unsure)


@pytest.mark.parametrize("form", FORMS)
def test_data_sets_that_others_read(form, tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  x, y = rng.integers(0, 256, (6, 5, 5, 3), np.uint8), np.array([1, 0, 1, 1, 0, 1], np.int32)
  info = {"workdir": "W", "seed": 3}
  out = write_set(tmp_path / "cats", form, x, y, ("cat", "a/dog"), info)
  monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
  name = {"folder": f"folder:{out}", "npz": f"npz:{out}", "array_record": "tfds:cats"}[form]
  source = open_source(name, size=5, data_dir=str(tmp_path))
  own, labels = source.arrays()
  order = np.argsort(y, kind="stable") if form == "folder" else np.arange(6)
  names = ("cat", "a_dog")
  if form == "folder":  # classes stand in the order of their names
    labels = np.array([names.index(source.class_names[i]) for i in labels])
    order = np.argsort(-y, kind="stable")
    assert pictures.read_info(out / "cat" / "000001.png")["workdir"] == "W"
  np.testing.assert_array_equal(own, x[order])
  np.testing.assert_array_equal(labels, y[order])
  if form == "array_record":
    records = tfds.builder_from_directory(out / "1.0.0").as_data_source("train")
    np.testing.assert_array_equal(records[2]["image"], x[2])
  if form != "npz":
    assert json.loads((out / "made.json").read_text())["seed"] == 3
    (out / "made.json").unlink()
    with pytest.raises(UserError, match="no data set that jaxgen wrote"):
      write_set(tmp_path / "cats", form, x, y, (), info)


def test_names_that_are_no_folders():
  from jaxgen.data.labelled_sets import safe_names

  assert safe_names(["a/b", "a_b", "..", ""]) == ["a_b", "a_b-1", "2", "3"]
