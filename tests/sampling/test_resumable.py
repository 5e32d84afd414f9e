"""Samples by two processes: killed, they go on with the parts that are whole."""

import signal
import time

import numpy as np
import pod
import pytest

import jaxgen
from jaxgen import config, train
from jaxgen.errors import UserError
from jaxgen.sampling import resumable

CODE = """
import time
from jaxgen import cli
from jaxgen.sampling import resumable
keep = resumable._keep
def slow(*args):
  keep(*args)
  print("batch", flush=True)
  time.sleep({pause})
resumable._keep = slow
processes.join = lambda: None  # we are already
cli.run("jaxgen.sample", {words!r})
"""
PATIENT = {"JAXGEN_HEARTBEAT_SECONDS": "5"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A workdir of a VAE of points."""
  work = tmp_path_factory.mktemp("trained") / "W"
  c = config.load("configs/points_vae.py:debug")
  c.steps, c.log.pictures, c.model.net.width = 2, 0, 16
  train.train(c, str(work), quiet=True)
  return str(work)


def code(workdir, out, pause):
  words = ["sample", f"--workdir={workdir}", "--num=21", "--batch=4", "--seed=3", f"--out={out}"]
  return CODE.format(words=words, pause=pause)


@pytest.fixture(scope="module")
def undisturbed(trained, tmp_path_factory):
  """A file by one process that nobody killed."""
  out = tmp_path_factory.mktemp("undisturbed") / "x.npz"
  (done,) = pod.run(1, 2, code(trained, out, 0.0), timeout=200)
  assert done.status == 0, done.stderr
  return out.read_bytes()


@pytest.mark.parametrize(
  "then", [pytest.param((2, 1), id="two"), pytest.param((1, 2), id="one", marks=pytest.mark.slow)]
)
def test_what_was_killed_goes_on_to_the_same_bytes(trained, undisturbed, tmp_path, then):
  out, parts = tmp_path / "x.npz", tmp_path / "x.npz.partial"
  with pod.started(2, 1, code(trained, out, 1.0), env=PATIENT) as them:
    end = time.monotonic() + 200
    while len(list(parts.glob("*-*.npy"))) < 4:
      assert time.monotonic() < end and all(p.poll() is None for p in them), [
        p.err.read_text() for p in them
      ]
      time.sleep(0.02)
    them[1].kill()
    done = pod.finish(them, 60)
  assert done[1].status == -signal.SIGKILL and done[0].status == 75, done
  assert not out.exists()
  torn = sorted(parts.glob("*-*.npy"))[-1]
  torn.unlink()  # of its batch the other half alone is there
  done = pod.run(*then, code(trained, out, 0.0), timeout=200)
  assert [d.status for d in done] == [0] * then[0], done
  assert 0 < done[0].stdout.count("batch") < 6 and "21 samples" in done[0].stdout
  assert not parts.exists() and not any("samples" in d.stdout for d in done[1:])
  assert out.read_bytes() == undisturbed


@pytest.mark.parametrize(
  "parts, all_there",
  [
    ([(0, 4), (4, 8)], True),
    ([(4, 8), (0, 4)], True),
    ([(0, 5), (3, 8)], True),  # of more processes and of fewer
    ([(0, 4), (5, 8)], False),
    ([(0, 7)], False),
    ([], False),
  ],
)
def test_a_batch_is_there_if_its_parts_hold_all_of_it(parts, all_there):
  assert resumable.covered(parts, 0, 8) == all_there


def test_parts_are_joined_by_their_ranges(tmp_path):
  x = np.arange(14.0).reshape(7, 2)
  for start, stop in ((4, 7), (0, 3), (2, 5)):
    np.save(tmp_path / f"{start:010d}-{stop:010d}.npy", x[start:stop])
  np.testing.assert_array_equal(resumable.joined(tmp_path, 7), x)
  torn = tmp_path / "0000000002-0000000005.npy"
  torn.write_bytes(torn.read_bytes()[:-9])
  with pytest.raises(UserError, match="was damaged"):
    resumable.joined(tmp_path, 7)
  assert not torn.exists()


def test_parts_of_other_samples_are_not_taken(trained, tmp_path, monkeypatch):
  """Of another seed, say; and what is not ours is left alone."""
  model, out = jaxgen.load(trained), str(tmp_path / "x.npz")
  options = dict(batch=4, knobs={}, out=out)
  for seed in (0, 1):
    x = resumable.draw(model, seed, 6, None, **options)
    np.testing.assert_array_equal(x, model.sample(seed, 6, batch=4))
  calls = []
  monkeypatch.setattr(resumable, "_keep", lambda *args: calls.append(args))
  np.testing.assert_array_equal(resumable.draw(model, 1, 6, None, **options), x)
  assert not calls  # all of it was there
  resumable.forget(out)
  assert not any(tmp_path.iterdir())
  (tmp_path / "x.npz.partial").mkdir()
  (tmp_path / "x.npz.partial" / "mine").write_text("")
  with pytest.raises(UserError, match="move it away"):
    resumable.draw(model, 1, 6, None, **options)
  resumable.forget(out)
  assert (tmp_path / "x.npz.partial" / "mine").is_file()


def test_who_does_not_see_the_parts_says_so(tmp_path, monkeypatch):
  """As where every machine has a disk of its own: joined, they would lack rows."""
  monkeypatch.setattr(resumable, "LATE", 0.2)
  work = {"samples": 3, "key": "a"}
  resumable._claim(tmp_path / "here", work)
  resumable._check_shared(tmp_path / "here", work)
  with pytest.raises(UserError, match="must lie where all of them see it"):
    resumable._check_shared(tmp_path / "elsewhere", work)
