"""Guidance: maps denoisers to a denoiser. Weights may be traced scalars.

It moves x_0. A learned variance is that of the first denoiser, which knows the
condition, as in GLIDE and DiT.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.diffusion.denoiser import Denoise, Estimate, mean, with_x_0
from jaxgen.diffusion.process import Noise
from jaxgen.diffusion.traits import declare

Array = jax.Array
Weight = Array | Callable[[Noise], Array]


def classifier_free(cond: Denoise, uncond: Denoise, w: Weight) -> Denoise:
  """uncond + w (cond - uncond): Ho & Salimans 2022, Eq. 6, where w is 1 + w.

  Where w = 1 there is no guidance, and `uncond` is not evaluated at all. The
  weight may be a function of the noise level, see `within`.
  """
  return _guided(cond, uncond, w)


@declare(knobs=("channels",))
def first_channels(cond: Denoise, uncond: Denoise, w: Weight, channels: Array = 3) -> Denoise:
  """The same for the first `channels` of x_0's last axis; others are `cond`'s.

  The published numbers of DiT and SiT guide three of their latents' four (their
  code, `forward_with_cfg`).
  """
  return _guided(cond, uncond, w, channels)


def _guided(cond: Denoise, uncond: Denoise, w: Weight, channels: Array | None = None) -> Denoise:
  def denoise(x_t: Array, t: Noise) -> Array | Estimate:
    D = cond(x_t, t)
    x_0, weight = mean(D), w(t) if callable(w) else w

    def guided() -> Array:
      null = mean(uncond(x_t, t))
      moved = (null + weight * (x_0 - null)).astype(x_0.dtype)
      if channels is None:
        return moved
      return jnp.where(jnp.arange(x_0.shape[-1]) < channels, moved, x_0)

    if jnp.ndim(weight):  # a level each
      return with_x_0(D, jnp.where(weight == 1, x_0, guided()))
    return with_x_0(D, jax.lax.cond(jnp.asarray(weight) == 1, lambda: x_0, guided))

  return denoise


def within(w: Array, lo: Array, hi: Array) -> Callable[[Noise], Array]:
  """Weight w for lo < sigma / alpha <= hi, else 1: Kynkaanniemi et al. 2024.

  Their Eq. 5, of classifier-free guidance. As a choice between the guided and
  the plain denoiser, but each network is in the program once.
  """

  def weight(t: Noise) -> Array:
    r = t.sigma / t.alpha
    return jnp.where((lo < r) & (r <= hi), w, 1.0)

  return weight


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
    return with_x_0(D, mean(D) + shift)

  return guided


def clip(denoise: Denoise, lo: Array = -1.0, hi: Array = 1.0) -> Denoise:
  """Estimates of x_0 in the range of the data."""

  def clipped(x_t: Array, t: Noise) -> Array | Estimate:
    D = denoise(x_t, t)
    return with_x_0(D, jnp.clip(mean(D), lo, hi))

  return clipped
