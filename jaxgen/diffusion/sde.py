"""Predictor-corrector sampling of the reverse SDE, as in `samplers`."""

import jax
import jax.numpy as jnp

from jaxgen.diffusion.estimate import Denoise, mean
from jaxgen.diffusion.process import Noise
from jaxgen.diffusion.samplers import Leg, noise, walk

Array = jax.Array


def pc(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  snr: float = 0.16,
  cap: float = float("inf"),
) -> Array:
  """Reverse diffusion, Langevin's corrector: Song et al. 2021, Algs. 1, 4, 5.

  At every point a Langevin step of the signal-to-noise ratio `snr` (0: none),
  then the predictor's step to the next one (App. E, Eq. 46), whose forward step
  x_t = a x_s + G z is the process' own: Eq. 9 on VE and EDM, Eq. 11 on VP and
  discrete ones. Like Euler's, it wants a close to 1: many points, few of them
  where alpha goes to zero. 2 n evaluations.

  The norm of the score is the example's own, and that of the noise the root of
  its dimension, as the paper has it for one sample (App. G); the authors' code
  takes a batch's mean norms. In few dimensions a score can be about zero and
  its step huge: `cap` bounds the step to cap sigma^2, which the authors do not.
  """
  d, tiny = x_T[0].size, jnp.finfo(x_T.dtype).tiny
  norm = lambda x: jnp.sqrt((x**2).sum(range(1, x.ndim), keepdims=True))

  def step(x: Array, leg: Leg) -> tuple[Array, Array]:
    t, s, i = leg.t, leg.s, leg.i // 2
    x0 = mean(denoise(x, t))
    score = (t.alpha * x0 - x) / t.sigma**2
    z = noise(leg.key, x.shape[1:])
    ahead = path.alpha[jnp.minimum(i + 1, n - 1)]
    ahead = jnp.where(i + 1 < n, ahead, 1.0)  # the last: to x_0
    ratio = t.alpha / ahead * snr * d**0.5
    langevin = 2 * (ratio / jnp.maximum(norm(score), tiny)) ** 2
    langevin = jnp.minimum(langevin, cap * t.sigma**2)
    langevin = jnp.where(jnp.isfinite(langevin), langevin, 0)  # no score
    # On a corrector's leg s is t, and the forward step is none.
    correct = leg.i % 2 == 0
    a = jnp.where(correct, 1.0, t.alpha / s.alpha)
    forward = jnp.maximum(t.sigma**2 - (a * s.sigma) ** 2, 0)
    drift = jnp.where(correct, langevin, forward)
    std = jnp.sqrt(jnp.where(correct, 2 * langevin, forward))
    return (2 - a) * x + drift * score + std * z, x0

  # Every point twice: to correct there, and to leave from.
  twice = jax.tree.map(lambda a: jnp.repeat(a, 2), path)
  return walk(step, x_T, twice, 2 * n, key)


pc.nfe = lambda n: 2 * n
