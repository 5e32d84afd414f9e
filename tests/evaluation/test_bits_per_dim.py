"""The verb: the numbers of the functions below it, or one line."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import filled
from test_sample import trained
from verbs import call

import jaxgen
from jaxgen import config, core, sharding
from jaxgen.convert.workdir import save_first
from jaxgen.data.sources import open_source
from jaxgen.diffusion import likelihood, posterior, process, times
from jaxgen.evaluation.likelihoods import bits_per_dim, chain, evidence
from jaxgen.experiment import Experiment, describe, open_data
from jaxgen.keys import example_keys
from jaxgen.models.hierarchy import level_state, of_level
from jaxgen.models.latent import codec_state


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


def untrained(folder, c):
  """A workdir of random weights, of which none is zero."""
  experiment, data = Experiment.of(c), open_data(c)
  state = filled(experiment.abstract(data, sharding.make_mesh()))
  save_first(str(folder), state, describe(c, data), c.checkpoint, print)
  return state


def test_a_prior_of_codes_is_exact(tmp_path, verb):
  c = config.load("configs/vqvae2_prior.py:debug").unlock()
  for level in ("top", "bottom"):
    c.model.model[level].net.update(width=16, blocks=1, res_blocks=1, hidden=4, cond_width=4)
  state = untrained(tmp_path / "w", c)
  words = "likelihood", f"--workdir={tmp_path / 'w'}", "--num=10"
  status, printed, _ = verb(*words, "--batch=4", f"--out={tmp_path / 'x.json'}")
  assert status == 0 and printed.count("bits/code") == 3 and "bits/dim" not in printed
  result = json.loads((tmp_path / "x.json").read_text())
  bits = result["bits_per_dim"]
  # By hand, in one batch: one code of the top level, and four of the bottom's.
  model = Experiment.of(c).model
  x, y = open_source("digits", split="test").arrays()

  @jax.jit
  def codes_and_logits(batch):
    z = model.codec.encode(codec_state(state), batch["x"])
    parts = {k: (level_state(state, k), of_level(batch | {"x": z}, k)) for k in z}
    return z, {k: model.model.at(k).logits(*part) for k, part in parts.items()}

  z, logits = codes_and_logits(core.on_device({"x": x[:10], "y": y[:10]}))
  for level in ("top", "bottom"):
    p = np.exp(np.asarray(logits[level], np.float64))
    p = np.take_along_axis(p / p.sum(-1, keepdims=True), np.asarray(z[level])[..., None], -1)
    assert bits[level] == pytest.approx(-np.log2(p).mean(), rel=1e-5)
  assert bits["total"] == pytest.approx((bits["top"] + 4 * bits["bottom"]) / 5, rel=1e-5)
  assert result["made"]["method"] == "exact" and result["made"]["split"] == "test"
  status, _, lines = verb(*words, "--method=bound")
  assert status == 2 and "a prior's likelihoods are exact: leave --method and --steps" in lines[-1]


def test_numbers_of_a_codec_have_no_likelihood_of_images(tmp_path, verb):
  untrained(tmp_path, config.load("configs/digits_latent.py:vae"))
  status, _, lines = verb("likelihood", f"--workdir={tmp_path}")
  assert status == 2 and "a Diffusion of latents knows no likelihoods of images" in lines[-1]


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
