"""Smaller parts: protocols, labels, logs, progress, settings of training."""

import dataclasses
import io
import types

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.evaluation.images import Drawn, choose_labels
from jaxgen.evaluation.periodic import settings
from jaxgen.evaluation.protocols import PROTOCOLS, RESIZES, protocol
from jaxgen.evaluation.scores import METRICS, full_name
from jaxgen.monitor import progress
from jaxgen.monitor.log import Logger, append, card_name, read_jsonl


def test_protocols_are_what_they_are_named_after():
  # From the evaluators' own code; see the comments beside them.
  told = {
    n: (p.resize, p.floats, p.splits or p.split_size, p.shuffle) for n, p in PROTOCOLS.items()
  }
  assert told == {
    "adm": ("tf", "truncate", 5000, None),
    "pytorch-fid": ("half_pixel", "round", 10, None),
    "torch-fidelity": ("tf", "truncate", 10, 2020),
    "clean-fid": ("clean", "round", 10, None),
    "edm": ("tf", "round", 10, None),
  }
  for p in PROTOCOLS.values():
    assert p.resize in RESIZES and set(p.metrics) <= set(METRICS)
    assert (p.k, p.k_ball, p.images, p.kid_size) == (3, 5, 50_000, 1000)
  with pytest.raises(dataclasses.FrozenInstanceError):
    PROTOCOLS["adm"].k = 5
  with pytest.raises(UserError, match="did you mean 'clean-fid'"):
    protocol("cleanfid")


def test_names_carry_features_that_are_not_inceptions():
  p = PROTOCOLS["adm"]
  assert full_name("fid", "inception", p) == "fid@adm"
  assert full_name("fid", "inception-1a2b", p) == "frechet@inception-1a2b"
  assert full_name("sfid", "dinov2", p) == "sfrechet@dinov2"
  assert full_name("recall", "dinov2", p) == "recall@dinov2"


class Sampler:
  classes, shape, dtype, class_names = 4, (8, 8, 3), np.dtype("uint8"), ()
  model = types.SimpleNamespace(cond={})

  def labels(self, num, labels):
    return np.resize(np.arange(4) if labels is None else labels, num)


def test_labels_are_in_turn_or_at_random_or_given():
  assert choose_labels(Sampler(), "turn", 6, 0).tolist() == [0, 1, 2, 3, 0, 1]
  drawn = choose_labels(Sampler(), "random", 4000, 1)
  np.testing.assert_allclose(np.bincount(drawn) / 4000, 0.25, atol=0.03)
  assert (drawn == choose_labels(Sampler(), "random", 4000, 1)).all()
  assert (drawn != choose_labels(Sampler(), "random", 4000, 2)).any()
  assert choose_labels(Sampler(), "3,1", 3, 0).tolist() == [3, 1, 3]
  with pytest.raises(UserError, match="want turn, random"):
    choose_labels(Sampler(), "some", 3, 0)


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (dict(shape=(2,)), "makes points"),
    (dict(dtype=np.dtype("float32")), "makes points"),
    (dict(model=types.SimpleNamespace(cond={"low_res": None})), "low_res"),
  ],
)
def test_models_that_cannot_be_drawn_from(change, said):
  sampler = Sampler()
  for name, value in change.items():
    setattr(sampler, name, value)
  with pytest.raises(UserError, match=said):
    Drawn(sampler, 5, 0, None, "turn", "round", {})


@pytest.mark.parametrize("torn", ["", '{"step": 3, "los'])
def test_a_line_is_added_to_the_log_of_a_run(torn, tmp_path):
  logger = Logger(tmp_path, total_steps=4, batch=1, stream=io.StringIO())
  logger.write_scalars(2, {"loss": 1.0})
  with open(tmp_path / "metrics.jsonl", "a") as file:
    file.write(torn)
  append(tmp_path, 2, {"fid@adm": np.float64(3.5), "kid@adm": np.nan})
  if not torn:  # the run that is alive goes on
    logger.write_scalars(4, {"loss": 0.5})
    assert read_jsonl(tmp_path / "metrics.jsonl")[-1]["loss"] == 0.5
  logger.close()
  row = read_jsonl(tmp_path / "metrics.jsonl")[0]
  assert (row["step"], row["loss"], row["fid@adm"]) == (2, 1.0, 3.5)
  assert np.isnan(row["kid@adm"])
  assert card_name(20, "inception", "adm", 9) == "00000020-adm-9.json"
  assert card_name(20, "dinov2", "edm", 9) == "00000020-edm-dinov2-9.json"


@pytest.mark.parametrize("quiet", [0, 60])
def test_long_work_tells_how_far_it_is(quiet, monkeypatch):
  monkeypatch.setattr(progress, "QUIET", quiet)
  out = io.StringIO()
  bar = progress.Bars(out)
  tick = bar.of("images", 30)
  for done in (0, 10, 30):
    tick(done)
  bar("rows", 5, 5)
  bar.end()
  lines = out.getvalue().splitlines()
  assert bool(lines) == (not quiet)
  if lines:
    assert lines[0].startswith("0/30") and "30/30" in lines[1]
    assert lines[-1].startswith("5/5")


@pytest.mark.parametrize(
  ("given", "said"),
  [
    (dict(evry=3), "evry means nothing"),
    (dict(every=-1), "at least 0"),
    (dict(num=0), "at least 1"),
    (dict(num=5.0), "whole number"),
    (dict(every=True), "whole number"),
  ],
)
def test_settings_of_training_are_checked(given, said):
  with pytest.raises(UserError, match=said):
    settings(given)
  assert settings(dict(every=5))["protocol"] == "adm"
