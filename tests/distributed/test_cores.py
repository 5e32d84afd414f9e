"""Cores as devices: how many, who decides, and that a training does not mind."""

import jax
import pod
import pytest

from jaxgen.distributed import cores
from jaxgen.errors import UserError

TRAIN = """
from jaxgen import config, train
from jaxgen.experiment import prepare_devices
c = config.load("configs/points_gan.py:debug")
c.steps, c.batch, c.log.pictures, c.log.every = 3, 16, 0, 1
prepare_devices([c])
state = train.train(c, "{out}", quiet=True)
from jaxgen.monitor.log import read_jsonl
rows = [r for r in read_jsonl("{out}/metrics.jsonl") if "step" in r]
print(jax.device_count(), *(r["disc/loss"] for r in rows))
"""


@pytest.mark.parametrize(
  "here, batches, devices",
  [
    (1, [64], 1),
    (2, [64, 128], 2),
    (6, [64], 4),
    (64, [256], cores.MOST),
    (16, [50], 2),
    (16, [64, 7], 1),
    (16, [128, 16], 2),
    (4, [], 4),
  ],
)
def test_as_many_as_divide_all_batches(monkeypatch, here, batches, devices):
  monkeypatch.setattr(cores, "cores", lambda: here)
  assert cores.count(batches) == devices
  assert all(batch % devices == 0 for batch in batches)


def test_whoever_says_a_number_gets_it():
  assert cores.wanted({cores.SWITCH: "3"}) == 3
  assert cores.wanted({}) is cores.wanted({cores.SWITCH: ""}) is None
  for word in ("0", "many", "-1", "2.0", "²", "1" + 9 * "0"):
    with pytest.raises(UserError, match=f"JAXGEN_CPU_DEVICES={word}: want a"):
      cores.wanted({cores.SWITCH: word})


def test_a_jax_that_has_its_devices_keeps_them():
  before = jax.device_count()
  cores.make_devices([64], {"JAXGEN_CPU_DEVICES": str(before + 1)})
  assert jax.device_count() == before


def test_a_training_on_two_is_that_on_one(tmp_path):
  losses = []
  for devices in (1, 2):
    env = {"JAXGEN_CPU_DEVICES": str(devices), "XLA_FLAGS": None}
    (done,) = pod.run(1, 1, TRAIN.format(out=tmp_path / str(devices)), env=env)
    assert done.status == 0, done.stderr
    count, *own = map(float, done.stdout.split()[-4:])
    assert count == devices
    losses.append(own)
  assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_flag_of_xla_decides():
  code = "from jaxgen.distributed import cores; cores.make_devices([64]); print(jax.device_count())"
  (done,) = pod.run(1, 4, code, env={"JAXGEN_CPU_DEVICES": "2"})
  assert (done.status, done.stdout) == (0, "4\n"), done.stderr
