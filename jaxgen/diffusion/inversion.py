"""Images as noise: DDIM's encoding, ways between two images, bridges, partial noise.

An encoded image is x_T / sigma_T, about N(0, 1): the "noise" that sampling may begin
with, also on the path of another model.
"""

import jax
import jax.numpy as jnp

from jaxgen.diffusion import samplers
from jaxgen.diffusion.denoiser import Denoise
from jaxgen.diffusion.process import VP, Noise
from jaxgen.keys import normal

Array = jax.Array


def encode(denoise: Denoise, x_0: Array, path: Noise, n: Array, key: Array) -> Array:
  """x_0 [B, ...] -> noise of unit variance: the ODE backwards, see `samplers.encode`.

  Takes x_0 for the path's last point, as ADM's `ddim_reverse_sample` does; n - 1
  evaluations. Guidance (w > 1) makes the way back another one (Mokady et al. 2023).
  The first half of dual diffusion bridges (Su et al. 2023, Alg. 1): the second is the
  ODE of another model, or another label, from this noise.
  """
  return samplers.encode(denoise, x_0, path, n, key) / path.sigma[0]


def slerp(a: Array, b: Array, share: Array) -> Array:
  """Between two noises [B, ...] on the sphere: Song et al. 2021 (DDIM), App. D.5.

  share: [B] in [0, 1], 0 is a and 1 is b. Of each example by itself; the way is
  straight where both point the same way.
  """
  axes = range(1, a.ndim)
  share = share.reshape(-1, *[1] * (a.ndim - 1))
  dot = lambda u, v: jnp.sum(u * v, axes, keepdims=True)
  cosine = dot(a, b) * jax.lax.rsqrt(jnp.maximum(dot(a, a) * dot(b, b), 1e-12))
  angle = jnp.arccos(jnp.clip(cosine, -1, 1))
  sine = jnp.sin(angle)
  bent = sine > 1e-3
  weight = lambda part: jnp.where(bent, jnp.sin(part * angle) / jnp.where(bent, sine, 1), part)
  return weight(1 - share) * a + weight(share) * b


def later(path: Noise, n: Array, strength: Array | float) -> tuple[Noise, Array]:
  """The part of a path that SDEdit walks (Meng et al. 2022, Alg. 1), and its points.

  `strength` is their t_0 in [0, 1], the time of the variance-preserving SDE: it stands
  for a ratio sigma / alpha (0.3: 1.2, 0.5: 3.4), so that it is as strong on any process.
  The path begins at its first point with no more noise than that, or its last one.
  """
  target = VP()(jnp.clip(strength, 1e-6, 1.0)).logsnr
  # At 1 all of it: also where a path begins with more noise than the SDE has.
  noisier = (path.logsnr < target - 1e-4) & (jnp.arange(len(path.t)) < n) & (strength < 1)
  first = jnp.minimum(jnp.sum(noisier), n - 1)
  index = jnp.minimum(first + jnp.arange(len(path.t)), len(path.t) - 1)
  return jax.tree.map(lambda a: a[index], path), n - first


def noised(x_0: Array, path: Noise, key: Array) -> Array:
  """x_t ~ q(x_t | x_0) at the path's first point, keys [B]: where SDEdit begins."""
  return path.alpha[0] * x_0 + path.sigma[0] * normal(key, x_0.shape[1:])
