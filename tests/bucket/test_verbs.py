"""Verbs that read a trained model take it from a bucket."""

import importlib
import json

import numpy as np
import pytest
from absl import flags as absl_flags

from jaxgen import config, files, train
from jaxgen.cli import VERBS

READ = {"workdir", "workdirs", "classifier", "worse", "to"}  # flags that name trained models


@pytest.mark.parametrize("verb", VERBS)
def test_a_trained_model_may_lie_in_a_bucket(verb):
  module = importlib.import_module(f"jaxgen.{VERBS[verb][0]}")
  values = absl_flags.FlagValues()
  module.define(values)
  assert READ & set(values) <= set(vars(module).get("IN_BUCKETS", ()))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """A VAE of digits, hardly trained, in a folder."""
  workdir = tmp_path_factory.mktemp("model") / "W"
  c = config.load("configs/digits_vae.py:debug")
  c.steps, c.checkpoint.every, c.log.pictures = 2, 2, 0
  train.train(c, str(workdir), quiet=True)
  return workdir


def upload(folder, address):
  for name in files.shown_below(folder):
    files.write_bytes(files.join(address, name), (folder / name).read_bytes())


def test_scores_are_those_of_the_same_model_in_a_folder(model, bucket, verb, tmp_path):
  upload(model, f"{bucket.folder}/W")
  scores = []
  for i, place in enumerate((model, f"{bucket.folder}/W")):
    out = tmp_path / f"{i}.csv"
    status, _, lines = verb(
      "anomaly", f"--workdir={place}", "--label=3", "--num=10", f"--out={out}"
    )
    assert status == 0, lines
    assert json.loads(out.with_suffix(".json").read_text())["made"]["step"] == 2
    scores.append(np.loadtxt(out, delimiter=",", skiprows=1, usecols=1))
  np.testing.assert_array_equal(*scores)


def test_mistakes_name_what_lies_in_the_bucket_not_its_copy(bucket, verb, tmp_path):
  np.savez(tmp_path / "s.npz", arr_0=np.zeros((4, 8, 8, 1), np.uint8))
  address = f"{bucket.folder}/s.npz"
  files.write_bytes(address, (tmp_path / "s.npz").read_bytes())
  words = [f"--samples={address}", f"--ref={address}", "--protocol=adm"]
  status, _, lines = verb("eval", *words, f"--out={tmp_path / 'card.json'}")
  assert status == 2 and f"arr_0 of {address} is" in lines[-1] and "copies" not in lines[-1]
