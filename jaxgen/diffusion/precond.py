"""What the network predicts: D(x_t) = c_skip x_t + c_out F(c_in x_t, c_noise).

Each maps a Noise to (c_skip, c_out, c_in, c_noise), Karras et al. 2022, Eq. 7,
but of x_t = alpha x_0 + sigma eps instead of x_t / alpha. F is regressed on

  (x_0 - c_skip x_t) / c_out

which is eps, x_0, v, ... in turn, with the weight that its paper gives it.
`eps` divides by alpha and sigma, `flow` and `edm` by sigma: draw t such that
neither is zero (float32 keeps about six digits of eps at sigma = 0.01).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.process import DDPM, Noise, position

Coefficients = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def eps(noise: Noise, steps: int = 1000, scale: float = 1.0) -> Coefficients:
  """F = eps (Ho et al. 2020, Eq. 11).

  c_noise = scale * index, where ADM counts 0 .. steps - 1. Its networks with
  rescaled timesteps take scale = 1000 / steps.
  """
  c_noise = _index(noise, steps, scale)
  return 1 / noise.alpha, -noise.sigma / noise.alpha, 1.0, c_noise


def aligned(noise: Noise, process: Callable = DDPM(50, 1e-4, 0.05)) -> Coefficients:  # noqa: B008
  """F = eps; c_noise is where alpha lies among those of a discrete process.

  Counted from 0; between two points linear in alpha (Kong et al. 2021, App. B).
  So a net of 50 steps can be asked at the levels of a schedule of six.
  """
  alphas = jnp.asarray(np.sqrt(np.cumprod(1 - process.betas)), jnp.float32)
  index = jnp.clip(position(noise.t, process.steps) - 1, 0, process.steps - 1)
  low = jnp.clip(jnp.floor(index).astype(jnp.int32), 0, process.steps - 2)
  part = (alphas[low] - noise.alpha) / (alphas[low] - alphas[low + 1])
  # On a point alpha is known to rounding alone, and the place exactly.
  c_noise = jnp.where(index == jnp.round(index), index, low + part)
  return 1 / noise.alpha, -noise.sigma / noise.alpha, 1.0, c_noise


def x0(noise: Noise, steps: int = 1000, scale: float = 1.0) -> Coefficients:
  """F = x_0. c_noise as in `eps`."""
  return 0.0, 1.0, 1.0, _index(noise, steps, scale)


def v(noise: Noise, steps: int = 1000, scale: float = 1.0) -> Coefficients:
  """F = alpha eps - sigma x_0 (Salimans & Ho 2022, App. D), any process.

  c_noise as in `eps`.
  """
  power = noise.alpha**2 + noise.sigma**2
  c_noise = _index(noise, steps, scale)
  return noise.alpha / power, -noise.sigma / power, 1.0, c_noise


def sr3(noise: Noise) -> Coefficients:
  """F = eps; c_noise = alpha (Saharia et al. 2021, Sec. 2.4: sqrt gamma)."""
  return 1 / noise.alpha, -noise.sigma / noise.alpha, 1.0, noise.alpha


def vp(noise: Noise) -> Coefficients:
  """F = eps with score SDE's c_noise = 999 t (Karras et al. 2022, Table 1)."""
  return 1 / noise.alpha, -noise.sigma / noise.alpha, 1.0, 999 * noise.t


def ve(noise: Noise) -> Coefficients:
  """F = -eps, c_noise = ln(sigma / 2) (Karras et al. 2022, Table 1, VE)."""
  return 1.0, noise.sigma, 1.0, jnp.log(noise.sigma / 2)


def flow(noise: Noise, scale: float = 1000.0) -> Coefficients:
  """F = eps - x_0, the velocity of Flow (Lipman et al. 2023), any process.

  c_noise = scale * t: by default in the range that sinusoidal embeddings were
  made for, 0 .. 1000; SiT feeds its network t itself (scale = 1).
  """
  total = noise.alpha + noise.sigma
  return 1 / total, -noise.sigma / total, 1.0, scale * noise.t


def edm(noise: Noise, sigma_data: float = 0.5, scale: float = 0.25) -> Coefficients:
  """Unit variance in and out (Karras et al. 2022, Table 1 and App. B.6).

  For processes with alpha = 1. Data of standard deviation `sigma_data`. c_noise
  = scale * ln sigma: 250 in the code of consistency models.
  """
  power = noise.sigma**2 + sigma_data**2
  return (
    sigma_data**2 / power,
    noise.sigma * sigma_data / jnp.sqrt(power),
    1 / jnp.sqrt(power),
    scale * jnp.log(noise.sigma),
  )


def boundary(
  noise: Noise, sigma_data: float = 0.5, lo: float = 0.002, scale: float = 0.25
) -> Coefficients:
  """As `edm`, but x_0 = x_t at sigma = `lo` (Song et al. 2023, App. C)."""
  gap, root = noise.sigma - lo, jnp.sqrt(noise.sigma**2 + sigma_data**2)
  return (
    sigma_data**2 / (gap**2 + sigma_data**2),
    gap * sigma_data / root,
    1 / root,
    scale * jnp.log(noise.sigma),
  )


def _index(noise: Noise, steps: int, scale: float) -> jax.Array:
  return scale * (position(noise.t, steps) - 1)
