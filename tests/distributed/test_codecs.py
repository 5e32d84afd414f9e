"""Codecs and models of their latents: stopped, and on four devices of two processes.

Short trainings, in which a discriminator begins and codes die and begin again.
"""

import contextlib
import functools
import json

import jax
import numpy as np
import pod
import pytest
from games import filled

from jaxgen import config, sharding, train
from jaxgen.checkpoint.fingerprint import named_leaves
from jaxgen.convert.workdir import save_first
from jaxgen.experiment import Compiled, Experiment, describe, open_data
from jaxgen.monitor.log import read_jsonl

pytestmark = pytest.mark.usefixtures("unoptimised")
START, STEPS = 2, 4
VQ, VQVAE2, LATENT, VAE = "ldm_vq", "vqvae2", "digits_latent", "digits_vae"
# Stops before, at and after a discriminator's start, and codes' revival.
STOPS = {VQ: (START - 1, START, START + 1), VQVAE2: (1,)}
TOGETHER = VQ, VQVAE2, LATENT  # what several devices train
RECORD = """
import sys
sys.path.insert(0, "tests/distributed")
import test_codecs
test_codecs.record({out!r}, {codec!r})
"""


def settings(name: str, codec: str = ""):
  """A small training; a model of latents has its codec in the workdir `codec`."""
  c = config.load(f"configs/{name}.py:{'vae' if name == LATENT else 'debug'}").unlock()
  c.update(steps=STEPS, batch=8)
  c.log.update(every=1, pictures=0)
  for adam in c.optim.values():
    adam.update(decay="constant", warmup=0)
  net = c.model.get("codec", c.model).net
  net.width = 4
  if name == VQ:
    net.mults = (1,)
    c.model.start = START
    c.model.disc.width = 4
  elif name == VQVAE2:  # codes die soon; every part of a batch moves them
    net.update(width=8, hidden=4, blocks=1)
    c.model.update(codes=24, decay=0.8)
    c.accumulate = 2
  elif name == LATENT:
    c.model.codec_workdir = codec
    c.model.model.net.update(width=16, depth=1)
  return c


def trained(c, mesh):
  """A training: metrics of every step, the last state by name, the compiled step."""
  experiment, source = Experiment.of(c), open_data(c)
  step, state = Compiled(experiment, mesh), experiment.fresh(source, mesh)
  seed, logs = jax.random.key(c.seed), []
  with contextlib.closing(train.batches_of(c, source, 0)) as stream:
    for i, batch in zip(range(c.steps), sharding.prefetch(stream, mesh), strict=False):
      state, metrics = step(i, state, batch, seed)
      logs.append({k: float(v) for k, v in metrics.items()})
  cut = [x for x in jax.tree.leaves(state.params) if not x.is_fully_replicated]
  assert bool(cut) == (mesh.shape["fsdp"] > 1)
  return logs, {k: sharding.fetch(x) for k, x in named_leaves(state).items()}, step


@pytest.fixture(scope="module")
def one(tmp_path_factory):
  """On one device: name -> metrics, leaves, compiled step."""
  codec = tmp_path_factory.mktemp("codec")

  @functools.cache
  def whole(name):
    if name == LATENT:
      c = settings(VAE)
      experiment, data = Experiment.of(c), open_data(c)
      state = filled(experiment.abstract(data, sharding.make_mesh()))
      save_first(str(codec), state, describe(c, data), c.checkpoint, print)
    return trained(settings(name, str(codec)), sharding.make_mesh())

  whole.codec = str(codec)
  return whole


@pytest.mark.parametrize("name", STOPS)
def test_the_same_bits_wherever_it_is_stopped(one, name, tmp_path):
  logs, leaves, step = one(name)
  for steps in (*STOPS[name], STEPS):
    c = settings(name)
    c.steps = steps
    state = train.train(c, str(tmp_path), quiet=True, step=step)
  resumed = named_leaves(state)
  assert resumed.keys() == leaves.keys() and len(leaves) > 100
  for k, x in leaves.items():
    assert np.asarray(resumed[k]).tobytes() == x.tobytes(), k
  rows = [row for row in read_jsonl(tmp_path / "metrics.jsonl") if "step" in row]
  assert [{k: row[k] for k in log} for row, log in zip(rows, logs, strict=True)] == logs
  if name == VQVAE2:
    for level in ("top", "bottom"):
      assert f"stats/net/codes/{level}/count" in leaves
      assert all(sum(r[f"net/revived_{level}"] for r in part) for part in (logs[:2], logs[2:]))
  else:
    assert [bool(r["disc/grad_norm"]) for r in logs] == [i >= START for i in range(STEPS)]
    assert all(r["net/disc_weight"] > 0 for r in logs)


def record(out: str, codec: str) -> None:
  """Trains on all devices; process 0 writes what came of it."""
  sharding.SMALL = 32  # of these nets, most leaves are cut
  mesh = sharding.make_mesh(dict(data=2, fsdp=2))
  for name in TOGETHER:
    logs, leaves, _ = trained(settings(name, codec), mesh)
    if jax.process_index() == 0:
      np.savez(f"{out}/{name}.npz", logs=json.dumps(logs), **leaves)


@pytest.fixture(scope="module")
def four(one, tmp_path_factory):
  """On four devices of two processes: name -> metrics, leaves."""
  one(LATENT)
  out = tmp_path_factory.mktemp("four")
  for done in pod.run(2, 2, RECORD.format(out=str(out), codec=one.codec), timeout=900):
    assert done.status == 0, done.stderr
  arrays = {name: dict(np.load(out / f"{name}.npz")) for name in TOGETHER}
  return {name: (json.loads(str(own.pop("logs"))), own) for name, own in arrays.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOGETHER)
def test_four_devices_of_two_processes_do_what_one_does(one, four, name):
  """Sums of codes, revived codes, batch norm and the scale are of all of the batch."""
  (logs, leaves), (expected, want, _) = four[name], one(name)
  for mine, theirs in zip(logs, expected, strict=True):
    assert mine == pytest.approx(theirs, rel=1e-5)
  assert leaves.keys() == want.keys()
  for k, x in leaves.items():
    np.testing.assert_allclose(x, want[k], rtol=1e-4, atol=2e-6, err_msg=k)
