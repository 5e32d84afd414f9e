"""Images as noise: there and back, between two of them, and from partial noise."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion import inversion, samplers, times
from jaxgen.diffusion.process import EDM, VP, Flow

KEYS = jax.random.split(jax.random.key(0), 5)


def gaussian(mean, std):
  def denoise(x_t, t):
    gain = t.alpha * std**2 / (t.alpha**2 * std**2 + t.sigma**2)
    return mean + gain * (x_t - t.alpha * mean)

  return denoise


def points(process, n, longest=200):
  return process(times.karras(process, jnp.arange(longest), n))


def test_a_bridge_leads_from_one_law_to_the_other():
  """Of Gaussians it is optimal transport: quantiles stay what they are (Su et al. 2023)."""
  n, x = 200, 0.3 + 0.5 * jnp.linspace(-2, 2, 5)[:, None]
  a, b = points(VP(), n), points(EDM(), n)  # of two processes

  @jax.jit
  def bridge(x):
    noise = inversion.encode(gaussian(0.3, 0.5), x, a, n, KEYS)
    back = samplers.euler(gaussian(0.3, 0.5), a.sigma[0] * noise, a, n, KEYS)
    over = samplers.euler(gaussian(-0.4, 0.2), b.sigma[0] * noise, b, n, KEYS)
    return noise, back, over

  noise, back, over = bridge(x)
  np.testing.assert_allclose(noise[:, 0], jnp.linspace(-2, 2, 5), atol=0.06)
  np.testing.assert_allclose(back, x, atol=0.035)  # of Euler's steps
  np.testing.assert_allclose(over, -0.4 + 0.2 * jnp.linspace(-2, 2, 5)[:, None], atol=0.035)


def test_between_two_noises_the_length_stays():
  a, b = jax.random.normal(jax.random.key(1), (2, 3, 40, 2))
  share = jnp.array([0.0, 0.5, 1.0])
  middle = inversion.slerp(a, b, share)
  np.testing.assert_allclose(middle[0], a[0], atol=1e-6)
  np.testing.assert_allclose(middle[2], b[2], atol=1e-5)
  length = lambda x: jnp.sqrt(jnp.sum(x**2, (1, 2)))
  lowest, highest = (f(length(a)[1], length(b)[1]) for f in (min, max))
  assert 0.9 * lowest < length(middle)[1] < 1.1 * highest  # a mean's would be 0.7
  np.testing.assert_allclose(inversion.slerp(a, a, share), a, atol=1e-5)


def test_strength_is_as_much_noise_on_every_process():
  for process in (VP(), EDM(), Flow()):
    path = points(process, 200)
    for strength, ratio in ((0.3, 1.24), (0.5, 3.41)):
      part, n = inversion.later(path, 200, strength)
      r = np.asarray(part.sigma / part.alpha)
      assert 0.93 * ratio < r[0] <= 1.01 * ratio
      np.testing.assert_allclose(r[n - 1], path.sigma[-1] / path.alpha[-1], rtol=1e-5)
    whole, n = inversion.later(path, 200, 1.0)
    assert n == 200 and whole.t[0] == path.t[0]
    least, n = inversion.later(path, 200, 0.0)
    assert n == 1 and least.t[0] == path.t[-1]


def test_noised_is_the_process():
  path, x = points(VP(), 50), jnp.full((5, 4000), 0.5)
  x_t = np.asarray(inversion.noised(x, inversion.later(path, 50, 0.5)[0], KEYS))
  first = inversion.later(path, 50, 0.5)[0]
  np.testing.assert_allclose(x_t.mean(), 0.5 * first.alpha[0], atol=0.02)
  np.testing.assert_allclose(x_t.std(), first.sigma[0], rtol=0.02)
