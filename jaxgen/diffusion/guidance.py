"""Guidance: maps denoisers to a denoiser. Weights may be traced scalars.

It moves x_0. Of denoisers that learn the variance, the first one's (that which
knows the condition) fraction is kept, as in GLIDE and DiT.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.diffusion.estimate import Denoise, Estimate, mean, moved
from jaxgen.diffusion.process import Noise

Array = jax.Array


def classifier_free(cond: Denoise, uncond: Denoise, w: Array) -> Denoise:
  """uncond + w (cond - uncond): Ho & Salimans 2022, Eq. 6, where w is 1 + w.

  w = 1 is no guidance, and then `uncond` is not evaluated at all.
  """

  def denoise(x_t: Array, t: Noise) -> Array | Estimate:
    D = cond(x_t, t)
    x_0 = mean(D)

    def guided() -> Array:
      null = mean(uncond(x_t, t))
      return (null + w * (x_0 - null)).astype(x_0.dtype)

    return moved(D, jax.lax.cond(jnp.asarray(w) == 1, lambda: x_0, guided))

  return denoise


def autoguidance(good: Denoise, bad: Denoise, w: Array) -> Denoise:
  """Away from a worse model of the same thing: Karras et al. 2024, Eq. 3."""
  return classifier_free(good, bad, w)


def classifier(
  denoise: Denoise, gradient: Callable[[Array, Noise], Array], scale: Array
) -> Denoise:
  """Dhariwal & Nichol 2021, Alg. 2: eps - scale sigma gradient, said of x_0.

  `gradient(x_t, t)` is that of log p(y | x_t) with respect to x_t. Clip the
  denoiser before, as ADM does, or after. For Alg. 1, which shifts the mean,
  see `samplers.ancestral`.
  """

  def guided(x_t: Array, t: Noise) -> Array | Estimate:
    shift = t.sigma**2 / t.alpha * scale * gradient(x_t, t)
    D = denoise(x_t, t)
    return moved(D, mean(D) + shift)

  return guided


def interval(
  inside: Denoise, outside: Denoise, lo: Array, hi: Array
) -> Denoise:
  """`inside` for lo < sigma / alpha <= hi: Kynkaanniemi et al. 2024, Eq. 5.

  Only the one that is asked is evaluated. Both or neither learn the variance.
  """

  def denoise(x_t: Array, t: Noise) -> Array | Estimate:
    r = t.sigma / t.alpha
    return jax.lax.cond((lo < r) & (r <= hi), inside, outside, x_t, t)

  return denoise


def clip(denoise: Denoise, lo: Array = -1.0, hi: Array = 1.0) -> Denoise:
  """Estimates of x_0 in the range of the data."""

  def clipped(x_t: Array, t: Noise) -> Array | Estimate:
    D = denoise(x_t, t)
    return moved(D, jnp.clip(mean(D), lo, hi))

  return clipped
