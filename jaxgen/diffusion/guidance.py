"""Guidance: maps denoisers to a denoiser. Weights may be traced scalars.

It moves x_0. Of denoisers that learn the variance, the first one's (that which
knows the condition) fraction is kept, as in GLIDE and DiT.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.diffusion.denoiser import Denoise, Estimate, mean, moved
from jaxgen.diffusion.process import Noise

Array = jax.Array
Weight = Array | Callable[[Noise], Array]


def classifier_free(cond: Denoise, uncond: Denoise, w: Weight) -> Denoise:
  """uncond + w (cond - uncond): Ho & Salimans 2022, Eq. 6, where w is 1 + w.

  Where w = 1 there is no guidance, and `uncond` is not evaluated at all. The
  weight may be a function of the noise level, see `within`.
  """

  def denoise(x_t: Array, t: Noise) -> Array | Estimate:
    D = cond(x_t, t)
    x_0, now = mean(D), w(t) if callable(w) else w

    def guided() -> Array:
      null = mean(uncond(x_t, t))
      return (null + now * (x_0 - null)).astype(x_0.dtype)

    return moved(D, jax.lax.cond(jnp.asarray(now) == 1, lambda: x_0, guided))

  return denoise


def within(w: Array, lo: Array, hi: Array) -> Callable[[Noise], Array]:
  """Weight w for lo < sigma / alpha <= hi, else 1: Kynkaanniemi et al. 2024.

  Their Eq. 5, of classifier-free guidance. Says what `interval` would, but each
  network is in the program once.
  """
  return lambda t: jnp.where(_inside(t, lo, hi), w, 1.0)


def autoguidance(good: Denoise, bad: Denoise, w: Weight) -> Denoise:
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


def interval(inside: Denoise, outside: Denoise, lo: Array, hi: Array) -> Denoise:
  """`inside` for lo < sigma / alpha <= hi, of any two denoisers.

  Only the one that is asked is evaluated. Both or neither learn the variance.
  """

  def denoise(x_t: Array, t: Noise) -> Array | Estimate:
    return jax.lax.cond(_inside(t, lo, hi), inside, outside, x_t, t)

  return denoise


def _inside(t: Noise, lo: Array, hi: Array) -> Array:
  r = t.sigma / t.alpha
  return (lo < r) & (r <= hi)


def clip(denoise: Denoise, lo: Array = -1.0, hi: Array = 1.0) -> Denoise:
  """Estimates of x_0 in the range of the data."""

  def clipped(x_t: Array, t: Noise) -> Array | Estimate:
    D = denoise(x_t, t)
    return moved(D, jnp.clip(mean(D), lo, hi))

  return clipped
