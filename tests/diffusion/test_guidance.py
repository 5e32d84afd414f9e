"""Guidance and posterior are Bayes' rule; guidance costs what it must."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from jaxgen.diffusion import guidance, objective, posterior
from jaxgen.diffusion.denoiser import Estimate
from jaxgen.diffusion.process import DDPM, EDM, VE, VP, Flow


def gaussian(x_t, t, mean=0.4, std=0.6):
  """E[x_0 | x_t] for x_0 ~ N(mean, std^2), by Bayes' rule."""
  gain = t.alpha * std**2 / (t.alpha**2 * std**2 + t.sigma**2)
  return mean + gain * (x_t - t.alpha * mean)


@pytest.mark.parametrize("process", [DDPM(), VP(), EDM(), Flow()], ids=repr)
def test_classifier_guidance_is_bayes_rule(process):
  """p(x_0 | y) from p(x_0) and d log p(y | x_t), with y = x_0 + noise."""
  with jax.enable_x64(True):
    x_t, t, y, noise = np.linspace(-2, 2, 7), process(0.4), 1.3, 0.5

    def log_prob(x):  # of y given x_t: a Gaussian about E[x_0 | x_t]
      left = 0.36 * t.sigma**2 / (t.alpha**2 * 0.36 + t.sigma**2)
      return jax.scipy.stats.norm.logpdf(y, gaussian(x, t), jnp.sqrt(left + noise**2))

    gradient = lambda x, t: jax.vmap(jax.grad(log_prob))(x)
    guided = guidance.classifier(gaussian, gradient, 1.0)(jnp.array(x_t), t)
    precision = 1 / 0.36 + 1 / noise**2
    mean = (0.4 / 0.36 + y / noise**2) / precision
    want = gaussian(x_t, t, mean, precision**-0.5)
    np.testing.assert_allclose(guided, want, rtol=1e-9)


def counted(calls, name, value):
  """A denoiser that says at run time that it was asked."""

  def denoise(x_t, t):
    jax.debug.callback(lambda: calls.append(name))
    return value + 0 * x_t

  return denoise


def test_guidance_of_weight_one_costs_one_evaluation():
  calls, traces = [], itertools.count()

  @jax.jit
  def ask(w):
    next(traces)
    cond, uncond = counted(calls, "cond", 2.0), counted(calls, "uncond", 1.0)
    guided = guidance.classifier_free(cond, uncond, w)
    return guided(jnp.zeros(3), EDM()(1.0))

  for w, asked in ((1.0, ["cond"]), (3.0, ["cond", "uncond"]), (0.0, None)):
    calls.clear()
    np.testing.assert_allclose(ask(w), 1 + w)
    jax.effects_barrier()
    assert asked is None or sorted(calls) == asked
  assert next(traces) == 1


def test_autoguidance_moves_away_from_the_bad():
  good, bad = (lambda x, t: x + 1), (lambda x, t: x - 1)
  D = guidance.autoguidance(good, bad, 1.5)(jnp.zeros(2), EDM()(1.0))
  np.testing.assert_allclose(D, 2.0)


def test_guidance_within_an_interval_costs_nothing_outside():
  """All scales traced; the bounds are those of lo < sigma <= hi."""
  calls, traces = [], itertools.count()
  cond, uncond = counted(calls, "cond", 2.0), counted(calls, "uncond", 1.0)

  @jax.jit
  def ask(sigma, w, lo, hi):
    next(traces)
    weight = guidance.within(w, lo, hi)
    return guidance.classifier_free(cond, uncond, weight)(jnp.zeros(3), EDM()(sigma))

  levels = [(sigma, 3.0, 0.5, 2.0) for sigma in (0.5, 0.51, 1.0, 2.0, 2.1, 3.0)]
  for sigma, w, lo, hi in (*levels, (1.0, 1.0, 0.5, 2.0), (50.0, 4.0, 0.0, np.inf)):
    guided = w != 1 and lo < sigma <= hi
    calls.clear()
    np.testing.assert_allclose(ask(sigma, w, lo, hi), 1 + w if guided else 2.0)
    jax.effects_barrier()
    assert sorted(calls) == ["cond", "uncond"][: 1 + guided]
  assert next(traces) == 1


def test_clip():
  D = guidance.clip(lambda x, t: 3 * x, -1, 0.5)
  np.testing.assert_allclose(D(jnp.array([-1.0, 0.1, 1.0]), None), [-1, 0.3, 0.5], rtol=1e-6)


@pytest.mark.parametrize("process", [DDPM(), VP(), VE(), EDM(), Flow()], ids=repr)
def test_posterior_is_bayes_rule(process):
  """N(x_s; a_s x_0, .) times N(x_t; a x_s, .), conditioned as matrices are."""
  with jax.enable_x64(True):
    s, t = process(0.3), process(0.7)
    a = t.alpha / s.alpha
    cov_ts = a * s.sigma**2
    for x_0, x_t in ((0.3, -1.0), (-1.2, 2.0)):
      gain = cov_ts / t.sigma**2
      mean = s.alpha * x_0 + gain * (x_t - t.alpha * x_0)
      variance = s.sigma**2 - gain * cov_ts
      ours = posterior.posterior(x_t, x_0, t, s)
      np.testing.assert_allclose(ours, (mean, variance), rtol=1e-9)


def test_byte_probabilities():
  """They add up to 1 and are those of the normal law, to its approximation."""
  x = np.arange(256) / 127.5 - 1
  for mean, std in ((0.1, 0.2), (-0.99, 0.05), (0.5, 2.0)):
    p = np.exp(-posterior.byte_nll(x, mean, 2 * np.log(std)))
    edges = np.append(np.append(-np.inf, x[:-1] + 1 / 255), np.inf)
    want = np.diff(scipy.stats.norm.cdf(edges, mean, std))
    np.testing.assert_allclose(p.sum(), 1, atol=1e-5)
    np.testing.assert_allclose(p, want, atol=4e-4)


def test_normal_kl_by_quadrature():
  p, q = scipy.stats.norm(0.3, 0.8), scipy.stats.norm(-0.2, 1.5)
  f = lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x))
  want, _ = scipy.integrate.quad(f, -10, 10)
  ours = posterior.normal_kl(0.3, 2 * np.log(0.8), -0.2, 2 * np.log(1.5))
  np.testing.assert_allclose(ours, want, rtol=1e-5)


def test_guidance_moves_x_0_and_keeps_the_first_fraction():
  first = lambda x, t: Estimate(x, jnp.full_like(x, 0.3))
  other = lambda x, t: Estimate(0 * x, jnp.full_like(x, 0.9))
  nothing = lambda x, t: 0 * x
  x, t = jnp.array([-2.0, 1.0]), EDM()(1.0)
  for w in (1.0, 3.0):
    for null in (other, nothing):
      guided = guidance.classifier_free(first, null, w)
      D = jax.jit(guided)(x, t)
      np.testing.assert_allclose(D, (w * x, [0.3, 0.3]), rtol=1e-6)
  D = guidance.clip(guidance.classifier(first, lambda x, t: x, 0.5))(x, t)
  np.testing.assert_allclose(D, ([-1, 1], [0.3, 0.3]), rtol=1e-6)


def test_objectives():
  mse, asked = jnp.array([1.0, 2.0]), []

  def vb(stop):
    asked.append(stop)
    return jnp.array([0.5, 3.0])

  np.testing.assert_array_equal(objective.simple(mse, vb), mse)
  np.testing.assert_array_equal(objective.hybrid(mse, vb, 4.0), [3, 14])
  np.testing.assert_array_equal(objective.bound(mse, vb, 10.0), [5, 30])
  assert asked == [True, False]
