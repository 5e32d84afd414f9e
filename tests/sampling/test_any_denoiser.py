"""Samplers as plain functions, against the exact denoiser of a Gaussian."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.diffusion import samplers
from jaxgen.diffusion.process import VP
from jaxgen.errors import UserError
from jaxgen.sampling.presets import IN_TIME, SAMPLERS

M, S = 0.3, 0.5  # data are N(M, S^2)
X = jax.random.normal(jax.random.key(0), (512, 4))


def exact(x, sigma):
  """E[x_0 | x], x = x_0 + sigma eps."""
  return (S**2 * x + sigma**2 * M) / (S**2 + sigma**2)


def exact_vp(x_t, t):
  t = VP()(t)
  return M + S**2 * t.alpha / (S**2 * t.alpha**2 + t.sigma**2) * (x_t - t.alpha * M)


def flow(x, hi):
  """Where the ODE leads from x at sigma = hi."""
  return M + S / jnp.sqrt(S**2 + hi**2) * (x - M)


def test_sigmas_are_those_of_karras():
  sigmas = jaxgen.karras_sigmas(3, 0.1, 10.0)
  middle = ((10 ** (1 / 7) + 0.1 ** (1 / 7)) / 2) ** 7
  np.testing.assert_allclose(sigmas, [10, middle, 0.1, 0], rtol=1e-6)


@pytest.mark.parametrize(
  "name, order", [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 2)]
)
def test_samplers_of_the_ode_end_where_it_leads(name, order):
  """Errors fall by 2^order when steps double, up to what the last one leaves."""
  run = lambda n: jaxgen.run_sampler(
    exact, 10 * X, sigmas=jaxgen.karras_sigmas(n, 0.002, 10.0), sampler=name
  )
  run = jax.jit(run, static_argnums=0)
  coarse, fine = (float(jnp.abs(run(n) - flow(10 * X, 10.0)).max()) for n in (16, 32))
  assert coarse < 1 and coarse / fine > 0.8 * 2**order


@pytest.mark.parametrize("name", ["ancestral", "dpmpp_2m_sde"])
def test_samplers_that_draw_have_the_distribution(name):
  sigmas = jaxgen.karras_sigmas(100, 0.01, 10.0)
  run = functools.partial(jaxgen.run_sampler, exact, sigmas=sigmas, sampler=name, key=1)
  x = jax.jit(run)(10 * X)
  n = x.size
  assert abs(x.mean() - M) < 5 * S / n**0.5 + 0.01
  assert abs(x.std() / S - 1) < 5 / (2 * n) ** 0.5 + 0.05


def test_one_may_step_in_the_time_of_a_process():
  run = functools.partial(jaxgen.run_sampler, exact_vp, process=VP(), steps=150, sampler="heun")
  x = jax.jit(run)(X)
  t = VP()(VP().inverse(-2 * jnp.log(80.0)))  # where the path begins
  want = M + S / jnp.sqrt(S**2 * t.alpha**2 + t.sigma**2) * (X - t.alpha * M)
  np.testing.assert_allclose(x, want, atol=3e-3)


def test_zero_ends_levels_and_changes_nothing_and_levels_may_be_traced():
  sigmas = jaxgen.karras_sigmas(6, 0.1, 10.0)
  run = functools.partial(jaxgen.run_sampler, exact, 10 * X, sampler=samplers.heun)
  want = jax.jit(lambda: run(sigmas=sigmas))()
  np.testing.assert_array_equal(want, jax.jit(lambda: run(sigmas=sigmas[:-1]))())
  program = jax.jit(lambda s: run(sigmas=s))
  np.testing.assert_allclose(program(sigmas), want, rtol=1e-5, atol=1e-5)
  program(jaxgen.karras_sigmas(6, 0.2, 9.0))
  assert program._cache_size() == 1


def test_gradients_pass_through_all_steps():
  """The ODE scales what it begins with by S / sqrt(S^2 + hi^2)."""
  sigmas = jaxgen.karras_sigmas(40, 0.002, 10.0)
  total = lambda x: jaxgen.run_sampler(exact, x, sigmas=sigmas).sum()
  slope = jax.jit(jax.grad(total))(10 * X)
  np.testing.assert_allclose(slope, S / (S**2 + 100) ** 0.5, rtol=0.02)


def test_every_name_is_a_sampler():
  for name in SAMPLERS | IN_TIME:
    kw = {"process": VP()} if name in IN_TIME else {}
    D = exact_vp if kw else exact
    assert jax.eval_shape(lambda x: jaxgen.run_sampler(D, x, sampler=name, key=0, **kw), X)  # noqa: B023


@pytest.mark.parametrize(
  "kw, why",
  [
    (dict(sampler="hewn"), "there is no sampler 'hewn'"),
    (dict(sampler="ancestral"), "draws: give key="),
    (dict(sampler="heun", churn=3.0), "draws: give key="),
    (dict(sampler="euler", eta=1.0), "has no knob 'eta': it has none"),
    (dict(sigmas=[1.0, 2.0]), "falling"),
    (dict(sigmas=[1.0, 0.5], process=VP()), "not both"),
    (dict(steps=0), "steps=0"),
  ],
)
def test_mistakes_are_one_line(kw, why):
  with pytest.raises(UserError, match=why):
    jaxgen.run_sampler(exact, X, **kw)
