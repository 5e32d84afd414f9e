"""Consistency models' numbers: openai's and ECT's own, and laws on Gaussians."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from golden import near

from jaxgen.diffusion import guidance, precond, samplers, time_pairs, times
from jaxgen.diffusion.process import EDM
from jaxgen.keys import example_keys

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
KEYS = example_keys(jax.random.key(5), 6)
ENDS = dict(lo=0.002, hi=80.0, rho=7.0)
STUDENT, TARGET, TEACHER = range(3)
SCALE = 250.0  # of ln sigma, what nets are told


@pytest.fixture(scope="module")
def case():
  return np.load(GOLDEN / "consistency.npz")


def net(case, which, scaling):
  """(x_t, t) -> x_0 by the file's made-up net number `which`; channels first."""
  W, b = case["W"][which], case["b"][which]

  def f(x, t):
    c_skip, c_out, c_in, c_noise = scaling(EDM()(t), scale=SCALE)
    y = c_in * x
    F = jnp.einsum("oc,bchw->bohw", W, y) + 0.3 * jnp.roll(y, 1, 3)
    F = jnp.tanh(F + b[None, :, None, None] * jnp.sin(c_noise / SCALE))
    return c_skip * x + c_out * F

  return f


def columns(a):
  return jnp.asarray(a, jnp.float32).reshape(-1, 1, 1, 1)


def levels_at(part):
  return columns(time_pairs.ramp(jnp.asarray(part), **ENDS))


def test_scalings(case):
  with jax.enable_x64(True):
    noise = EDM()(jnp.asarray(case["sigma_for_scalings"]))
    for scaling, want in zip(
      (precond.boundary, precond.edm), case["scalings_boundary_then_edm"], strict=True
    ):
      c_skip, c_out, c_in, _ = scaling(noise)
      np.testing.assert_allclose([c_skip, c_out, c_in], want, rtol=1e-12)
  c_skip, c_out, *_ = precond.boundary(EDM()(jnp.float32(0.002)))
  assert c_skip == 1 and c_out == 0


def test_schedules(case):
  step = jnp.asarray(case["ct_step"])
  steps, n_1 = int(step[-1]), int(case["ct_N"][-1]) - 1
  levels = lambda k: time_pairs.progressive(k, steps, 2, n_1)
  np.testing.assert_array_equal(levels(step), case["ct_N"])
  near(time_pairs.adaptive(step, levels), case["ct_mu"], 1e-6)
  step = jnp.asarray(case["fixed_progressive_step"])
  n_1 = int(case["fixed_progressive_N"][-1]) - 1
  got = time_pairs.progressive(step, int(step[-1]), 2, n_1)
  np.testing.assert_array_equal(got, case["fixed_progressive_N"])
  near(time_pairs.constant(step, 0.9), case["fixed_progressive_mu"], 1e-6)
  step, want = jnp.asarray(case["progdist_step"]), case["progdist_N"]
  np.testing.assert_array_equal(time_pairs.halved(step, 50, 64), want)


def test_every_rise_is_at_its_step():
  """Against the formula in float64, at all steps: float32 would miss some."""
  steps, n_0, n_1 = 5000, 2, 150
  k = np.arange(steps + 1)
  n = np.ceil(np.sqrt(k / steps * ((n_1 + 1) ** 2 - n_0**2) + n_0**2) - 1)
  got = jax.vmap(lambda k: time_pairs.progressive(k, steps, n_0, n_1))(k)
  np.testing.assert_array_equal(got, np.maximum(n, 1) + 1)
  assert time_pairs.progressive(jnp.int32(steps + 9), steps, n_0, n_1) == n_1 + 1


def test_doubling_and_renewal():
  got = time_pairs.doubled(jnp.arange(90), 80, 10, 1280)
  np.testing.assert_array_equal(got[::10], [11, 21, 41, 81, 161, 321, 641, 1281, 1281])
  k = jnp.arange(60)
  halves = lambda k: time_pairs.halved(k, 10, 8)
  np.testing.assert_array_equal(halves(k)[::10], [8, 4, 2, 2, 1, 1])
  assert np.flatnonzero(time_pairs.renewed(k, halves) == 0).tolist() == [9, 19, 39]
  assert time_pairs.halved(k, 10, 8, 4).min() == 4


def losses(case, t, s, scaling, target, teacher=None):
  x, z = case["x_0"], case["noise"]
  student = net(case, STUDENT, scaling)
  want = target(x, z, t, s, net(case, TARGET, scaling), teacher)
  return time_pairs.mean_square(student(x + t * z, t) - want)


def test_losses(case):
  n = json.loads(str(case["manifest"]))["num_scales"]
  i = case["indices"]
  t, s = levels_at(i / (n - 1)), levels_at((i + 1) / (n - 1))
  near(losses(case, t, s, precond.boundary, time_pairs.training), case["loss_ct"], 2e-4)
  teacher = net(case, TEACHER, precond.edm)
  got = losses(case, t, s, precond.boundary, time_pairs.distillation, teacher)
  near(got, case["loss_cd"], 2e-4)
  i = case["progdist_indices"]
  t, s = levels_at(i / 8), levels_at((i + 1) / 8)
  target = lambda x, z, t, s, f, _: time_pairs.two_in_one(x, z, t, s, teacher)
  near(losses(case, t, s, precond.edm, target), case["loss_progdist"], 2e-4)
  t, f = columns(case["edm_sigma"]), net(case, STUDENT, precond.edm)
  gap = f(case["x_0"] + t * case["noise"], t) - case["x_0"]
  near(time_pairs.mean_square(gap), case["loss_edm"], 2e-4)


def test_sampling(case):
  def denoiser(scaling):
    f = net(case, STUDENT, scaling)
    return guidance.clip(lambda x, t: f(x, t.sigma.reshape(1, 1, 1, 1)), -1, 1)

  process, x_T = EDM(), 80 * case["sample_init"]
  at = lambda path, n: process(path(process, jnp.arange(8), jnp.int32(n)))
  denoise = denoiser(precond.boundary)
  one = samplers.consistency(denoise, x_T, at(times.jumps, 1), 1, KEYS[:2])
  near(one, case["onestep"], 2e-4)
  two = samplers.consistency(
    denoise, x_T, at(times.chosen, 2), 2, KEYS[:2], noise=jnp.asarray(case["multistep_noise"])
  )
  near(two, case["multistep"], 2e-4)
  # Theirs ends at the least level, where ours denoises once more.
  D, path = denoiser(precond.edm), at(times.karras, 5)
  ended = lambda x, t: jnp.where(t.sigma < 0.0021, x, D(x, t))
  four = samplers.euler(ended, x_T, path, 5, KEYS[:2])
  near(jnp.clip(four, -1, 1), case["progdist"], 2e-4)
  sigmas = times.karras(process, jnp.arange(40), jnp.int32(40))
  near(sigmas, case["sigmas_40"][:-1], 1e-5)


def test_ect():
  case = np.load(GOLDEN / "ect.npz")
  for stage, want in enumerate(case["r_of_t"]):
    near(time_pairs.below(jnp.asarray(case["t"]), jnp.int32(stage)), want, 1e-6)
  x, z = case["x"], case["noise"]
  t = jnp.exp(-1.1 + 2 * jnp.asarray(case["normal_t"]))

  def f(y, t):
    c_skip, c_out, c_in, c_noise = precond.edm(EDM()(t))
    return c_skip * y + c_out * jnp.tanh(jnp.einsum("oc,bchw->bohw", case["W"], c_in * y) + c_noise)

  for stage in (0, 3):
    s = time_pairs.below(t, jnp.int32(stage))
    gap = f(x + t * z, t) - time_pairs.training(x, z, t, s, f)
    got = jnp.ravel(time_pairs.inverse_gap(t, s)) * time_pairs.pseudo_huber(gap, 0.0)
    near(got, case[f"loss_stage_{stage}"], 2e-4)


MEANS, STD = np.array([-0.8, 0.1, 0.7]), 0.15


def mixture(x, t):
  """E[x_0 | x_t] of three Gaussians."""
  power = STD**2 + t**2
  gap = MEANS - x[..., None]
  share = jax.nn.softmax(-(gap**2) / (2 * power[..., None]), -1)
  own = (STD**2 * x[..., None] + t[..., None] ** 2 * MEANS) / power[..., None]
  return jnp.sum(share * own, -1)


def integrated(D, x, t, n=600, **ends):
  """The consistency function: the ODE from (x, t) down to `lo`, by RK4 in ln t."""
  h = (jnp.log(ends["lo"]) - jnp.log(t)) / n
  slope = lambda u, x: x - D(x, jnp.exp(u))  # dx / d ln t

  def step(i, x):
    u = jnp.log(t) + i * h
    a = slope(u, x)
    b = slope(u + h / 2, x + h / 2 * a)
    c = slope(u + h / 2, x + h / 2 * b)
    d = slope(u + h, x + h * c)
    return x + h / 6 * (a + 2 * b + 2 * c + d)

  return jax.lax.fori_loop(0, n, step, x)


def gaussian(x, t):
  return x * STD**2 / (STD**2 + t**2)


def test_the_exact_function_of_one_gaussian():
  with jax.enable_x64(True):
    t, x = jnp.array([0.01, 0.3, 2.0, 40.0]), jnp.array([0.2, -0.4, 1.0, 30.0])
    closed = x * jnp.sqrt((STD**2 + 0.002**2) / (STD**2 + t**2))
    np.testing.assert_allclose(integrated(gaussian, x, t, lo=0.002), closed, rtol=1e-8)


@pytest.mark.parametrize("D", [gaussian, mixture])
def test_the_exact_function_is_what_distillation_asks_for(D):
  """One step of Heun's leaves an error of third order in its length."""
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    x = rng.choice(MEANS, 64) + STD * rng.normal(size=64)
    z, lo = rng.normal(size=64), 0.002
    f = lambda x, t: integrated(D, x, t, lo=lo)
    for part in (0.2, 0.5, 0.7):
      t = jnp.full(64, time_pairs.ramp(part, **ENDS))
      exact, errors = f(x + t * z, t), []
      for n in (40, 80, 160):
        s = jnp.full(64, time_pairs.ramp(part + 1 / n, **ENDS))
        errors.append(np.sqrt(np.mean((time_pairs.distillation(x, z, t, s, f, D) - exact) ** 2)))
      orders = np.log2(np.array(errors[:-1]) / errors[1:])
      assert np.all(abs(orders - 3) < 0.35), (part, orders)
      assert errors[-1] < 1e-3


def test_training_asks_for_the_same_on_average():
  """Its one line is the mean's, to first order in the gap (Song et al. 2023, Thm. 2).

  Given x_t, the mean over x of f(x_s) tends to f(x_t).
  """
  with jax.enable_x64(True):
    t, lo = jnp.float64(0.4), 0.002
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    x_t = jnp.array([-0.9, -0.2, 0.3, 1.0])
    share = -((MEANS - x_t[:, None]) ** 2) / (2 * (STD**2 + t**2))
    share = np.exp(share - scipy.special.logsumexp(share, 1, keepdims=True))
    power = STD**2 + t**2
    center = (STD**2 * x_t[:, None] + t**2 * MEANS) / power
    x = center[..., None] + STD * t / jnp.sqrt(power) * nodes  # of x given x_t and the mode
    z, f = (x_t[:, None, None] - x) / t, lambda x, t: integrated(mixture, x, t, lo=lo)
    exact, errors = f(x_t, jnp.full(4, t)), []
    for gap in (0.08, 0.04, 0.02):
      s = jnp.full(x.shape, t - gap)
      targets = time_pairs.training(x, z, jnp.full(x.shape, t), s, f)
      mean = np.sum(share * (targets @ weights) / weights.sum(), 1)
      errors.append(np.abs(mean - exact).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(orders > 1.5), (errors, orders)


def test_one_step_leads_where_two_did():
  x, z = (jax.random.normal(k, (6,)) for k in jax.random.split(jax.random.key(1)))
  with jax.enable_x64(True):
    x, z, t, s = jnp.float64(x), jnp.float64(z), jnp.full(6, 3.0), jnp.full(6, 0.5)
    x_0 = time_pairs.two_in_one(x, z, t, s, mixture)
    middle, x_t = ((3 ** (1 / 7) + 0.5 ** (1 / 7)) / 2) ** 7, x + t * z
    path = EDM()(jnp.array([3.0, middle, 0.5]))
    D = lambda x, t: mixture(x, jnp.broadcast_to(t.sigma, x.shape))
    at_end = lambda x, t: jnp.where(t.sigma == 0.5, x, D(x, t))
    two = samplers.euler(at_end, x_t, path, 3, KEYS)
    np.testing.assert_allclose(x_t + (s - t) * (x_t - x_0) / t, two, rtol=1e-10)


def test_jumps_keep_the_distribution():
  """Of one Gaussian, by its exact function: in 1 to 8 steps, of one program."""
  keys, process = example_keys(jax.random.key(2), 4000), EDM()

  def denoise(x, t):
    return x * jnp.sqrt((STD**2 + 0.002**2) / (STD**2 + t.sigma**2))

  @jax.jit
  def draw(n):
    path = process(times.jumps(process, jnp.arange(16), n))
    return samplers.consistency(denoise, samplers.initial(path, keys, (4,)), path, n, keys)

  for n in range(1, 9):
    x = np.asarray(draw(jnp.int32(n)))
    assert abs(x.std() / STD - 1) < 0.03
  assert draw._cache_size() == 1


def test_draws_of_neighbours():
  keys, n = example_keys(jax.random.key(3), 20_000), 11
  levels = lambda step: time_pairs.fixed(step, n)
  grid = time_pairs.ramp(np.arange(n) / (n - 1), **ENDS)
  for mean in (None, -1.1):
    draw = jax.jit(
      functools.partial(time_pairs.neighbours, ndim=3, step=0, levels=levels, mean=mean)
    )
    t, s = (np.asarray(a) for a in draw(keys))
    assert t.shape == s.shape == (20_000, 1, 1)
    i = np.abs(np.log(t.ravel()[:, None] / grid)).argmin(1)
    np.testing.assert_allclose(t.ravel(), grid[i], rtol=1e-5)
    np.testing.assert_allclose(s.ravel(), grid[i + 1], rtol=1e-5)
    share = np.bincount(i, minlength=n - 1) / len(i)
    want = np.full(n - 1, 1 / (n - 1))
    if mean is not None:
      below = scipy.special.erf((np.log(grid) - mean) / (2 * np.sqrt(2)))
      want = (below[:-1] - below[1:]) / (below[0] - below[-1])
    assert np.abs(share - want).max() < 0.015
  t, s = time_pairs.strides(keys, 1, 0, lambda step: time_pairs.fixed(step, 4))
  assert len(np.unique(t)) == 4 and s.min() == np.float32(0.002) and t.max() == 80


def test_gaps_shrink():
  keys = example_keys(jax.random.key(3), 2000)
  seen = []
  for step in (0, 50, 99, 200):
    t, s = time_pairs.shrinking(keys, 1, jnp.int32(step), steps=100, stages=8)
    assert np.all((s >= 0) & (s < t))
    seen.append(float(np.mean((t - s) / t)))
  assert seen[0] > 0.9 > seen[1] > seen[2] == seen[3] > 0


def test_distances_have_slopes_at_zero():
  gap = jnp.zeros((2, 3))
  for distance in (
    time_pairs.mean_square,
    time_pairs.pseudo_huber,
    lambda g: time_pairs.pseudo_huber(g, 0.0),
  ):
    assert np.all(jax.grad(lambda g, d=distance: d(g).sum())(gap) == 0)
  gap = jnp.array([[3.0, 4.0]])
  np.testing.assert_allclose(time_pairs.pseudo_huber(gap, 0.0), 5.0, rtol=1e-6)
  np.testing.assert_allclose(
    time_pairs.pseudo_huber(gap, 0.1), np.sqrt(25.02) - np.sqrt(0.02), rtol=1e-5
  )
