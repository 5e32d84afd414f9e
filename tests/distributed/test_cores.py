"""Cores as devices: how many, who decides, and that a training does not mind."""

import jax
import pod
import pytest

from jaxgen import config, train
from jaxgen.distributed import cores
from jaxgen.errors import UserError
from jaxgen.experiment import prepare_devices

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

# Up to its first work.
VERB = """
import importlib
from jaxgen import cli
verb = importlib.import_module("jaxgen.{module}")
def {part}(*args, **kwargs):
  print(jax.device_count())
  raise SystemExit(0)
verb.{part} = {part}
verb.main(cli.parse(verb, {words}))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  """A workdir of a model of images."""
  c = config.load("configs/digits_vae.py:debug")
  c.steps, c.log.pictures, c.model.net.width = 2, 0, 8
  workdir = str(tmp_path_factory.mktemp("images"))
  train.train(c, workdir, quiet=True)
  return workdir


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


@pytest.mark.parametrize(
  "weights, devices", [(0, 8), (cores.COPIES // 4, 4), (cores.COPIES + 1, 1)]
)
def test_large_models_are_not_copied(monkeypatch, weights, devices):
  monkeypatch.setattr(cores, "cores", lambda: 8)
  assert cores.count([256], weights) == devices


@pytest.mark.parametrize(
  "name, changes, batch",
  [
    ("digits_gan", {}, 128),
    ("digits_gan", {"accumulate": 4}, 32),
    ("digits_gan", {"mesh.fsdp": 2}, 1),
    ("points_gan", {}, 1),
  ],
)
def test_devices_by_config(monkeypatch, name, changes, batch):
  asked, c = [], config.load(f"configs/{name}.py")
  c.update_from_flattened_dict(changes)
  monkeypatch.setattr(cores, "make_devices", asked.append)
  prepare_devices([c])
  assert asked == [[batch]]


@pytest.mark.parametrize(
  "module, part, words",
  [
    ("sample", "load", ["--num=16", "--out=x.npz"]),
    ("evaluate", "evaluate_with_judge", ["--num=16"]),
    ("compare.sweep", "load", ["--out=x"]),
  ],
)
def test_verbs_make_devices_before_they_ask_for_any(images, tmp_path, module, part, words):
  code = VERB.format(module=module, part=part, words=["x", f"--workdir={images}", *words])
  env = {"JAXGEN_CPU_DEVICES": "2", "XLA_FLAGS": None}
  (done,) = pod.run(1, 1, f"import os\nos.chdir({str(tmp_path)!r})\n{code}", env=env)
  assert (done.status, done.stdout) == (0, "2\n"), done.stderr


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
