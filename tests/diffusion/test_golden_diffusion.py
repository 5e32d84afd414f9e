"""The equations give openai/guided-diffusion's own numbers."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import guidance, posterior, precond, samplers, times
from jaxgen.diffusion.denoiser import Estimate, mean, with_x_0
from jaxgen.diffusion.process import Cosine, Linear, Noise
from jaxgen.keys import fold, normal

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASES = {
  "linear_learned": (Linear(), times.even, 1000),
  "cosine_250": (Cosine(), times.spaced, 250),
  "linear_fixed_ddim25": (Linear(), times.ddim, 25),
}


class Case:
  """A golden file beside our levels t, s (less noise) and up (more noise)."""

  def __init__(self, name):
    process, path, n = CASES[name]
    self.golden = np.load(GOLDEN / f"adm_diffusion_{name}.npz")
    self.process, self.n = process, n
    self.path = process(path(process, jnp.arange(n), n))
    self.x_0, self.eps = self["x_start"], self["noise"]
    rows = n - 1 - self["t"]  # ADM counts from the clean end
    level = lambda a, end, i: jnp.append(a, end)[i].reshape(-1, 1, 1, 1)
    at = lambda i, end: jax.tree.map(lambda a, e: level(a, e, i), self.path, end)
    self.t = at(rows, posterior.CLEAN)
    self.s = at(rows + 1, posterior.CLEAN)
    self.up = at(np.where(rows > 0, rows - 1, n), Noise(2.0, 0.0, 1.0))
    self.rows = rows

  def __getitem__(self, key):
    return self.golden[key]

  @property
  def x_t(self):
    return self.t.alpha * self.x_0 + self.t.sigma * self.eps

  def denoise(self, x_t, t):
    c_skip, c_out, c_in, _ = precond.eps(t)
    assert c_in == 1
    F, v = np.split(self["model_output"], [3], axis=1)
    x_0 = c_skip * x_t + c_out * F
    learned = v.shape[1] == 3  # "learned range", else "fixed large"
    return Estimate(x_0, (v + 1) / 2) if learned else x_0

  @property
  def link(self):
    links = posterior.links(self.path)
    return jax.tree.map(lambda a: a[self.rows].reshape(-1, 1, 1, 1), links)


@pytest.fixture(params=CASES)
def case(request):
  return Case(request.param)


def close(ours, theirs, rtol=1e-5):
  """Within 1e-5, of the values or, where they cancel, of their inputs."""
  theirs = np.asarray(theirs)
  np.testing.assert_allclose(np.broadcast_to(ours, theirs.shape), theirs, rtol=rtol, atol=rtol)


def test_betas_to_float64(case):
  with jax.enable_x64(True):
    process, path, n = CASES[next(k for k, v in CASES.items() if v[0] is case.process)]
    alpha = process(path(process, jnp.arange(n), n)).alpha[::-1]
    kept = np.append(1.0, alpha**2)
    np.testing.assert_allclose(1 - kept[1:] / kept[:-1], case["betas"], rtol=1e-9, atol=1e-12)


def test_timesteps(case):
  index = precond.eps(case.path)[3][::-1]
  np.testing.assert_array_equal(index, case["kept_timesteps"])
  np.testing.assert_array_equal(index[case["t"]], case["timesteps_seen_by_model"])


def test_q_sample(case):
  close(case.x_t, case["x_t"])


def test_posterior(case):
  mean, variance = posterior.posterior(case["x_t"], case.x_0, case.t, case.s)
  close(mean, case["posterior_mean"])
  close(variance.ravel(), case["posterior_variance"])
  small = posterior.log_variances(case.path)[0][case.rows]
  close(small, case["posterior_log_variance"])


@pytest.mark.parametrize("clip", ["clip", "noclip"])
def test_p_mean_variance(case, clip):
  denoise = case.denoise
  if clip == "clip":
    denoise = guidance.clip(denoise)
  D = denoise(case["x_t"], case.t)
  mu, _ = posterior.posterior(case["x_t"], mean(D), case.t, case.s)
  close(mean(D), case[f"p_pred_xstart_{clip}"])
  close(mu, case[f"p_mean_{clip}"])
  log_var = posterior.log_variance(D, case.link, frac=1.0)
  close(log_var, case[f"p_log_variance_{clip}"])


def test_mse(case):
  c_skip, c_out, _, _ = precond.eps(case.t)
  target = (case.x_0 - c_skip * case["x_t"]) / c_out
  error = (target - case["model_output"][:, :3]) ** 2
  close(error.mean((1, 2, 3)), case["loss_mse"])


def test_bound(case):
  D = case.denoise(case["x_t"], case.t)
  ours = posterior.vb_terms(case.x_0, case["x_t"], D, case.link)
  close(ours, case["vb_bpd"], 3e-5)


def test_links_of_drawn_times_are_those_of_the_whole_path():
  for process in (Linear(), Cosine(), Cosine(50)):
    path = process(times.even(process, jnp.arange(process.steps), process.steps))
    whole, drawn = posterior.links(path), posterior.link(process, path)
    for ours, want in zip(jax.tree.leaves(drawn), jax.tree.leaves(whole), strict=True):
      np.testing.assert_allclose(ours, want, rtol=1e-6, atol=1e-6)


def test_a_chain_of_one_link():
  link = posterior.links(Linear()(jnp.array([0.5])))
  assert link.small == link.large == 2 * jnp.log(link.t.sigma)


def test_prior(case):
  T = jax.tree.map(lambda a: a[0], case.path)
  ours = posterior.prior_bpd(case.x_0, T)
  # The reference's own error: float32 differences of terms near 1.
  np.testing.assert_allclose(ours, case["prior_bpd"], rtol=5e-4)


def one_step(case, sampler, to, **knobs):
  """One step of a sampler from the golden's levels to `to`, no denoising."""
  denoise = guidance.clip(case.denoise)

  def stop(x, t):
    D = denoise(x, t)
    return with_x_0(D, jnp.where(t.t == case.t.t, mean(D), x))

  path = jax.tree.map(lambda a, b: jnp.stack([a, b]), case.t, to)
  keys = jax.random.split(jax.random.key(0), 4)
  return sampler(stop, case["x_t"], path, 2, keys, **knobs), keys


def test_ddim(case):
  close(one_step(case, samplers.euler, case.s)[0], case["ddim_sample_eta0"])


def test_ancestral_without_noise_is_ddim(case):
  ours, _ = one_step(case, samplers.ancestral, case.s, eta=0.0)
  # From the second index: the chain's last step is denoising.
  close(ours[1:], case["ddim_sample_eta0"][1:])


def test_ddim_reverse(case):
  path = jax.tree.map(lambda a, b: jnp.stack([a, b]), case.up, case.t)
  denoise = guidance.clip(case.denoise)
  keys = jax.random.split(jax.random.key(0), 4)
  ours = samplers.encode(denoise, case["x_t"], path, 2, keys)
  close(ours, case["ddim_reverse"])


def test_ancestral_is_the_chain_with_its_guided_mean(case):
  gradient = lambda x_t, t: case["classifier_gradient"]
  ours, keys = one_step(case, samplers.ancestral, case.s, frac=1.0, gradient=gradient)
  z = normal(fold(keys, 0), (3, 8, 8))
  std = np.exp(case["p_log_variance_clip"] / 2)
  close(ours[1:], (case["guided_mean"] + std * z)[1:])


def test_classifier_guidance(case):
  manifest = json.loads(str(case["manifest"]))
  assert manifest["source"].startswith("openai/guided-diffusion")
  gradient = lambda x_t, t: case["classifier_gradient"]
  denoise = guidance.clip(case.denoise)
  ours = mean(guidance.classifier(denoise, gradient, 1.0)(case["x_t"], case.t))
  # The reference goes by eps and back, with errors of the scale sigma / alpha.
  scale = 1 + case.t.sigma / case.t.alpha
  close(ours / scale, case["guided_ddim_pred_xstart"] / scale, 1e-6)
