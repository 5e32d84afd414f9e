"""What every sampler promises: traced knobs, counted work, own randomness."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_samplers import ALL, at, gaussian, keys, levels

from jaxgen.diffusion import guidance, samplers, times, unipc
from jaxgen.diffusion.process import DDPM, EDM, VP, Cosine, Flow
from jaxgen.diffusion.traits import traits


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("process", [Cosine(), EDM(), Flow()], ids=repr)
def test_one_point_is_one_denoising(sampler, process):
  if sampler is samplers.pc:  # and a correction before
    sampler = functools.partial(sampler, snr=0.0)
  path = levels(process, times.even, 7, 1)
  x_T = jnp.ones((2, 3))
  ours = jax.jit(lambda n: sampler(gaussian, x_T, path, n, keys(2)))(1)
  np.testing.assert_allclose(ours, gaussian(x_T, at(path, 0)), rtol=1e-6)


@pytest.mark.parametrize("path", [times.even, times.karras])
@pytest.mark.parametrize(
  "sampler",
  [
    functools.partial(samplers.ancestral, eta=0.0),
    samplers.euler,
    samplers.heun,
    functools.partial(samplers.dpmpp_2m_sde, eta=0.0),
    functools.partial(unipc.unipc, order=3),
  ],
)
@pytest.mark.parametrize("process", [DDPM(), Cosine(), VP(), Flow()], ids=repr)
def test_float32_is_enough(sampler, process, path):
  """Also where alpha goes to zero: against the same walk in float64."""
  x_T = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
  results = []
  for precise in (False, True):
    with jax.enable_x64(precise):
      points = levels(process, path, 20)
      x_0 = sampler(gaussian, points.sigma[0] * x_T, points, 20, keys(50))
      results.append(np.asarray(x_0))
  assert results[0].dtype == np.float32 and results[1].dtype == np.float64
  np.testing.assert_allclose(*results, atol=2e-4)


@pytest.mark.parametrize("sampler", ALL)
def test_nfe_is_counted(sampler):
  calls = []

  def denoise(x_t, t):
    jax.debug.callback(lambda: calls.append(1))
    return gaussian(x_t, t)

  path = levels(EDM(), times.karras, 12)
  sample = jax.jit(lambda n: sampler(denoise, jnp.ones((1, 2)), path, n, keys(1)))
  for n in (1, 2, 12):
    calls.clear()
    sample(n).block_until_ready()
    jax.effects_barrier()
    assert len(calls) == traits(sampler).nfe(n)
  assert traits(samplers.heun).nfe(18) == 35  # EDM's CIFAR-10 setting
  assert traits(samplers.encode).nfe(18) == 17


@pytest.mark.parametrize("sampler", [*ALL, samplers.encode])
def test_the_network_is_in_the_program_once(sampler):
  """What takes minutes to compile is compiled once."""
  path = levels(EDM(), times.karras, 12)

  def sample(x, n):
    net = lambda x, t: x + 0 * jax.lax.lgamma(x)
    D = guidance.classifier_free(net, gaussian, guidance.within(2.0, 1, 2))
    return sampler(D, x, path, n, keys(1))

  program = str(jax.make_jaxpr(sample)(jnp.ones((1, 2)), 9))
  assert program.count("lgamma") == 1


@pytest.mark.parametrize("sampler", ALL)
def test_knobs_recompile_nothing(sampler):
  traces = itertools.count()
  knobs = {
    samplers.ancestral: [dict(eta=0.0, frac=0.0), dict(eta=1.0, frac=0.5)],
    samplers.heun: [
      dict(churn=0.0, s_min=0.0, s_max=1.0, s_noise=1.0),
      dict(churn=3.0, s_min=0.1, s_max=9.0, s_noise=1.1),
    ],
    samplers.dpmpp_2m_sde: [dict(eta=0.0), dict(eta=0.7)],
    samplers.pc: [dict(snr=0.0, cap=1.0), dict(snr=0.3, cap=2.0)],
  }.get(sampler, [{}, {}])

  @jax.jit
  def sample(n, w, knobs):
    next(traces)
    denoise = guidance.classifier_free(gaussian, lambda x, t: 0 * x, w)
    path = levels(EDM(), times.karras, 30, n)
    return sampler(denoise, jnp.ones((2, 2)), path, n, keys(2), **knobs)

  results = [
    np.asarray(sample(n, w, k)) for n, w, k in itertools.product((1, 5, 30), (1.0, 2.5), knobs)
  ]
  assert next(traces) == 1
  assert len({r.tobytes() for r in results}) > 4  # and yet they all count


@pytest.mark.parametrize("sampler", ALL)
def test_an_examples_sample_is_its_own(sampler):
  """Bitwise the same however the batch is split or ordered."""
  knobs = dict(churn=9.0) if sampler is samplers.heun else {}
  path = levels(EDM(), times.karras, 10)
  sample = jax.jit(lambda x_T, key: sampler(gaussian, x_T, path, 10, key, **knobs))
  key = keys(12)
  x_T = samplers.initial(path, keys(12, seed=1), (4, 4, 3))
  whole = np.asarray(sample(x_T, key))
  parts = [sample(x_T[i : i + 3], key[i : i + 3]) for i in range(0, 12, 3)]
  np.testing.assert_array_equal(np.concatenate(parts), whole)
  np.testing.assert_array_equal(sample(x_T[::-1], key[::-1])[::-1], whole)


def test_churn_wants_the_paths_process():
  path = levels(VP(), times.karras, 8)
  run = functools.partial(samplers.heun, gaussian, jnp.ones((2, 2)), path, 8)
  assert np.all(np.isfinite(run(keys(2))))
  assert np.all(np.isfinite(run(keys(2), churn=3.0, process=VP())))
  assert np.all(np.isnan(run(keys(2), churn=3.0)))
