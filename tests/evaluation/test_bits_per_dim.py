"""The verb: the numbers of the functions below it, or one line."""

import json

import jax
import numpy as np
import pytest
from test_sample import trained
from verbs import call

import jaxgen
from jaxgen import core
from jaxgen.data.sources import open_source
from jaxgen.diffusion import likelihood, times
from jaxgen.keys import example_keys


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
  return trained(
    tmp_path_factory.mktemp("likelihood"),
    "digits_adm",
    **{"model.net.width": 8, "model.net.mults": (1,), "model.net.attend": (), "steps": 2},
  )


@pytest.fixture(scope="module")
def points(tmp_path_factory):
  return trained(tmp_path_factory.mktemp("points"), "points_diffusion")


def test_the_bound_of_a_chain(digits, tmp_path, capsys, monkeypatch):
  out = tmp_path / "x.json"
  flags = f"--workdir={digits} --steps=6 --num=10 --batch=4 --out={out} --seed=3"
  status, printed, _ = call(capsys, monkeypatch, "likelihood", *flags.split())
  assert status == 0 and "bits/dim" in printed
  result = json.loads(out.read_text())
  parts = result["bits_per_dim"]
  assert parts["total"] == pytest.approx(parts["prior"] + parts["vb"], rel=1e-5)
  # By hand, in one batch.
  model = jaxgen.load(digits)
  x, y = open_source("digits", split="test").arrays()
  batch = core.on_device({"x": x[:10], "y": y[:10]})
  process = model.model.process
  path = process(times.spaced(process, np.arange(6), 6))
  terms = jax.jit(
    lambda state, batch, keys: likelihood.bound_bpd(
      model.model.denoiser(state, batch), batch["x"], path, keys
    )
  )(model.state, batch, example_keys(jax.random.key(3), 10))
  assert parts["total"] == pytest.approx(float(terms["total"].mean()), rel=1e-4)
  assert result["made"]["steps"] == 6 and result["made"]["split"] == "test"


def test_the_ode_of_points(points, tmp_path, capsys, monkeypatch):
  def bpd(flags):
    out = tmp_path / "x.json"
    argv = f"--workdir={points} --method=ode --num=50 --out={out} {flags}".split()
    status, _, _ = call(capsys, monkeypatch, "likelihood", *argv)
    assert status == 0
    return json.loads(out.read_text())["bits_per_dim"]["total"]

  # The solver has converged, and parts of a batch do not matter.
  assert bpd("--steps=24") == pytest.approx(bpd("--steps=48"), abs=0.02)
  assert bpd("--batch=20 --steps=24") == pytest.approx(bpd("--steps=24"), rel=1e-4)


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--method=guess"], "want bound or ode"),
    (["--method=bound"], "this process knows none: --method=ode"),
    (["--steps=0", "--method=ode"], "--steps=0: want at least 1"),
    (["--split=tset", "--method=ode"], "tset"),
  ],
)
def test_slips_are_one_line(points, flags, message, capsys, monkeypatch):
  status, _, lines = call(capsys, monkeypatch, "likelihood", f"--workdir={points}", *flags)
  assert status == 2 and lines[-1].startswith("jaxgen: ") and message in lines[-1]
