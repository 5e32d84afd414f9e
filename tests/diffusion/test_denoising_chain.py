"""The chain of denoising diffusion GANs: laws of its tables, and what it tends to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import posterior
from jaxgen.diffusion.denoising_chain import DenoisingChain
from jaxgen.diffusion.process import Noise


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("geometric", [False, True])
def test_a_pair_has_the_noise_of_both_its_times(steps, geometric):
  """One step of noise after another makes that of the SDE, and undoing it, the pair."""
  kw = dict(beta_min=0.01, beta_max=0.9) if geometric else {}
  chain = DenoisingChain(steps, geometric=geometric, **kw)
  of = chain.tables._replace(**{k: np.float64(v) for k, v in chain.tables._asdict().items()})
  np.testing.assert_allclose(of.alphas**2 + of.sigmas**2, 1, atol=1e-6)
  np.testing.assert_allclose(of.alphas_bar, np.cumprod(of.alphas), rtol=1e-6)
  np.testing.assert_allclose(of.alphas_bar**2 + of.sigmas_bar**2, 1, atol=1e-6)
  # q(x_t | x_{t+1}, x_0) q(x_{t+1} | x_0) = q(x_t | x_0): mean, variance, covariance.
  share, keep, std = of.x_0_share, of.x_next_share, of.std
  before, after = of.alphas_bar[:-1], of.alphas_bar[1:]
  np.testing.assert_allclose(share + keep * after, before, atol=1e-6)
  variance = std**2 + (keep * of.sigmas_bar[1:]) ** 2
  np.testing.assert_allclose(variance, of.sigmas_bar[:-1] ** 2, atol=1e-6)
  # A share of float32's rounding: in one step 5e-5 of x_0 is left.
  together = of.alphas[1:] * of.sigmas_bar[:-1] ** 2
  np.testing.assert_allclose(keep * of.sigmas_bar[1:] ** 2, together, atol=1e-6)


def house_posterior(chain, t, x_next, x_0):
  """DDPM's own (Ho et al. 2020, Eqs. 6 and 7), of the SDE itself at the chain's times."""
  time = chain.times
  bar = np.exp(-0.25 * time**2 * 19.9 - 0.05 * time)
  level = lambda i: Noise(time[i], bar[i] / bar[0], np.sqrt(1 - (bar[i] / bar[0]) ** 2))
  s = level(t) if t else posterior.CLEAN
  mean, variance = posterior.posterior(x_next, x_0, *(Noise(*map(jnp.float32, n)) for n in
                                                      (level(t + 1), s)))  # fmt: skip
  return mean, jnp.sqrt(variance)


@pytest.mark.parametrize("steps", [4, 50, 1000])
def test_a_step_with_the_true_x_0_is_ddpms(steps):
  chain, x_0, x_next = DenoisingChain(steps), jnp.array([[0.3]]), jnp.array([[-0.8]])
  for t in (0, steps // 3, steps - 1):
    mean, std = house_posterior(chain, t, x_next, x_0)
    at = lambda eps, t=t: chain.posterior(x_0, x_next, jnp.array([t]), jnp.full((1, 1), eps))
    np.testing.assert_allclose(at(0.0), mean, atol=3e-5)
    np.testing.assert_allclose(at(1.0) - at(0.0), std.reshape(1, 1), atol=3e-5)


MEAN, DATA = 0.4, 0.5  # of Gaussian data


def of_gaussian(steps, exact):
  """Mean and standard deviation of samples, in float64: everything is linear.

  The generator's x_0 is E[x_0 | x_{t+1}], which is all that DDPM's step knows;
  or, where `exact`, a draw of q(x_0 | x_{t+1}), which is what a GAN can learn.
  """
  of = DenoisingChain(steps).tables
  alpha, sigma = (np.float64(x[1:]) for x in (of.alphas_bar, of.sigmas_bar))
  gain = alpha * DATA**2 / (alpha**2 * DATA**2 + sigma**2)
  left = DATA * np.sqrt(1 - gain * alpha)  # of x_0, given x_{t+1}
  chain = DenoisingChain(steps)

  def run(x_T, z, eps):
    def guess(x, t, i):
      mean = MEAN + jnp.asarray(gain)[t] * (x - jnp.asarray(alpha)[t] * MEAN)
      return mean + exact * jnp.asarray(left)[t] * z[i]

    # Unrolled by a number that is known, so that it has a gradient.
    return chain.run(guess, x_T, steps, lambda i: eps[i])[0]

  zero = jnp.zeros(1), jnp.zeros((steps, 1)), jnp.zeros((steps, 1))
  slopes = jax.jit(jax.jacfwd(run, (0, 1, 2)))(*zero)
  variance = sum(np.sum(np.float64(s) ** 2) for s in slopes)
  return float(run(*zero)), np.sqrt(variance)


def test_one_latent_is_what_large_steps_lack():
  """With q(x_0 | x_t) any T gives the data; with its mean, as in DDPM, T large does."""
  for steps in (1, 2, 4, 8):
    mean, std = of_gaussian(steps, exact=True)
    assert abs(mean - MEAN) < 0.01 and abs(std - DATA) < 0.01
  lost = [DATA - of_gaussian(steps, exact=False)[1] for steps in (1, 4, 16, 64, 256, 1024)]
  assert lost[0] > 0.45 and all(a > 1.5 * b > 0 for a, b in zip(lost, lost[1:], strict=False))
  assert lost[-1] < 0.01 and lost[-2] > 3 * lost[-1]  # of first order in 1 / T
