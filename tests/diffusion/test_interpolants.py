"""SiT's losses, estimates and samplers give the published code's numbers."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, near
from ml_collections import ConfigDict

from jaxgen.core import State
from jaxgen.diffusion import conditioning, interpolants, times
from jaxgen.diffusion.process import GVP, VP, Flow
from jaxgen.diffusion.traits import traits
from jaxgen.errors import UserError
from jaxgen.keys import example_keys
from jaxgen.models import diffusion
from jaxgen.sampling import presets

pytestmark = pytest.mark.usefixtures("unoptimised")
CASE = np.load(GOLDEN / "sit.npz")
MANIFEST = json.loads(str(CASE["manifest"]))
RUNS = MANIFEST["runs"]
PATHS = {"Linear": Flow(), "GVP": GVP(), "VP": VP()}
FORMS = {"SBDM": "sbdm"}
LAST = {
  "Mean": interpolants.mean_step,
  "Euler": interpolants.euler_step,
  "Tweedie": interpolants.tweedie,
  None: interpolants.stay,
}
KEYS = example_keys(jax.random.key(0), 3)


def kind(name):
  return [run for run in RUNS if run.startswith(name)]


def toy(x, t):
  """What the case's model predicts; t is its time."""
  return 0.6 * jnp.tanh(x) * (1 + t) - 0.3 * x + 0.2 * t


class Toy(nn.Module):
  """The same as a net."""

  @nn.compact
  def __call__(self, x, c_noise, key=None):
    self.param("w", nn.initializers.zeros, ())
    return toy(x, c_noise.reshape(-1, 1, 1, 1))


def coefficients(run, process):
  """What the run's model predicts, as a function of Noise."""
  if run["prediction"] == "velocity":
    return functools.partial(interpolants.velocity, process=process)
  return {"score": interpolants.score, "noise": interpolants.eps}[run["prediction"]]


def denoiser(run, process):
  def denoise(x_t, t):
    c_skip, c_out, c_in, c_noise = coefficients(run, process)(t)
    return c_skip * x_t + c_out * toy(c_in * x_t, c_noise)

  return denoise


def draws(seed, shape):
  of = lambda k: np.random.Generator(np.random.PCG64([seed, k])).standard_normal(shape)
  return jnp.asarray(np.stack([of(k) for k in range(10)]), jnp.float32)


def taped(monkeypatch, noise):
  """Noise of a step by its number, from a tape."""
  monkeypatch.setattr("jaxgen.diffusion.samplers.fold", lambda key, i: i)
  monkeypatch.setattr(interpolants, "normal", lambda i, shape: noise[i])


@pytest.mark.parametrize("name", kind("loss"))
def test_losses(name):
  run = RUNS[name]
  process, eps = PATHS[run["path"]], run["train_eps"]
  # Their t from eps (or 0, of VP) to 1 - eps.
  start = 0 if run["path"] == "VP" else eps
  t = 1 - (start + CASE["u"] * (1 - eps - start))
  weighting = {
    "None": interpolants.even_weight,
    "velocity": functools.partial(interpolants.velocity_weight, process=process),
    "likelihood": functools.partial(interpolants.likelihood_weight, process=process),
  }[str(run["weight"])]
  losses = []
  model = diffusion.Diffusion(
    net=Toy(),
    process=process,
    precond=coefficients(run, process),
    draw_t=lambda key, ndim: jnp.float32(t).reshape(-1, 1, 1, 1),
    weighting=None if run["prediction"] == "velocity" else weighting,
    objective=lambda mse, vb: losses.append(mse) or mse,
    path=None,
    sampler=None,
    noise=lambda key, shape: jnp.asarray(CASE["x_0"]),
  )
  state = State(0, {"net": {"w": jnp.zeros(())}}, {"net": {}}, {}, {}, None)
  loss, _ = model.loss(state, {"x": jnp.asarray(CASE["x_1"])}, KEYS)
  near(losses[0], CASE[name], 2e-5)
  np.testing.assert_allclose(loss, CASE[name].mean(), rtol=2e-5)


@pytest.mark.parametrize("name", [n for n in kind("ode") if "dopri5" not in n])
def test_odes(name):
  run = RUNS[name]
  process, n = PATHS[run["path"]], run["num_steps"] - 1
  end = 1e-3 if run["path"] == "VP" else 0.0
  sampler = {"euler": interpolants.ode_euler, "heun2": interpolants.ode_heun}[run["method"]]
  path = process(times.even(process, jnp.arange(20), n, lo=end))
  x = jit(lambda n: sampler(denoiser(run, process), CASE["start"], path, n, KEYS, process, end))(n)
  near(x, CASE[name], 1e-4 if "heun" in name else 2e-5)


@pytest.mark.parametrize("name", kind("sde"))
def test_sdes(name, monkeypatch):
  run = RUNS[name]
  process, n, last = PATHS[run["path"]], run["num_steps"], LAST[run["last_step"]]
  noisy = run["path"] == "VP" or run["prediction"] == "velocity"
  lo = run["last_step_size"]
  if run["last_step"] is None:
    lo = 0.0 if run["prediction"] == "velocity" else 1e-3
  path = process(times.span(process, jnp.arange(20), n, hi=1.0 if noisy else 1 - 1e-3, lo=lo))
  taped(monkeypatch, draws(MANIFEST["tape_seeds"]["sde"], CASE["start"].shape))
  sampler = {"Euler": interpolants.sde_euler, "Heun": interpolants.sde_heun}[run["method"]]
  form = FORMS.get(run["diffusion_form"], run["diffusion_form"])
  w = getattr(interpolants, form)
  draw = lambda n: sampler(
    denoiser(run, process), CASE["start"], path, n, KEYS, process, w, last, run["diffusion_norm"]
  )
  near(jit(draw)(n), CASE[name], 5e-5)


@pytest.mark.parametrize("path", PATHS)
def test_scores_and_velocities_of_each_other(path):
  process, x, v = PATHS[path], CASE["x_0"], CASE["velocity"]
  t = process(1 - CASE["score_t"].reshape(-1, 1, 1, 1))
  c_skip, c_out, *_ = interpolants.velocity(t, process)
  e = interpolants.estimate(lambda x, t: c_skip * x + c_out * v, x, t, process)
  near(e.velocity, v, 1e-5)
  near(e.score, CASE[f"score_from_velocity_{path}"], 1e-5)
  c_skip, c_out, *_ = interpolants.score(t)
  e = interpolants.estimate(lambda x, t: c_skip * x + c_out * v, x, t, process)
  near(e.velocity, CASE[f"velocity_from_score_{path}"], 1e-5)


NAMES = ("ode_euler", "ode_heun", "sde_euler", "sde_heun")
SAMPLERS = [getattr(interpolants, name) for name in NAMES]


def gaussian(x_t, t):
  """E[x_0 | x_t] for x_0 ~ N(0, 1)."""
  return t.alpha * x_t / (t.alpha**2 + t.sigma**2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_evaluations_are_counted_and_the_network_is_in_the_program_once(sampler):
  calls, process = [], Flow()
  path = process(times.even(process, jnp.arange(6), 6))

  def denoise(x_t, t):
    jax.debug.callback(lambda: calls.append(1))
    return gaussian(x_t, t) + 0 * jax.lax.lgamma(1 + x_t**2)

  draw = lambda n: sampler(denoise, jnp.ones((3, 2)), path, n, KEYS, process)
  assert str(jax.make_jaxpr(draw)(4)).count("lgamma") == 1
  draw = jit(draw)
  for n in (1, 4):
    calls.clear()
    assert np.isfinite(draw(n)).all()
    jax.effects_barrier()
    assert len(calls) == traits(sampler).nfe(n)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_chains_that_stop_early_pass_x_t_on(sampler):
  # The chain's last point but two, and with logsnr infinite all of it.
  process, n, x_T = Flow(), 5, jnp.ones((3, 2))
  path = process(times.even(process, jnp.arange(n), n))

  def run(logsnr):
    D, longer, m = conditioning.stop_early(gaussian, path, n, logsnr)
    return sampler(D, x_T, longer, m, KEYS, process)

  run = jit(run)
  stopped, whole = run(path.logsnr[2]), run(jnp.float32(jnp.inf))
  if sampler is interpolants.ode_euler:
    x = x_T
    for t, s in zip(range(2), range(1, 3), strict=True):
      t, s = (jax.tree.map(lambda a, i=i: a[i], path) for i in (t, s))
      x0 = gaussian(x, t)
      x = x + (t.t - s.t) * (x0 - (x - t.alpha * x0) / t.sigma)
    np.testing.assert_allclose(stopped, x, rtol=1e-5)
  assert np.isfinite(stopped).all() and np.abs(stopped - whole).max() > 1e-2


def test_a_quarter_of_a_circle():
  t = jnp.linspace(0, 1, 11)
  noise = GVP()(t)
  np.testing.assert_allclose(noise.alpha**2 + noise.sigma**2, 1, rtol=1e-6)
  assert noise.alpha[-1] == 0 and noise.sigma[0] == 0
  np.testing.assert_allclose(GVP().inverse(noise.logsnr)[1:-1], t[1:-1], rtol=1e-5)
  slopes = interpolants.slopes(GVP(), t)
  quarter = np.pi / 2
  np.testing.assert_allclose(slopes[0], quarter * np.cos(quarter * (1 - t)), atol=1e-6)
  np.testing.assert_allclose(slopes[1], -quarter * np.cos(quarter * t), atol=1e-6)


def test_spans_have_both_ends():
  for n in (1, 2, 7, 250):
    t = times.span(None, jnp.arange(300), n, hi=1.0, lo=0.04)
    assert t[0] == 1 and (t[n - 1 :] == (np.float32(0.04) if n > 1 else 1)).all()
  np.testing.assert_allclose(np.diff(times.span(None, jnp.arange(5), 5, lo=0.0)), -0.25)
  np.testing.assert_allclose(times.even(None, jnp.arange(3), 3, lo=0.1), [1, 0.7, 0.4], rtol=1e-6)


def test_steps_in_time_want_a_process_in_continuous_time():
  spec = ConfigDict(dict(name="x", process=dict(name="diffusion.process.Linear"), sampler={}))
  with pytest.raises(UserError, match="ode_heun steps in continuous time, .* has 1000 steps"):
    presets.with_sampler(spec, "ode_heun")
  spec.process = dict(name="diffusion.process.Flow")
  assert presets.with_sampler(spec, "ode_heun").sampler.name == "diffusion.interpolants.ode_heun"
  assert presets.samplers_with("strength") == ["sde_euler", "sde_heun"]
