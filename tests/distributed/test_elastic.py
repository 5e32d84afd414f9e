"""One training on changing machines: more devices, fewer, more processes."""

import pathlib

import jax
import numpy as np
import pod
import pytest

import jaxgen
from jaxgen import config
from jaxgen.checkpoint import restore
from jaxgen.checkpoint.fingerprint import named_leaves
from jaxgen.monitor.log import read_jsonl

NAME = "configs/points_vae.py:debug"
FLAGS = {
  "model.net.width": 64,
  "batch": 16,
  "steps": 12,
  "log.every": 1,
  "log.pictures": 12,
  "checkpoint.every": 4,
}


def settings(steps: int):
  c = config.load(NAME)
  with c.unlocked():
    c.update_from_flattened_dict(FLAGS | {"steps": steps})
    c.optim.net.decay = "constant"  # or the rate would depend on `steps`
  return c


def life(processes: int, devices: int, workdir, steps: int, **mesh: int):
  """A part of a training, in processes of their own."""
  flags = (
    FLAGS
    | {"steps": steps, "optim.net.decay": "constant"}
    | {f"mesh.{k}": v for k, v in mesh.items()}
  )
  return pod.run(
    processes,
    devices,
    [
      "train",
      f"--config={NAME}",
      f"--workdir={workdir}",
      *(f"--config.{k}={v}" for k, v in flags.items()),
    ],
    timeout=600,
  )


def losses(workdir) -> np.ndarray:
  """Of every step; what was done twice counts as it was done last."""
  rows = read_jsonl(pathlib.Path(workdir) / "metrics.jsonl")
  by_step = {row["step"]: row["net/loss"] for row in rows if "net/loss" in row}
  return np.array([by_step[i + 1] for i in range(len(by_step))])


WHOLE = """
import sys
sys.path.insert(0, "tests/distributed")
from test_elastic import settings
import jax
from jaxgen import train
from jaxgen.checkpoint.fingerprint import fingerprint

def life(steps, where):
  c = settings(steps)
  c.mesh.fsdp = 4
  return train.train(c, where, quiet=True)

whole = life(12, "WORKDIR/whole")
for steps in (4, 12):
  state = life(steps, "WORKDIR/parts")
weights = jax.tree.leaves(state.params)
assert len(weights[0].sharding.device_set) == 8
assert any(not x.sharding.is_fully_replicated for x in weights)
assert fingerprint(state)[0] == fingerprint(whole)[0]
print("the same bits")
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """A training on eight devices: at once, and in two lives."""
  folder = tmp_path_factory.mktemp("undisturbed")
  (done,) = pod.run(1, 8, WHOLE.replace("WORKDIR", str(folder)), timeout=900)
  assert done.status == 0, done.stderr
  return folder / "whole", done


def test_the_same_machine_gives_the_same_bits(undisturbed):
  _, done = undisturbed
  assert "the same bits" in done.stdout


def test_one_device_then_eight_then_two_processes(undisturbed, tmp_path):
  for machine in ((1, 1, tmp_path, 4, 1, 1), (1, 8, tmp_path, 8, 2, 4), (2, 1, tmp_path, 12, 1, 2)):
    *where, data, fsdp = machine
    for done in life(*where, data=data, fsdp=fsdp):
      assert done.status == 0, done.stderr
  # The same examples in the same order, with the same noise:
  mine, theirs = losses(tmp_path), losses(undisturbed[0])
  assert mine == pytest.approx(theirs, rel=1e-5)
  assert len(theirs) == 12 and np.ptp(theirs) > 1e-3
  mine, theirs = weights(tmp_path), weights(undisturbed[0])
  assert len(mine) == len(theirs) > 20
  for name in theirs:
    np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-4, atol=2e-6)


@pytest.mark.slow
def test_a_process_for_each_device_is_one_with_all_of_them(undisturbed, tmp_path):
  """As on a machine of eight GPUs, which sum gradients in another order then."""
  for done in life(8, 1, tmp_path, 12, data=2, fsdp=4):
    assert done.status == 0, done.stderr
  assert losses(tmp_path) == pytest.approx(losses(undisturbed[0]), rel=1e-5)
  mine, theirs = weights(tmp_path), weights(undisturbed[0])
  for name in theirs:
    np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-4, atol=2e-6)


def test_what_many_devices_trained_is_sampled_on_one(undisturbed):
  model = jaxgen.load(str(undisturbed[0]))
  x = model.sample(0, 16)
  assert x.shape == (16, 2) and np.isfinite(x).all() and np.ptp(x) > 0
  trained = weights(undisturbed[0])
  for name, leaf in named_leaves(model.state.params).items():
    np.testing.assert_array_equal(leaf, trained[f"ema/main/{name}"])


def weights(workdir) -> dict[str, np.ndarray]:
  """The last checkpoint's weights and their averages, by name."""
  step, state, _ = restore.restore_subset(
    str(workdir), lambda meta: restore.abstract_leaves(meta, ["params", "ema"])
  )
  assert step == 12
  return jax.device_get(named_leaves(state))
