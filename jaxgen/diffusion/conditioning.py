"""Conditioning augmentation: upsamplers that forgive their small images.

An upsampler in a cascade is trained on real small images but gets generated
ones. So training spoils them: with Gaussian noise, of a level that the net is
told and that is chosen when sampling (Ho et al. 2022, Secs. 4.1, 4.2), and with
blur (Sec. 4.3). Or the chain below stops early and hands on its x_t
(`stop_early`).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.diffusion.denoiser import Denoise, Estimate, mean, with_x_0
from jaxgen.diffusion.process import Noise
from jaxgen.keys import fold, normal

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Noisy:
  """z_s ~ q(z_s | z_0) in place of the small image z_0, and s for the network.

  Attributes:
    process: s in [0, 1] -> its alpha and sigma. To be given chains that stop
      early ("truncated"), any process whose noise levels the chain passes.
    hi: In training s ~ U[0, hi].
    blur: Share of training images that are blurred: none are when sampling.
    widths: Standard deviations of the blur in pixels, drawn evenly between.
  """

  process: Callable
  hi: float = 1.0
  blur: float = 0.0
  widths: tuple[float, float] = (0.4, 0.6)

  def __call__(self, key: Array, z_0: Array, s: Array | None = None) -> dict[str, Array]:
    """Keys [B], small images, levels s [B] -> the net's low_res and level.

    Without s as in training: levels are drawn, and a share is blurred.
    """
    if s is None:
      s, z_0 = self.draw(fold(key, 1)), self.soften(fold(key, 2), z_0)
    return {"low_res": self.spoil(fold(key, 0), z_0, s), "level": s}

  def draw(self, key: Array) -> Array:
    """Keys [B] -> levels s [B] to train at."""
    return jax.vmap(lambda k: jax.random.uniform(k, maxval=self.hi))(key)

  def spoil(self, key: Array, z_0: Array, s: Array) -> Array:
    """Keys [B], images [B, h, w, C], levels [B] -> z_s; z_0 itself at s = 0."""
    t = self.process(s.reshape(-1, *[1] * (z_0.ndim - 1)))
    z_s = t.alpha * z_0 + t.sigma * normal(key, z_0.shape[1:])
    return jnp.where(t.t > 0, z_s, z_0)

  def soften(self, key: Array, z_0: Array) -> Array:
    """Blurs a share of images [B, h, w, C] by a 3x3 Gaussian, edges mirrored.

    The paper blurs "half of the training images" with sigma ~ U(0.4, 0.6);
    that it is the small images, and before the noise, is our reading.
    """
    if not self.blur:
      return z_0

    def one(k: Array, z: Array) -> Array:
      whether, width = jax.random.split(k)
      sigma = jax.random.uniform(width, minval=self.widths[0], maxval=self.widths[1])
      side = jnp.exp(-0.5 / sigma**2)
      side, middle = side / (1 + 2 * side), 1 / (1 + 2 * side)
      soft = z
      for axis in (0, 1):
        pad = [(1, 1) if a == axis else (0, 0) for a in range(z.ndim)]
        wide = jnp.pad(soft, pad, mode="reflect")
        a, b, c = (jax.lax.slice_in_dim(wide, i, i + z.shape[axis], axis=axis) for i in range(3))
        soft = middle * b + side * (a + c)
      return jnp.where(jax.random.bernoulli(whether, self.blur), soft, z)

    return jax.vmap(one)(key, z_0)


def last_point(path: Noise, n: Array, logsnr: Array) -> Array:
  """Index of the last of n points that is at least as noisy as `logsnr`.

  The first point if none is; the very last where logsnr = inf.
  """
  noisy = (jnp.arange(len(path.t)) < n) & (path.logsnr <= logsnr)
  return jnp.where(jnp.isfinite(logsnr), jnp.maximum(jnp.sum(noisy), 1), n) - 1


def stop_early(
  denoise: Denoise, path: Noise, n: Array, logsnr: Array
) -> tuple[Denoise, Noise, Array]:
  """Makes any sampler end at `last_point` and give x_t: CDM's truncation.

  Ho et al. 2022, Sec. 4.1. With logsnr = inf, which may be traced like all
  others, nothing changes.

  Returns:
    denoise, path and n for the sampler. The path is one point longer, at which
    x_t is passed on as it is.
  """
  last = last_point(path, n, logsnr)
  here = jax.tree.map(lambda a: a[last], path)
  hold = lambda a, b: jnp.append(a, a[-1]).at[last + 1].set(b)
  longer = Noise(hold(path.t, -1.0), *map(hold, path[1:], here[1:]))

  def pass_on(x_t: Array, t: Noise) -> Array | Estimate:
    D = denoise(x_t, t)
    return with_x_0(D, jnp.where(t.t < 0, x_t, mean(D)))

  return pass_on, longer, jnp.where(jnp.isfinite(logsnr), last + 2, n)
