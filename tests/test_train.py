"""Kill it, stop it, starve it: the same command ends with the same bits."""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from verbs import POINTS, ROOT, call, finish, start

from jaxgen import config, train
from jaxgen.checkpoint import disk as checkpoint_disk
from jaxgen.checkpoint import restore
from jaxgen.errors import Diverged

GAN = ROOT / "configs" / "points_gan.py"


def settings(**top):
  """A GAN on points whose updates do not depend on the number of steps."""
  c = config.load(f"{GAN}:debug")
  c.log.pictures, c.log.every, c.checkpoint.every = 0, 5, 5
  for adam in c.optim.values():
    adam.decay = "constant"
  c.update(top)
  return c


def flags(c):
  """What makes the same of points_gan.py:debug on the command line."""
  names = "steps log.pictures log.every checkpoint.every optim.gen.decay optim.disc.decay".split()
  return [POINTS, *(f"--config.{n}={value(c, n)}" for n in names)]


def value(c, path):
  for key in path.split("."):
    c = c[key]
  return c


def bits(state):
  """SHA-256 by leaf."""
  return {
    jax.tree_util.keystr(path): hashlib.sha256(np.asarray(x).tobytes()).hexdigest()
    for path, x in jax.tree_util.tree_leaves_with_path(state)
  }


def log(workdir):
  """The rows so far; the last one may be torn."""
  file = pathlib.Path(workdir) / "metrics.jsonl"
  text = file.read_text() if file.exists() else ""
  return [json.loads(line) for line in text.split("\n")[:-1]]


def wait_for(it, process):
  end = time.monotonic() + 120
  while not it():
    if time.monotonic() > end or process.poll() is not None:
      process.kill()  # it would train on, for hours
      pytest.fail(f"waits in vain: {process.communicate()}")
    time.sleep(0.005)


def test_killed_trainings_end_with_the_same_bits(tmp_path):
  words = "--kills 2 --set steps=40 --set checkpoint.every=4 --set log.pictures=0".split()
  run = subprocess.run(
    [
      sys.executable,
      "tests/helpers/kill.py",
      f"--config={GAN}:debug",
      *words,
      "--folder",
      tmp_path,
    ],
    cwd=ROOT,
    text=True,
    capture_output=True,
    timeout=300,
  )
  assert run.returncode == 0, run.stdout + run.stderr
  assert "all the same, bit by bit" in run.stdout
  assert "  saving +" in run.stdout
  # The script can tell: another seed gives other bits.
  import kill

  c = settings(steps=4, seed=1)
  train.train(c, str(tmp_path / "other"), quiet=True)
  one, other = kill.hashes(tmp_path / "peace"), kill.hashes(tmp_path / "other")
  assert one.keys() == other.keys() and len(one) > 50
  assert all(one[k] != other[k] for k in one if "params" in k and "kernel" in k)


def test_sigterm_saves_where_it_stands(tmp_path):
  """Even twice; and the run goes on to the bits of one never stopped."""
  c = settings(steps=1_000_000)
  c.log.every, c.checkpoint.every = 1, 1_000_000
  workdir = tmp_path / "stopped"
  process = start("train", *flags(c), f"--workdir={workdir}")
  wait_for(lambda: len(log(workdir)) > 3, process)
  process.send_signal(signal.SIGTERM)
  for _ in range(3):  # somebody is impatient: also while it saves
    time.sleep(0.03)
    if process.poll() is None:
      process.send_signal(signal.SIGTERM)
  status, _, lines = finish(process)
  (step,) = checkpoint_disk.steps(workdir)
  assert status in (143, -signal.SIGTERM)  # hit again after all was done
  assert f"stopped by a signal at step {step}; saving" in lines
  assert not [line for line in lines if "Traceback" in line]
  c.steps = step + 3
  stopped = train.train(c, str(workdir), quiet=True)
  assert int(stopped.step) == step + 3
  straight = train.train(c, str(tmp_path / "straight"), quiet=True)
  assert bits(stopped) == bits(straight)


def test_logs_do_not_tell_that_a_run_was_stopped(tmp_path):
  """Rows have the last of those who seldom move, also from a life before."""
  seen = []
  for name, lives in (("peace", (8,)), ("war", (4, 8))):
    for steps in lives:
      c = settings(steps=steps)
      c.model.gen_every, c.log.every, c.checkpoint.every = 5, 1, 4
      train.train(c, str(tmp_path / name), quiet=True)
    seen.append(
      {
        row["step"]: {k: v for k, v in row.items() if k != "time" and not k.startswith("goodput/")}
        for row in log(tmp_path / name)
        if "step" in row
      }
    )
  assert seen[0] == seen[1] and len(seen[0]) == 8
  assert all("gen/loss" in row for row in seen[0].values())


def test_ctrl_c_is_one_line(tmp_path):
  c = settings(steps=1_000_000)
  process = start("train", *flags(c), f"--workdir={tmp_path / 'w'}")
  wait_for(lambda: len(log(tmp_path / "w")) > 3, process)
  process.send_signal(signal.SIGINT)
  status, _, lines = finish(process)
  assert status == 130 and lines[-1] == "jaxgen: interrupted"
  assert not [line for line in lines if "Error" in line or "Trace" in line]


def test_programs_are_kept_and_give_the_same_bits(tmp_path):
  """By default, in the user's cache; a torn one is remade without a word."""
  c = settings(steps=2)
  home = tmp_path / "cache"
  names = []
  for life in range(3):
    process = start(
      "train",
      *flags(c),
      f"--workdir={tmp_path / str(life)}",
      XDG_CACHE_HOME=str(home),
      JAX_COMPILATION_CACHE_DIR=None,
    )
    status, _, lines = finish(process)
    assert status == 0 and not [x for x in lines if x.startswith("jaxgen")]
    programs = sorted((home / "jaxgen" / "xla").glob("*/*-cache"))
    names.append({p.name: p.stat().st_mtime_ns for p in programs})
    assert any(name.startswith("jit_step-") for name in names[-1])
    if life == 1:
      for program in programs:
        os.truncate(program, program.stat().st_size // 2)
      torn = {p.name: p.stat().st_size for p in programs}
  assert names[1] == names[0]  # all were found
  assert names[2].keys() == names[0].keys() and names[2] != names[0]
  assert all(p.stat().st_size > torn[p.name] for p in programs)
  states = [restore.latest_meta(tmp_path / str(life))["leaves"] for life in range(3)]
  assert states[0] == states[1] == states[2]


class Faulty:
  """batches(), with infinity for data from step `first` until `last`."""

  def __init__(self, first, last):
    self.first, self.last = first, last

  def __call__(self, *args, start, **kwargs):
    from jaxgen.data.pipeline import batches

    for i, batch in enumerate(batches(*args, start=start, **kwargs), start):
      if self.first <= i < self.last:
        batch["x"] = batch["x"] * np.float32("inf")
      yield batch


def test_a_passing_fault_is_counted_and_survived(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(train, "batches", Faulty(7, 10))
  state = train.train(settings(steps=20, patience=5), str(tmp_path))
  assert np.asarray(state.skips).tolist() == [0, 3]
  assert "Updates were skipped" in capsys.readouterr().err
  assert [r["skips"] for r in log(tmp_path) if "step" in r] == [0, 3, 3, 3]
  # The skipped updates moved nothing but the count of steps.
  assert 10 not in checkpoint_disk.steps(tmp_path)  # it was ill then
  assert int(state.step) == 20


def test_divergence_stops_and_names_the_last_good_checkpoint(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(train, "batches", Faulty(12, 10**9))
  c = settings(steps=10**6, patience=25)
  with pytest.raises(
    Diverged,
    match=r"25 updates in a row .* up to step 37; "
    r"the last good checkpoint is step 10 in ",
  ) as stop:
    train.train(c, str(tmp_path), quiet=True)
  assert stop.value.status == 3
  assert checkpoint_disk.steps(tmp_path) == [5, 10]  # not pushed out by ill ones
  assert log(tmp_path)[-1]["skips_in_a_row"] == 25
  # With the fault gone the same command goes on, to the bits of a sane run.
  monkeypatch.undo()
  c.steps = 15
  mended = train.train(c, str(tmp_path), quiet=True)
  sane = train.train(c, str(tmp_path / "sane"), quiet=True)
  assert bits(mended) == bits(sane)


def test_a_huge_learning_rate_ends_in_one_line(tmp_path, capsys, monkeypatch):
  lr = "--config.optim.gen.lr=1e37 --config.optim.disc.lr=1e37".split()
  flags = "--config.steps=1000 --config.patience=10 --config.log.pictures=0".split()
  argv = "train", POINTS, *flags, *lr, f"--workdir={tmp_path / 'w'}"
  status, _, lines = call(capsys, monkeypatch, *argv)
  assert status == 3
  (line,) = [x for x in lines if x.startswith("jaxgen: ")]
  assert "the last good checkpoint is" in line and "learning rate" in line
  assert not [x for x in lines if "Traceback" in x]


@pytest.fixture
def disk(tmp_path):
  """A small file system."""
  mount = tmp_path / "disk"
  mount.mkdir()
  made = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mount], capture_output=True
  )
  if made.returncode:
    pytest.skip("no right to mount a small file system")
  yield mount
  subprocess.run(["umount", "--lazy", mount], check=True)


def fill(disk, room=0):
  """A file that leaves `room` bytes."""
  filler = disk / "filler"
  with pytest.raises(OSError, match="No space"), open(filler, "wb", buffering=0) as f:
    while True:
      f.write(bytes(4096))
  os.truncate(filler, filler.stat().st_size - room)
  return filler


def test_a_disk_that_fills_up(disk, tmp_path):
  """It is told at once; nothing old is lost; with room it goes on."""
  c, workdir = settings(steps=40), disk / "w"
  status, _, _ = finish(start("train", *flags(settings(steps=10)), f"--workdir={workdir}"))
  assert status == 0 and checkpoint_disk.steps(workdir) == [5, 10]
  filler = fill(disk, room=32 << 10)  # for the log, not for a checkpoint
  status, _, lines = finish(start("train", *flags(c), f"--workdir={workdir}"))
  told = [x for x in lines if "could not be saved" in x]
  assert not [x for x in lines if "Traceback" in x or "ERROR" in x]
  assert status == 2 and checkpoint_disk.steps(workdir) == [5, 10]
  assert lines[-1].startswith("jaxgen: ") and "No space left" in lines[-1]
  assert told and all("the newest is 10" in x for x in told if ";" in x)
  restore.latest_meta(workdir)  # and it can be read
  filler.unlink()
  after = train.train(c, str(workdir), quiet=True)
  before = train.train(c, str(tmp_path / "roomy"), quiet=True)
  assert bits(after) == bits(before)


def test_a_disk_that_is_full_at_the_start(disk):
  filler = fill(disk)
  before = filler.stat().st_size
  status, _, lines = finish(start("train", *flags(settings(steps=2)), f"--workdir={disk / 'w'}"))
  assert status == 2 and "No space left" in lines[-1]
  assert lines[-1].startswith("jaxgen: ")
  assert filler.stat().st_size == before
