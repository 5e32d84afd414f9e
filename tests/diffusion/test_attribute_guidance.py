"""Guidance by attributes: exact where data are Gaussian and predictors linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import samplers, times
from jaxgen.diffusion.attribute_guidance import solved, towards
from jaxgen.diffusion.denoiser import Estimate, mean
from jaxgen.diffusion.process import EDM, Flow
from jaxgen.keys import example_keys

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(4, 4)) / 2
CENTRE, COVARIANCE = RNG.normal(size=4), ROOT @ ROOT.T
A, TARGET = RNG.normal(size=(2, 4)), np.array([0.4, -0.7])
TOLERANCE = np.array([0.1, 0.4])


def denoiser(centre, covariance):
  """E [x_0 | x_t] of a Gaussian."""

  def D(x_t, t):
    gain = t.alpha * covariance
    noise = t.alpha**2 * covariance + t.sigma**2 * jnp.eye(4)
    return centre + (x_t - t.alpha * centre) @ jnp.linalg.solve(noise, gain)

  return D


def posterior():
  """Mean and covariance given A x = TARGET, but for the tolerance."""
  gain = COVARIANCE @ A.T @ np.linalg.inv(A @ COVARIANCE @ A.T + np.diag(TOLERANCE**2))
  return CENTRE + gain @ (TARGET - A @ CENTRE), COVARIANCE - gain @ A @ COVARIANCE


PLAIN = denoiser(CENTRE, COVARIANCE)
GUIDED = towards(PLAIN, lambda x: x @ A.T, jnp.asarray(TARGET), TOLERANCE)


@pytest.mark.parametrize("process", [EDM(), Flow()])
def test_it_is_the_posteriors_own_denoiser(process):
  exact = denoiser(*posterior())
  for level in (0.05, 0.4, 0.9):
    t = process(jnp.float32(level))
    x_t = jnp.float32(RNG.normal(size=(5, 4)))
    np.testing.assert_allclose(GUIDED(x_t, t), exact(x_t, t), rtol=2e-4, atol=2e-4)


def test_samples_have_the_posteriors_mean_and_covariance():
  n = 4000
  process = EDM()
  path = process(times.karras(process, jnp.arange(61), 60))

  @jax.jit
  def draw(keys):
    x_T = samplers.initial(path, keys, (4,))
    return samplers.heun(GUIDED, x_T, path, 60, keys)

  x = np.asarray(draw(example_keys(jax.random.key(0), n)))
  centre, covariance = posterior()
  np.testing.assert_allclose(x.mean(0), centre, atol=0.04)
  np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.04)
  assert np.abs(CENTRE - centre).max() > 0.3  # else nothing was shown


def test_no_strength_and_no_signal_change_nothing():
  t = EDM()(jnp.float32(0.5))
  x_t = jnp.float32(RNG.normal(size=(3, 4)))
  still = towards(PLAIN, lambda x: x @ A.T, jnp.asarray(TARGET), 0.1, 0.0)
  np.testing.assert_array_equal(still(x_t, t), PLAIN(x_t, t))
  end = Flow()(jnp.float32(1.0))
  assert float(end.alpha) == 0
  np.testing.assert_allclose(GUIDED(x_t, end), PLAIN(x_t, end), atol=1e-6)


def test_a_learned_variance_stays():
  learned = lambda x, t: Estimate(PLAIN(x, t), 0.3 * x)
  D = towards(learned, lambda x: x @ A.T, jnp.asarray(TARGET), TOLERANCE)
  t, x_t = EDM()(jnp.float32(0.5)), jnp.float32(RNG.normal(size=(3, 4)))
  np.testing.assert_array_equal(D(x_t, t).frac, 0.3 * x_t)
  np.testing.assert_allclose(mean(D(x_t, t)), GUIDED(x_t, t), rtol=1e-5, atol=1e-6)


def test_what_is_no_covariance_is_left_out():
  """A net that is no denoiser can be asked for no more than 1 / tolerance^2."""
  wild = jnp.array([[[-50.0, 3.0], [9.0, 1.0]]])
  gain = solved(wild, jnp.array([0.5, 0.1]), jnp.array([[1.0, 1.0]]))
  assert np.abs(gain * jnp.array([0.25, 0.01])).max() < 10 and np.isfinite(gain).all()
  sound = jnp.array([[[2.0, 0.5], [0.5, 1.0]]])
  want = np.linalg.solve(np.array(sound[0]) + np.diag([0.25, 0.01]), [1.0, 1.0])
  np.testing.assert_allclose(solved(sound, jnp.array([0.5, 0.1]), jnp.ones((1, 2)))[0], want, 1e-4)
