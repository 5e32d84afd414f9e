"""Bits per dimension against laws whose likelihood is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxgen.diffusion import likelihood, posterior, times
from jaxgen.diffusion.denoiser import Estimate
from jaxgen.diffusion.process import DDPM, EDM, VP, Flow, Linear

STD = 0.3
COV = np.array([[0.3, 0.1, 0.0], [0.1, 0.2, -0.1], [0.0, -0.1, 0.25]])


def keys(b, seed=0):
  return jax.random.split(jax.random.key(seed), b)


def variance(t, std=STD):
  """Of x_0, given x_t, where x_0 ~ N(0, std^2)."""
  return (std * t.sigma) ** 2 / (t.alpha**2 * std**2 + t.sigma**2)


def gaussian(x_t, t, std=STD):
  return t.alpha * std**2 / (t.alpha**2 * std**2 + t.sigma**2) * x_t


def correlated(x_t, t):
  """E[x_0 | x_t] for x_0 ~ N(0, COV), by Bayes' rule."""
  var, axes = np.linalg.eigh(COV)
  gain = t.alpha * var / (t.alpha**2 * var + t.sigma**2)
  return x_t @ (axes * gain) @ axes.T


@pytest.mark.parametrize("process", [EDM(), VP(), Flow(), DDPM()], ids=repr)
def test_ode_has_the_gaussians_density(process):
  x = scipy.stats.multivariate_normal(np.zeros(3), COV).rvs(20, random_state=0)
  x = jnp.array(x, jnp.float32)
  ode = functools.partial(likelihood.ode_bpd, correlated, x, process)
  bpd = jax.jit(lambda n: ode(keys(20), n, probes=0, width=0.0))(64)
  law = scipy.stats.multivariate_normal(np.zeros(3), COV)
  assert bpd.shape == (20,)
  # The chain begins at r = 0.01, which blurs the density.
  atol = 5e-3 if process == DDPM() else 1e-3
  np.testing.assert_allclose(bpd, -law.logpdf(x) / 3 / np.log(2), atol=atol)


WEIGHTS, MEANS, STDS = np.array([[0.3, 0.7], [-0.7, 0.3], [0.15, 0.3]])


def mixture(x_t, t):
  """E[x_0 | x_t] for a mixture of two Gaussians in every dimension."""
  var, x = t.alpha**2 * STDS**2 + t.sigma**2, x_t[..., None]
  log_w = jnp.log(WEIGHTS / jnp.sqrt(var)) - (x - t.alpha * MEANS) ** 2 / 2 / var
  means = MEANS + t.alpha * STDS**2 / var * (x - t.alpha * MEANS)
  return (jax.nn.softmax(log_w) * means).sum(-1)


def test_ode_converges_to_a_mixtures_density_with_order_four():
  with jax.enable_x64(True):
    x = jnp.linspace(-1, 1, 14).reshape(7, 2)
    ode = jax.jit(
      lambda n: likelihood.ode_bpd(
        mixture, x, VP(), keys(7), n, probes=0, width=0.0, lo=1e-4, hi=1e3
      )
    )
    p = (WEIGHTS * scipy.stats.norm.pdf(x[..., None], MEANS, STDS)).sum(-1)
    want, n = -np.log2(p).mean(1), np.array([128, 256, 512])
    fine = ode(2048)
    np.testing.assert_allclose(fine, want, atol=1e-5)
    errors = [np.abs(ode(m) - fine).max() for m in n]
    slope, _ = np.polyfit(np.log(n), np.log(errors), 1)
    assert 3.7 < -slope < 4.3


def test_probes_estimate_the_trace_without_bias():
  b = 2000
  x = jnp.broadcast_to(jnp.array([0.4, -0.3, 0.2]), (b, 3))

  @functools.partial(jax.jit, static_argnums=1)
  def run(key, probes):
    return likelihood.ode_bpd(correlated, x, EDM(), key, 16, probes=probes, width=0.0)

  exact, spread = run(keys(b), 0)[0], []
  for probes in (1, 4):
    got = run(keys(b), probes)
    # One's own probes, wherever in the batch.
    np.testing.assert_array_equal(run(keys(b)[::-1], probes), got[::-1])
    got = np.asarray(got, float)
    spread.append(got.std())
    assert abs(got.mean() - exact) < 4 * got.std() / b**0.5
  assert spread[0] > 0.01  # COV is not diagonal
  np.testing.assert_allclose(spread[1], spread[0] / 2, rtol=0.1)


@functools.cache
def bytes_of_a_gaussian(b=64, d=64):
  """x_0 = byte / 127.5 - 1 of rounded normal draws; -log2 p(bytes) of each."""
  x = np.random.default_rng(0).normal(size=(b, d)) * STD
  byte = np.clip(np.round((x + 1) * 127.5), 0, 255).astype(int)
  edges = (np.arange(257) - 0.5) / 127.5 - 1
  edges[[0, -1]] = -np.inf, np.inf
  p = np.diff(scipy.stats.norm.cdf(edges, 0, STD))
  return jnp.array(byte / 127.5 - 1, jnp.float32), -np.log2(p[byte]).mean(1)


def test_ode_of_bytes():
  x_0, want = bytes_of_a_gaussian()
  bpd = jax.jit(
    lambda key: likelihood.ode_bpd(gaussian, x_0, VP(), key)  # as by default
  )(keys(64))
  gap = np.asarray(bpd - want, float)
  # Above, by what the noise within a byte's bin costs: about 1e-5 here.
  assert abs(gap.mean()) < 4 * gap.std() / 8 < 0.01


def exact_fraction(path):
  """A denoiser that knows the reverse chain's variance, too."""
  links = posterior.links(path)
  t, s = links.t, links.s
  share = -jnp.expm1(t.logsnr - s.logsnr)
  true = s.sigma**2 * share + (s.alpha * share) ** 2 * variance(t)
  fracs = (jnp.log(true) - links.small) / (links.large - links.small)

  def denoise(x_t, t):
    frac = fracs[jnp.argmin(jnp.abs(path.t - t.t))]
    return Estimate(gaussian(x_t, t), jnp.full_like(x_t, frac))

  return denoise


def bound_gap(process, T, learned):
  x_0, want = bytes_of_a_gaussian()
  path = process(times.spaced(process, jnp.arange(T), T))
  denoise = exact_fraction(path) if learned else gaussian
  run = jax.jit(lambda key: likelihood.bound_bpd(denoise, x_0, path, key))
  bound = jax.tree.map(np.asarray, run(keys(64)))
  return bound, bound["total"] - want, path


def test_bound_is_above_the_truth_and_tends_to_it():
  """With a fixed variance, from few steps to many."""
  few, many = (bound_gap(Linear(), T, False)[1] for T in (5, 100))
  assert few.mean() > 0.5
  assert -3 * many.std() / 8 < many.mean() < 0.1


@pytest.mark.parametrize("T", [3, 50])
def test_bound_is_tight_where_the_variance_is_the_chains(T):
  """Of a Gaussian the reverse chain is normal, however long its steps are."""
  bound, gap, path = bound_gap(Linear(), T, True)
  assert abs(gap.mean()) < 4 * gap.std() / 8 < 0.1
  assert bound["vb"].shape == bound["mse"].shape == (64, T)
  parts = bound["prior"] + bound["vb"].sum(1)
  np.testing.assert_allclose(bound["total"], parts, rtol=1e-5)
  # The errors are those of the best estimates of x_0 and eps.
  want = np.asarray(variance(path))
  np.testing.assert_allclose(bound["xstart_mse"].mean(0), want, rtol=0.1)
  want = want * np.asarray((path.alpha / path.sigma) ** 2)
  np.testing.assert_allclose(bound["mse"].mean(0), want, rtol=0.1)


def test_an_examples_bound_is_its_own():
  x_0, _ = bytes_of_a_gaussian()
  path = Linear()(times.ddim(Linear(), jnp.arange(10), 10))
  run = jax.jit(lambda x, key: likelihood.bound_bpd(gaussian, x, path, key))
  ours, turned = run(x_0, keys(64)), run(x_0[::-1], keys(64)[::-1])
  for name, value in turned.items():
    np.testing.assert_allclose(value[::-1], ours[name], rtol=1e-5, atol=1e-6)
  assert len(set(np.ravel(ours["vb"]))) > 600  # draws of their own


def test_the_network_is_in_the_programs_once():
  net = lambda x, t: x + 0 * jax.lax.lgamma(x)
  path = EDM()(times.karras(EDM(), jnp.arange(9), 9))
  for bpd in (
    lambda x, n: likelihood.ode_bpd(net, x, EDM(), keys(1), n, probes=2),
    lambda x, n: likelihood.bound_bpd(net, x, path, keys(1)),
  ):
    program = str(jax.make_jaxpr(bpd)(jnp.ones((1, 2)), 9))
    assert program.count("lgamma") == 1
