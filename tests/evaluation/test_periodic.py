"""Evaluation while training: its settings, its lines in the log, its progress."""

import io

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.evaluation.periodic import settings
from jaxgen.monitor import progress
from jaxgen.monitor.log import Logger, append, card_name, read_jsonl


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
  ("options", "message"),
  [
    (dict(evry=3), "evry means nothing"),
    (dict(every=-1), "at least 0"),
    (dict(num=0), "at least 1"),
    (dict(num=5.0), "whole number"),
    (dict(every=True), "whole number"),
  ],
)
def test_settings_of_training_are_checked(options, message):
  with pytest.raises(UserError, match=message):
    settings(options)
  assert settings(dict(every=5))["protocol"] == "adm"
