"""Evaluation by two processes, against the same by one."""

import json
import os

import looks
import pod
import pytest
from absl import flags

from jaxgen import evaluate
from jaxgen.evaluation import features

# The stand-in looks; all else is what the verbs do.
CODE = """
from jaxgen import config, train
import sys
sys.path.insert(0, {here!r})
import looks, test_several_processes
from jaxgen.evaluation import features
features.open_extractor = looks.opened
c = config.load("configs/digits_gan.py:debug")
c.steps = c.checkpoint.every = c.log.eval.every = 2
c.log.eval.update(num=50, batch=16)
c.log.pictures, c.mesh.fsdp = 0, 2
train.train(c, {workdir!r}, quiet=True)
test_several_processes.judge({workdir!r}, {out!r}, seed=3)
processes.shutdown()
"""


def judge(workdir, out, seed):
  values = flags.FlagValues()
  evaluate.define(values)
  values(
    [
      "",
      f"--workdir={workdir}",
      "--protocol=adm",
      "--num=50",
      "--batch=16",
      f"--seed={seed}",
      f"--out={out}",
    ]
  )
  evaluate.main(values)


def test_scores_do_not_depend_on_the_processes(tmp_path, monkeypatch):
  work, card = tmp_path / "W", tmp_path / "3.json"
  for done in pod.run(
    2, 1, CODE.format(here=os.path.dirname(__file__), workdir=str(work), out=str(card)), timeout=300
  ):
    assert done.status == 0, done.stderr
  [during] = (work / "evals").glob("*.json")
  monkeypatch.setattr(features, "open_extractor", looks.opened)
  for seed, ours in ((0, during), (3, card)):
    alone = tmp_path / f"{seed}-alone.json"
    judge(work, alone, seed)
    one, two = (json.loads(f.read_text()) for f in (alone, ours))
    assert len(two["scores"]) == 5 and two["samples"]["images"] == 50
    assert two["samples"]["weights"] == one["samples"]["weights"]
    for name, value in one["scores"].items():
      # Rounding of samples to bytes may differ by single grey levels.
      assert two["scores"][name] == pytest.approx(value, rel=1e-3), name
