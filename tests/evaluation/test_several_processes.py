"""Evaluation by two processes, against the same by one."""

import json
import os
import signal
import time

import looks
import pod
import pytest
from absl import flags

from jaxgen import config, evaluate, train
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


KILLED = """
import sys, time
sys.path.insert(0, {here!r})
import looks, test_several_processes
from jaxgen.evaluation import collect, features

class Slow(looks.Stub):
  def features(self, images, taps):
    time.sleep({pause})
    return super().features(images, taps)

stub = Slow()
features.open_extractor = lambda *args, **kw: stub
collect.CHUNK, collect.BLOCK, collect.SAVE_SECONDS = 4, 16, 0
test_several_processes.judge({workdir!r}, {out!r}, seed=3)
print("images:", stub.count)
if jax.process_count() > 1:
  processes.shutdown()
"""
PATIENT = {"JAXGEN_HEARTBEAT_SECONDS": "5"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A workdir of a generator of digits."""
  work = tmp_path_factory.mktemp("trained") / "W"
  c = config.load("configs/digits_gan.py:debug")
  c.steps = c.checkpoint.every = 2
  c.log.pictures = 0
  train.train(c, str(work), quiet=True)
  return str(work)


def killed_code(workdir, out, pause=0.0):
  here = os.path.dirname(__file__)
  return KILLED.format(here=here, workdir=workdir, out=str(out), pause=pause)


@pytest.fixture(scope="module")
def undisturbed(trained, tmp_path_factory):
  """A card by one process that nobody killed, and how many images it looked at."""
  out = tmp_path_factory.mktemp("undisturbed") / "x.json"
  (done,) = pod.run(1, 2, killed_code(trained, out), timeout=120)
  assert done.status == 0, done.stderr
  return out.read_bytes(), int(done.stdout.rpartition("images: ")[2])


@pytest.mark.parametrize(
  "victim, then",
  [
    pytest.param(0, (2, 1), id="first", marks=pytest.mark.slow),
    pytest.param(1, (1, 2), id="elastic"),
  ],
)
def test_what_was_killed_goes_on_to_the_same_card(trained, undisturbed, tmp_path, victim, then):
  """By as many processes as before, or by one that has their devices."""
  out, state = tmp_path / "x.json", tmp_path / "x.partial" / "samples" / "state.npz"
  with pod.started(2, 1, killed_code(trained, out, pause=0.5), env=PATIENT) as them:
    end = time.monotonic() + 120
    while not state.exists():
      assert time.monotonic() < end and all(p.poll() is None for p in them), them
      time.sleep(0.02)
    them[victim].kill()
    done = pod.finish(them, 60)
  assert done[victim].status == -signal.SIGKILL and done[1 - victim].status == 75, done
  assert not out.exists()
  done = pod.run(*then, killed_code(trained, out), timeout=120)
  assert [d.status for d in done] == [0] * then[0], done
  looked = sum(int(d.stdout.rpartition("images: ")[2]) for d in done)
  card, all_images = undisturbed
  assert looked < all_images and out.read_bytes() == card
  assert not out.with_suffix(".partial").exists()
