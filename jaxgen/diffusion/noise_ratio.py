"""Palette's noise: levels by what is left of the image, gamma = alpha^2.

Its net is trained at levels between those of one chain and sampled at those of
another, which goes further into the noise (Saharia et al. 2022, App. C). So time is
no index here, but sigma / alpha itself, which both have. Numbers are those of
Janspiry/Palette-Image-to-Image-Diffusion-Models.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.process import Noise

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Ratio:
  """t = sigma / alpha > 0 where alpha^2 + sigma^2 = 1, in continuous time."""

  steps = None

  def __call__(self, t: Array) -> Noise:
    t = jnp.asarray(t, float)
    alpha = jax.lax.rsqrt(1 + t**2)
    return Noise(t, alpha, t * alpha)

  def inverse(self, logsnr: Array) -> Array:
    """The t of this logsnr."""
    return jnp.exp(-jnp.asarray(logsnr, float) / 2)


def level(noise: Noise) -> tuple[Array, Array, float, Array]:
  """F = eps; c_noise = gamma = alpha^2. See `diffusion.precond`."""
  return 1 / noise.alpha, -noise.sigma / noise.alpha, 1.0, noise.alpha**2


def gammas(steps: int, beta_1: float, beta_T: float) -> np.ndarray:
  """[steps] float64: alpha^2 of a chain of betas that rise linearly."""
  return np.cumprod(1 - np.linspace(beta_1, beta_T, steps))


def between(
  key: Array, ndim: int, steps: int = 2000, beta_1: float = 1e-6, beta_T: float = 1e-2
) -> Array:
  """gamma ~ U(gamma_{i-1}, gamma_i), i evenly from 1 .. steps - 1, counted from 0."""

  def one(k: Array) -> Array:
    k_index, k_part = jax.random.split(k)
    i = jax.random.randint(k_index, (), 1, steps)
    return ratio_between(i, jax.random.uniform(k_part), steps, beta_1, beta_T)

  return jax.vmap(one)(key).reshape(-1, *[1] * (ndim - 1))


def ratio_between(i: Array, u: Array, steps: int, beta_1: float, beta_T: float) -> Array:
  """sigma / alpha at gamma_{i-1} + u (gamma_i - gamma_{i-1})."""
  gamma = gammas(steps, beta_1, beta_T)
  # Of 1 - gamma float32 keeps too little where it is small: a table of its own.
  alpha2, sigma2 = (jnp.asarray(a, jnp.float32) for a in (gamma, 1 - gamma))
  mix = lambda table: table[i - 1] + u * (table[i] - table[i - 1])
  return jnp.sqrt(mix(sigma2) / mix(alpha2))


def chain(
  process, i: Array, n: Array, steps: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.09
) -> Array:
  """The levels of a chain of `steps`, the noisiest first: all, or n with both ends.

  Of fewer, evenly by index and rounded. See `diffusion.times` for the arguments.
  """
  del process
  gamma = gammas(steps, beta_1, beta_T)
  ratios = jnp.asarray(np.sqrt((1 - gamma) / gamma), jnp.float32)
  n = jnp.minimum(n, steps)
  part = jnp.minimum(i, n - 1) / jnp.maximum(n - 1, 1)
  return ratios[jnp.round((1 - part) * (steps - 1)).astype(jnp.int32)]
