"""Processes and preconds against their definitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from jaxgen.diffusion import precond
from jaxgen.diffusion.process import DDPM, EDM, VE, VP, Cosine, Flow, Linear

DISCRETE = [DDPM(), DDPM(2000, 1e-6, 1e-2), Linear(4000), Cosine(), Cosine(50)]
CONTINUOUS = [VP(), VE(), EDM(), Flow()]
PROCESSES = DISCRETE + CONTINUOUS


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_noise_grows_and_inverts(process):
  with jax.enable_x64(True):
    t = np.linspace(1, 0, 777, endpoint=False)[::-1]
    if process in DISCRETE:  # off the grid too, but not below its first point
      t = t[t >= 1 / process.steps]
    noise = process(t)
    assert np.all(np.diff(noise.logsnr) < 0)
    inner = np.isfinite(noise.logsnr)
    back = process.inverse(noise.logsnr)
    np.testing.assert_allclose(back[inner], t[inner], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("process", DISCRETE, ids=repr)
def test_tables_are_the_chain(process):
  """x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) eps, variances added up."""
  signal, variance = 1.0, 0.0
  alphas, sigmas = [], []
  for beta in process.betas:
    signal *= np.sqrt(1 - beta)
    variance = (1 - beta) * variance + beta
    alphas.append(signal)
    sigmas.append(np.sqrt(variance))
  assert process.betas.dtype == np.float64
  # float32 times as they come: divided on the device.
  noise = jax.jit(lambda i: process(i / process.steps))(jnp.arange(1, process.steps + 1))
  assert noise.alpha.dtype == np.float32
  np.testing.assert_allclose(noise.alpha, alphas, rtol=2e-6)
  np.testing.assert_allclose(noise.sigma, sigmas, rtol=2e-6)


def test_known_betas():
  np.testing.assert_allclose(DDPM().betas[[0, -1]], [1e-4, 0.02])
  np.testing.assert_allclose(Linear().betas, DDPM().betas, rtol=1e-15)
  np.testing.assert_allclose(Linear(4000).betas[[0, -1]], [2.5e-5, 0.005])
  assert Cosine().betas.max() == 0.999
  # As much noise however many steps: that is why Linear scales.
  last = [p(1.0).logsnr for p in (Linear(1000), Linear(4000))]
  np.testing.assert_allclose(*last, atol=0.1)


def test_vp_is_its_sde():
  """alpha^2 = exp(-int beta), by quadrature."""
  beta = lambda t: 0.1 + t * (20 - 0.1)
  for t in (0.01, 0.3, 1.0):
    integral, _ = scipy.integrate.quad(beta, 0, t)
    np.testing.assert_allclose(VP()(t).alpha, np.exp(-integral / 2), rtol=1e-5)
    np.testing.assert_allclose(VP()(t).sigma, np.sqrt(1 - np.exp(-integral)), rtol=1e-5)


def test_ddpm_tends_to_vp():
  with jax.enable_x64(True):
    t = np.linspace(0.1, 1, 10)
    fine = DDPM(100_000, 0.1 / 100_000, 20 / 100_000)(t).alpha
    np.testing.assert_allclose(fine, VP()(t).alpha, rtol=2e-3)


@pytest.mark.parametrize(
  "name, process",
  [
    *itertools.product(["eps", "x0", "v", "vp", "flow"], PROCESSES),
    *itertools.product(["ve", "edm"], [VE(), EDM()]),  # alpha = 1
  ],
  ids=repr,
)
def test_target_is_what_the_net_should_say(name, process):
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    x, eps = rng.normal(size=(2, 5, 3))
    noise = process(np.array([0.02, 0.1, 0.5, 0.9, 0.999]).reshape(5, 1))
    x_t = noise.alpha * x + noise.sigma * eps
    c_skip, c_out, c_in, c_noise = getattr(precond, name)(noise)
    target = (x - c_skip * x_t) / c_out
    np.testing.assert_allclose(c_skip * x_t + c_out * target, x, atol=1e-9)
    said = {
      "eps": eps,
      "vp": eps,
      "ve": -eps,
      "x0": x,
      "v": noise.alpha * eps - noise.sigma * x,
      "flow": eps - x,
    }
    if name in said:
      np.testing.assert_allclose(target, said[name], atol=1e-7)
    assert np.all(np.diff(c_noise.ravel()) > 0)


def test_edm_is_unit_variance_in_and_out():
  """In closed form, for data of variance sigma_data^2 (Eqs. 114-117)."""
  with jax.enable_x64(True):
    sigma = np.geomspace(0.002, 80, 9)
    c_skip, c_out, c_in, _ = precond.edm(EDM()(sigma), sigma_data=0.7)
    np.testing.assert_allclose(c_in**2 * (0.49 + sigma**2), 1)
    # target = ((1 - c_skip) x - c_skip sigma eps) / c_out
    variance = (1 - c_skip) ** 2 * 0.49 + (c_skip * sigma) ** 2
    np.testing.assert_allclose(variance / c_out**2, 1)


def test_indices_are_adms():
  t = jnp.arange(1, 1001) / 1000
  for name in (precond.eps, precond.x0, precond.v):
    np.testing.assert_array_equal(name(DDPM()(t))[3], np.arange(1000))


def test_indices_are_rescaled():
  t = jnp.arange(1, 5) / 4000
  for name in (precond.eps, precond.x0, precond.v):
    c_noise = name(Linear(4000)(t), steps=4000, scale=1000 / 4000)[3]
    np.testing.assert_array_equal(c_noise, [0, 0.25, 0.5, 0.75])
