"""Plans, against what shapes alone tell; and the compiler of TPUs, if there."""

import importlib.util
import json
import math

import jax
import jax.numpy as jnp
import pytest
import verbs

from jaxgen import config
from jaxgen.bench import device
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, check_fields, dummy
from jaxgen.plan import planner, report, topology
from jaxgen.plan.programs import data_spec, parse_shape

POINTS = "configs/points_vae.py:debug"
silent = lambda text: None


def weights(name):
  c = config.load(name)
  shapes = jax.eval_shape(
    Experiment.of(c).init, dummy(data_spec(c), c.batch), jax.eval_shape(lambda: jax.random.key(0))
  )
  return sum(math.prod(s.shape) for s in jax.tree.leaves(shapes.params))


def test_eight_devices_sum_their_gradients_and_little_else(tmp_path):
  file = tmp_path / "plan.json"
  status, out, err = verbs.finish(
    verbs.start("plan", "--config", POINTS, "--json", file, devices=8)
  )
  assert status == 0, err
  got, n = json.loads(file.read_text()), weights(POINTS)
  memory, [program] = got["memory"], got["programs"]
  assert memory["parameters"] == 4 * n and memory["averages"] == 4 * n
  assert 8 * n <= memory["optimiser"] < 8 * n + 100  # two moments of Adam
  assert memory["batch"] == 16 // 8 * 2 * 4  # two points of two numbers
  assert memory["total"] >= 16 * n
  summed = {r["kind"]: r for r in program["network"]}
  # All gradients, and a few numbers that are told.
  assert 4 * n <= summed["all-reduce"]["bytes"] < 4 * n + 200
  assert got["chips"] == 8 and got["per_chip"] == 2 and got["cycles"] is None
  assert "does not" not in out and "is not known" in out
  assert "all-reduce" in out and "mesh data=8" in out


def test_operations_of_a_loop_of_any_length():
  n, m = 5, 24
  f = jax.jit(lambda x, w, k: jax.lax.fori_loop(0, k, lambda _, y: y @ w, x))
  shapes = [jax.ShapeDtypeStruct((m, m), jnp.float32)] * 2
  steps = jax.ShapeDtypeStruct((), jnp.int32)
  one, many = (device.flops(f, *shapes, steps, turns=t) for t in (1, n))
  assert many - one == pytest.approx((n - 1) * 2 * m**3, rel=0.001)


def test_a_sampler_costs_by_its_steps():
  c = config.load("configs/points_diffusion.py:debug")
  few, many = (
    planner.plan(planner.Request(c, sample=True, batch=16, knobs={"steps": k}), silent)
    for k in (4, 12)
  )
  grown = many["flops"] / few["flops"]
  assert 2.5 < grown < 3  # 3, but for what is done once
  assert few["memory"]["optimiser"] == few["memory"]["averages"] == 0
  assert few["batch"] == 16 and few["what"] == "sample"


def test_shapes_that_cannot_be_known():
  c = config.load("configs/digits_gan.py")
  c.data.source = "folder:/not/there"
  with pytest.raises(UserError, match="say --shape"):
    data_spec(c)
  assert data_spec(c, (16, 16, 3)).shape == (16, 16, 3)
  for text in ("3,3", "0,2,3", "x", "1,2,3,4"):
    with pytest.raises(UserError, match="want height, width"):
      parse_shape(text)


@pytest.mark.parametrize(
  "argv, line",
  [
    ([], "plan needs --config"),
    (["--config", POINTS, "--batch", "8", "--per_chip", "1"], "give either"),
    (["--config", POINTS, "--batch", "0"], "at least 1"),
    (["--config", POINTS, "--steps", "4"], "--steps goes with --sample"),
    (["--config", POINTS, "--topology", "v9:4x4"], "there are v4, v5e"),
    (["--config", "configs/cdm.py:digits"], "stages of a cascade"),
    (
      ["--config=configs/images_diffusion.py:debug", "--config.model.net.attend=(5,)"],
      "no height 5",
    ),
  ],
)
def test_mistakes_end_in_a_line(argv, line, capsys, monkeypatch):
  status, _, err = verbs.call(capsys, monkeypatch, "plan", *argv)
  assert status == 2 and line in err[-1] and ("tracing" in err[0] or len(err) == 1)


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"pip install 'jaxgen\[tpu\]'"):
    topology.devices(topology.parse("v5e:4x4"))


def test_the_largest_batch_wants_to_know_the_memory():
  with pytest.raises(UserError, match="take a --topology"):
    planner.largest(None, {"hbm": None})


tpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="the compiler of TPUs is not installed"
)


@tpu
@pytest.mark.parametrize("where, chips", [("v5e:2x2", 4), ("v5e:4x4:2", 32)])
def test_compiling_for_a_tpu(where, chips, tmp_path):
  file = tmp_path / "plan.json"
  flags = ("--topology", where, "--per_chip", 8, "--json", file, "--profile")
  status, out, err = verbs.finish(verbs.start("plan", "--config", POINTS, *flags))
  assert status == 0, err
  got, n = json.loads(file.read_text()), weights(POINTS)
  assert got["chips"] == chips and got["batch"] == 8 * chips
  assert "fits: needs" in out and got["cycles"] > 0
  [program] = got["programs"]
  sent = {r["kind"]: r["bytes"] for r in program["network"]}
  assert sent["all-reduce"] >= 4 * n
  assert ("send between slices" in sent) == (":2" in where[4:])


@tpu
@pytest.mark.parametrize("fsdp", [1, 2])
def test_a_batch_in_parts_sends_its_gradients_once(fsdp, tmp_path):
  file, name = tmp_path / "plan.json", "configs/points_vae.py"
  parts = ("--config.accumulate=4", f"--config.mesh.fsdp={fsdp}")
  flags = ("--topology", "v5e:2x2", "--json", file, *parts)
  status, _, err = verbs.finish(verbs.start("plan", "--config", name, *flags))
  assert status == 0, err
  [program] = json.loads(file.read_text())["programs"]
  sent = {r["kind"]: r["bytes"] for r in program["network"]}
  n = 4 * weights(name)
  assert n <= sent["all-reduce"] < n + 1000
  assert sent.get("all-gather", 0) <= (fsdp > 1) * n


def test_what_jax_cannot_read_is_not_told(monkeypatch):
  def unread(self):
    raise jax.errors.JaxRuntimeError("INTERNAL: async-update of 4 operands")

  c = config.load("configs/points_vae.py:debug")
  complete = planner.plan(planner.Request(c), silent)
  monkeypatch.setattr(jax.stages.Compiled, "as_text", unread)
  with pytest.warns(UserWarning, match="cannot read.*async-update of 4"):
    plan = planner.plan(planner.Request(c), silent)
  assert plan["memory"] == complete["memory"] and plan["flops"] == complete["flops"]
  assert plan["cycles"] is None and not plan["programs"][0]["network"]
  assert "memory per" in report.plan(plan) + report.profile(plan)


@pytest.mark.parametrize(
  ("name", "change", "shape"),
  [
    ("images_diffusion", {}, (32, 32, 3)),
    ("images_diffusion", {"channels": 1}, (32, 32, 1)),
    ("images_diffusion", {"channels": 0}, (32, 32, 3)),  # it cannot be known
    ("adm_imagenet64", {}, (64, 64, 3)),
    ("stylegan2:cifar", {}, (32, 32, 3)),
    ("digits_gan", {}, (8, 8, 1)),
    ("digits_gan", {"channels": 3}, (8, 8, 3)),
    ("digits_gan", {"size": 16, "channels": 3}, (16, 16, 3)),
    ("points_gan", {}, (2,)),
  ],
)
def test_a_plan_knows_the_shape_without_the_data(name, change, shape):
  c = config.load(name)
  c.data.update(change)
  assert data_spec(c).shape == shape and data_spec(c).classes == c.data.classes


@pytest.mark.parametrize("channels", [2, 4, -1, True, "3"])
def test_channels_that_no_image_has(channels):
  c = config.load("configs/images_diffusion.py")
  with c.unlocked(), c.ignore_type():
    c.data.channels = channels
  with pytest.raises(UserError, match="data.channels=.*want 1"):
    check_fields(c)
