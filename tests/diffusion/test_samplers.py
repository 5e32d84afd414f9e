"""Samplers: orders, moments, published algorithms, and what they promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import samplers, times, unipc
from jaxgen.diffusion.denoiser import Estimate
from jaxgen.diffusion.process import DDPM, EDM, VE, VP, Flow
from jaxgen.keys import fold, normal

MEAN, STD = 0.4, 0.6
ALL = [
  samplers.ancestral,
  samplers.euler,
  samplers.heun,
  samplers.dpmpp_2m,
  samplers.dpmpp_2m_sde,
  unipc.unipc,
  samplers.pc,
]


def gaussian(x_t, t):
  """E[x_0 | x_t] for x_0 ~ N(MEAN, STD^2), by Bayes' rule."""
  gain = t.alpha * STD**2 / (t.alpha**2 * STD**2 + t.sigma**2)
  return MEAN + gain * (x_t - t.alpha * MEAN)


def exact(x_t, t, s):
  """The probability-flow ODE's solution: quantiles stay what they are."""
  std = lambda u: jnp.sqrt(u.alpha**2 * STD**2 + u.sigma**2)
  return s.alpha * MEAN + std(s) / std(t) * (x_t - t.alpha * MEAN)


def keys(b, seed=0):
  return jax.random.split(jax.random.key(seed), b)


def levels(process, path, longest, n=None, **kw):
  n = longest if n is None else n
  return process(path(process, jnp.arange(longest), n, **kw))


def at(path, i):
  return jax.tree.map(lambda a: a[i], path)


PLACES = [
  (EDM(), times.karras),
  (VE(), times.karras),
  (VP(), times.karras),
  (Flow(), times.karras),
  (Flow(), times.even),  # from alpha = 0
  (VP(), times.even),
]
ORDERS = [
  (samplers.euler, 1, PLACES),
  (functools.partial(samplers.ancestral, eta=0.0), 1, PLACES),
  (samplers.heun, 2, PLACES),
  # Its steps are in log(alpha / sigma), where an even path's do not shrink.
  (samplers.dpmpp_2m, 2, PLACES[:4]),
]


@pytest.mark.parametrize(
  "sampler, order, process, path", [(s, o, *place) for s, o, places in ORDERS for place in places]
)
def test_order_of_convergence(sampler, order, process, path):
  """Errors of the walk over five quantiles fall as n^-order."""

  @jax.jit
  def error(n):
    points = levels(process, path, 256, n)
    T, last = at(points, 0), at(points, n - 1)
    x_T = T.sigma * jnp.linspace(-2, 2, 5)[:, None]
    x_0 = sampler(gaussian, x_T, points, n, keys(5))
    return jnp.abs(x_0 - gaussian(exact(x_T, T, last), last)).max()

  with jax.enable_x64(True):
    n = np.array([32, 64, 128, 256])
    slope, _ = np.polyfit(np.log(n), np.log([error(m) for m in n]), 1)
    assert order - 0.15 < -slope < order + 0.15


@pytest.mark.parametrize("process", [EDM(), VP(), Flow()], ids=repr)
@pytest.mark.parametrize(
  "sampler, knobs",
  [
    (samplers.ancestral, dict(eta=1.0)),
    (samplers.ancestral, dict(eta=0.5)),
    (samplers.ancestral, dict(eta=1.0, frac=1.0)),
    (samplers.heun, dict(churn=40.0)),
    (samplers.heun, dict(churn=40.0, s_min=0.1, s_max=2.0)),
  ],
)
def test_stochastic_samplers_have_the_datas_law(sampler, knobs, process):
  if sampler is samplers.heun:
    knobs = knobs | dict(process=process)
  n, b = 150, 6000

  @jax.jit
  def sample(key):
    points = levels(process, times.karras, n, lo=0.01)
    x_T = samplers.initial(points, key[:b], (2,))
    return sampler(gaussian, x_T, points, n, key[b:], **knobs)

  x = np.asarray(sample(keys(2 * b)), float)
  # 2 b draws: a standard error of 0.0055 of the mean, 0.0039 of the deviation;
  # larger variances than the posterior's are off by 1 / n.
  assert abs(x.mean() - MEAN) < 0.02
  assert abs(x.std() - STD) < (0.03 if "frac" in knobs else 0.018)
  correlation = np.corrcoef(x.T)[0, 1]  # of one example's two draws
  assert abs(correlation) < 0.05


def test_ancestral_is_ho_et_als_posterior_at_every_step():
  """Alg. 2 with Eqs. 6 and 7 written out, all 999 steps that add noise."""
  with jax.enable_x64(True):
    process, rng = DDPM(), np.random.default_rng(0)
    x_t, x_0 = rng.normal(size=(2, 999, 1))
    beta = np.linspace(1e-4, 0.02, 1000)
    abar = np.cumprod(1 - beta)
    beta, old, abar = beta[1:], abar[:-1], abar[1:]
    tilde = (1 - old) / (1 - abar) * beta
    mean = (
      np.sqrt(old) * beta / (1 - abar) * x_0[:, 0]
      + np.sqrt(1 - beta) * (1 - old) / (1 - abar) * x_t[:, 0]
    )
    i = jnp.arange(2, 1001)
    path = process(jnp.stack([i, i - 1])[..., None] / 1000)
    t = path.t[0]
    denoise = lambda x, u: jnp.where(u.t == t, x_0, x)
    for frac, variance in ((0.0, tilde), (1.0, beta)):
      ours = samplers.ancestral(denoise, x_t, path, 2, keys(999), frac=frac)
      z = normal(fold(keys(999), 0), (1,))[:, 0]
      want = mean + np.sqrt(variance) * z
      np.testing.assert_allclose(ours[:, 0], want, rtol=1e-10, atol=1e-12)


def karras_algorithm_2(D, x, steps, S_churn, S_min, S_max, S_noise, draws):
  """Algorithm 2 of Karras et al. 2022, line by line; t_N = 0 is its last."""
  N = len(steps)
  t = np.append(steps, 0.0)
  for i in range(N):
    gamma = 0.0
    if S_min <= t[i] <= S_max:
      gamma = min(S_churn / N, np.sqrt(2) - 1)
    t_hat = t[i] + gamma * t[i]
    x_hat = x + np.sqrt(t_hat**2 - t[i] ** 2) * S_noise * draws[i]
    d = (x_hat - D(x_hat, t_hat)) / t_hat
    x = x_hat + (t[i + 1] - t_hat) * d
    if t[i + 1] != 0:
      d_prime = (x - D(x, t[i + 1])) / t[i + 1]
      x = x_hat + (t[i + 1] - t_hat) * (d / 2 + d_prime / 2)
  return x


@pytest.mark.parametrize("churn", [(0.0, 0.0, np.inf, 1.0), (9.0, 0.05, 50.0, 1.003)], ids=repr)
def test_heun_is_edms_algorithm(churn):
  with jax.enable_x64(True):
    n, key = 18, keys(4)
    path = levels(EDM(), times.karras, n)
    x_T = samplers.initial(path, keys(4, seed=1), (3,))
    D = lambda x, sigma: np.tanh(x / (1 + sigma)) + 0.1 * x / (1 + sigma**2)
    D_jax = lambda x, t: jnp.tanh(x / (1 + t.sigma)) + 0.1 * x / (1 + t.sigma**2)
    draws = [normal(fold(key, i), (3,)) for i in range(n)]
    # The last point is clean of churn: both settings end below S_min.
    want = karras_algorithm_2(D, np.asarray(x_T), np.asarray(path.sigma), *churn, np.asarray(draws))
    ours = samplers.heun(D_jax, x_T, path, n, key, *churn)
    np.testing.assert_allclose(ours, want, rtol=1e-9, atol=1e-10)


def test_euler_is_ddim_and_the_velocity():
  with jax.enable_x64(True):
    D = lambda x, t: jnp.tanh(x) * t.alpha
    x_T, n = jnp.linspace(-2, 2, 7)[:, None], 10
    path = levels(Flow(), times.even, n)
    ours = samplers.euler(D, x_T, path, n, keys(7))
    ddim = samplers.ancestral(D, x_T, path, n, keys(7), eta=0.0)
    np.testing.assert_allclose(ours, ddim, rtol=1e-12)
    x = np.asarray(x_T)
    for k in range(n, 0, -1):  # dx / dt = (x - x_0) / t, to t = 0
      t = k / n
      x = x - 1 / n * (x - np.tanh(x) * (1 - t)) / t
    np.testing.assert_allclose(ours, x, rtol=1e-9)


def test_encode_undoes_euler():
  with jax.enable_x64(True):
    errors = []
    for n in (100, 200):
      path = levels(VP(), times.even, n)
      last = at(path, n - 1)
      x_1 = jnp.linspace(-1, 1, 5)[:, None]
      x_T = samplers.encode(gaussian, x_1, path, n, keys(5))
      assert jnp.abs(x_T - exact(x_1, last, at(path, 0))).max() < 8 / n
      back = samplers.euler(gaussian, x_T, path, n, keys(5))
      errors.append(jnp.abs(back - gaussian(x_1, last)).max())
    assert errors[0] < 0.1 and errors[1] < 0.6 * errors[0]


@jax.jit
def all_of(denoise, frac):
  path = levels(EDM(), times.karras, 5)
  x_T = samplers.initial(path, keys(3, seed=1), (2,))
  knobs = {samplers.ancestral: dict(frac=frac)}
  return [s(denoise, x_T, path, 5, keys(3), **knobs.get(s, {})) for s in ALL]


def test_samplers_take_x_0_and_ancestral_the_fraction():
  learned = lambda x, t: Estimate(gaussian(x, t), 0.25 + 0 * x)
  ours, want = (
    all_of(jax.tree_util.Partial(f), 0.25 * (f is gaussian)) for f in (learned, gaussian)
  )
  for a, b in zip(ours, want, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_flow_begins_in_noise_alone_for_every_n():
  """Also on devices where n / n is not 1: Flow has no time beyond."""

  @jax.jit
  def sample(n):
    path = levels(Flow(), times.even, 40, n)
    return path.alpha[0], samplers.ancestral(gaussian, jnp.ones((1, 2)), path, n, keys(1))

  for n in range(1, 41):
    alpha, x_0 = sample(n)
    assert alpha == 0 and np.all(np.isfinite(x_0)), n
