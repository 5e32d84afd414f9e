"""Chains that end early: x_t in place of x_0, from any sampler."""

import jax
import jax.numpy as jnp

from jaxgen.diffusion.estimate import Denoise, Estimate, mean, moved
from jaxgen.diffusion.process import Noise

Array = jax.Array


def stopped(
  denoise: Denoise, path: Noise, n: Array, logsnr: Array
) -> tuple[Denoise, Noise, Array, Noise]:
  """A chain that ends early, in x_t itself: CDM's truncation.

  Of n points those are visited that are at least as noisy as `logsnr`, and any
  sampler then gives x_t at the last of them (Ho et al. 2022, Sec. 4.1). With
  logsnr = inf, which may be traced like all others, nothing changes.

  Returns:
    denoise, path and n for the sampler, and the last point. The path is one
    point longer, at which x_t is passed on as it is.
  """
  ends, i = jnp.isfinite(logsnr), jnp.arange(len(path.t))
  count = jnp.sum((i < n) & (path.logsnr <= logsnr))
  last = jnp.where(ends, jnp.maximum(count, 1), n) - 1
  here = jax.tree.map(lambda a: a[last], path)
  hold = lambda a, b: jnp.append(a, a[-1]).at[last + 1].set(b)
  held = Noise(hold(path.t, -1.0), *map(hold, path[1:], here[1:]))

  def passing(x_t: Array, t: Noise) -> Array | Estimate:
    D = denoise(x_t, t)
    return moved(D, jnp.where(t.t < 0, x_t, mean(D)))

  return passing, held, jnp.where(ends, last + 2, n), here
