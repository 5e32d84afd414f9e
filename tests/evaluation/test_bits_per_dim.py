"""The verb: the numbers of the functions below it, or one line."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sample import trained
from verbs import call

import jaxgen
from jaxgen import core
from jaxgen.data.sources import open_source
from jaxgen.diffusion import likelihood, posterior, process, times
from jaxgen.evaluation.likelihood_bound import bits_per_dim, chain, evidence
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


PROCESSES = process.EDM(), process.DDPM()


def bound_of(process, D, x, steps):
  """The bound of a model that denoises by D(x_t, t), in nats."""
  game = types.SimpleNamespace(process=process, denoiser=lambda state, batch: D)
  run = chain(types.SimpleNamespace(model=game), steps)
  keys = example_keys(jax.random.key(0), len(x))
  total = jax.jit(lambda x: run(None, {"x": x}, keys, None)["total"])(x)
  return np.asarray(total, np.float64) * np.log(2)


def ends_of(process):
  return process(process.inverse(-2 * jnp.log(jnp.array([80.0, 0.002])))).logsnr


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_bound_of_who_knows_nothing(process):
  x = jnp.full((2, 4, 4, 1), 25 / 127.5 - 1)
  first, last = np.exp(np.asarray(ends_of(process), np.float64))
  # Kingma et al. 2021, Eq. 14, telescopes; the byte itself is sure to be wrong.
  square = float(x[0, 0, 0, 0]) ** 2
  law = (last - first) * square / 2 - np.log(1e-12)
  alpha = first / (1 + first)
  law += (1 / (1 + first) - 1 + alpha * square + np.log1p(first)) / 2  # the prior
  got = bound_of(process, lambda x_t, t: jnp.zeros_like(x_t), x, 20)
  np.testing.assert_allclose(got, law, rtol=2e-3)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_bound_of_who_sees_noise_as_it_is(process):
  x, steps = jnp.zeros((8, 32, 32, 3)), 40
  first, last = np.asarray(ends_of(process), np.float64)
  link = np.expm1((last - first) / (steps - 1))
  # D = x_t / alpha errs by (sigma / alpha) eps: every link costs the same.
  dull = bound_of(process, lambda x_t, t: x_t / t.alpha, x, steps)
  steady = bound_of(process, lambda x_t, t: jnp.zeros_like(x_t), x, steps)
  at_end = (dull - steady).mean() - (steps - 1) * link / 2
  sigma, width = np.exp(-last / 2), np.exp(-last / 2) * np.sqrt(link / (1 + link))
  eps = np.random.default_rng(0).normal(0, sigma, 100_000)
  nll = posterior.byte_nll(0.0, eps, 2 * np.log(width)) - posterior.byte_nll(
    0.0, 0.0, 2 * np.log(width)
  )
  assert at_end == pytest.approx(float(nll.mean()), abs=0.02 * (steps - 1) * link)


def test_the_evidence_bound_of_a_vae():
  class Net:
    def apply(self, variables, *args, method):
      batch = jnp.zeros((len(args[0]), 3))
      return (batch + 1, batch) if method == "encode" else jnp.zeros((len(args[0]), 4, 4, 1))

  vae = types.SimpleNamespace(net=Net(), scale=lambda _: 0.3, conditions=lambda _: {})
  state = types.SimpleNamespace(variables=lambda name: {})
  x = jnp.asarray(np.random.default_rng(0).integers(64, 192, (5, 4, 4, 1)) / 127.5 - 1)
  keys = example_keys(jax.random.key(0), 5)
  got = evidence(types.SimpleNamespace(model=vae))(state, {"x": x}, keys, None)["total"]
  # Means of 1 in three dimensions cost 3 / 2 nats; the density over a byte's
  # bin hardly varies, as it is narrow (and near the mean tanh is exact).
  nll = (np.asarray(x) ** 2 / 0.09 + np.log(2 * np.pi * 0.09)) / 2 + np.log(127.5)
  law = (nll.reshape(5, -1).mean(1) + 1.5 / 16) / np.log(2)
  np.testing.assert_allclose(got, law, rtol=2e-3)


def test_families_that_have_a_bound(digits, points):
  test = open_source("digits", split="test")
  got = bits_per_dim(digits, test, n=10, steps=6)
  assert 0 < got < 1000 and got == bits_per_dim(jaxgen.load(digits), test, n=10, steps=6)
  assert bits_per_dim(points, open_source("points:ring8"), n=10) is None
  gan = types.SimpleNamespace(model=object(), dtype=np.dtype(np.uint8))
  assert bits_per_dim(gan, test) is None
