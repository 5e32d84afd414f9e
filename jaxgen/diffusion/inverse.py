"""Inverse problems without training: from a denoiser to one that knows y = A x + noise.

Each maps D(x_t, t) to a denoiser D'(x_t, t) of x given y, so that any sampler draws from
it; see `diffusion.linear` for A. In terms of scores (Tweedie's formula) D' should be

  D + sigma^2 / alpha grad log p(y | x_t)

and methods differ in what they take p(y | x_t) for. Of data that are a Gaussian `moments`
is exact; `pseudoinverse` is where pixels are independent; the others are not. A gradient
is taken through the net: two of them cost about three evaluations without one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.denoiser import Denoise, Estimate, mean, with_x_0
from jaxgen.diffusion.linear import Linear
from jaxgen.diffusion.posterior import CLEAN, posterior
from jaxgen.diffusion.process import Noise

Array = jax.Array
Pull = Callable[[Array], Array]
BYTES = 1 / 127.5 / np.sqrt(12)  # deviation of what rounding to bytes does, in [-1, 1]


def replacement(denoise: Denoise, A: Linear, y: Array, noise: Array | float = 0.0) -> Denoise:
  """What is known of x_0 is put in its place: D + A^-1 (y - A D), A^-1 the pseudo-inverse.

  Of a mask it is y where that is known, and a sampler's x_t there then is a draw from
  q(x_t | y): the replacement method (Song et al. 2021, App. I.2; Ho et al. 2022 (video),
  Sec. 3.1), where however the noise is drawn anew at each step. Of other operators it is
  the range-null space decomposition (Wang et al. 2023, DDNM, Eq. 13). With `noise`, the
  deviation of that of y, the inverse is Tikhonov's.
  """

  def known(x_t: Array, t: Noise) -> Array | Estimate:
    D = denoise(x_t, t)
    x_0 = mean(D)
    return with_x_0(D, x_0 + A.inverse(y - A.apply(x_0), noise**2))

  return known


def dps(
  denoise: Denoise, A: Linear, y: Array, zeta: Array | float, step: Callable[[Noise], Noise]
) -> Denoise:
  """Diffusion posterior sampling (Chung et al. 2023, Alg. 1), of normalised steps.

  The authors move x_s, after a step of DDPM, by -zeta grad |y - A D(x_t)|; here x_0 is
  moved by so much that DDPM's step from t to s = step(t) comes to the same. Other samplers
  weigh x_0 otherwise. How strong it is depends on the number of steps: zeta is for each.
  """

  def guided(x_t: Array, t: Noise) -> Array | Estimate:
    def distance(x_t: Array) -> tuple[Array, Array | Estimate]:
      D = denoise(x_t, t)
      square = jnp.sum((y - A.apply(mean(D))) ** 2, range(1, y.ndim))
      return jnp.sum(jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))), D

    slope, D = jax.grad(distance, has_aux=True)(x_t)
    weight, _ = posterior(jnp.zeros(()), jnp.ones(()), t, step(t))  # of x_0 in x_s
    share = jnp.where(weight > 0, zeta / jnp.where(weight > 0, weight, 1.0), 0.0)
    return with_x_0(D, mean(D) - share * slope)

  return guided


def following(path: Noise, n: Array) -> Callable[[Noise], Noise]:
  """t -> the next point of the path, at its end the clean one: for `dps`.

  Levels between two points are taken for the noisier one.
  """
  ends = jax.tree.map(lambda a, end: jnp.append(a, jnp.asarray(end, a.dtype)), path, CLEAN)

  def step(t: Noise) -> Noise:
    passed = (path.logsnr <= t.logsnr + 1e-4) & (jnp.arange(len(path.t)) < n)
    i = jnp.maximum(jnp.sum(passed), 1)
    return jax.tree.map(lambda a: a[jnp.where(i < n, i, len(path.t))], ends)

  return step


def reconstruction(denoise: Denoise, A: Linear, y: Array, weight: Array | float = 2.0) -> Denoise:
  """Reconstruction guidance (Ho et al. 2022 (video), Eq. 7).

  D - weight alpha / 2 grad |y - A D(x_t)|^2; x_t's known part is not replaced.
  """

  def guided(x_t: Array, t: Noise) -> Array | Estimate:
    D, x_0, pull = _pulled(denoise, x_t, t)
    return with_x_0(D, x_0 + weight * t.alpha * pull(A.adjoint(y - A.apply(x_0))))

  return guided


def pseudoinverse(
  denoise: Denoise,
  A: Linear,
  y: Array,
  noise: Array | float = 0.0,
  spread: Array | float = 1.0,
  weight: Array | float = 1.0,
) -> Denoise:
  """Pseudoinverse-guided diffusion, PiGDM (Song et al. 2023, Sec. 3).

  p(x_0 | x_t) is taken for N(D, r^2), r^2 = sigma^2 / (sigma^2 / spread^2 + alpha^2): what
  it is for independent pixels of deviation `spread`, 1 in the paper. `noise` is the
  deviation of that of y. `weight` scales the guidance; as a likelihood has it, 1.
  """

  def guided(x_t: Array, t: Noise) -> Array | Estimate:
    D, x_0, pull = _pulled(denoise, x_t, t)
    variance = t.sigma**2 / (t.sigma**2 / spread**2 + t.alpha**2)
    v = A.solve(y - A.apply(x_0), variance, noise**2)
    return with_x_0(D, x_0 + weight * _gain(t) * pull(A.adjoint(v)))

  return guided


def moments(
  denoise: Denoise, A: Linear, y: Array, noise: Array | float = BYTES, iterations: Array | int = 1
) -> Denoise:
  """Moment matching: p(x_0 | x_t) is N(D, V), V = sigma^2 / alpha dD / dx_t (Tweedie's).

  Rozet et al. 2024 (MMPS), and Boys et al. 2023: exact for a Gaussian. The
  system (A V A' + noise^2) v = y - A D is solved by so many iterations of conjugate
  gradients, each of them a gradient through the net; `noise` should be positive. A net's
  V is no covariance where x_0 is clipped or the net is rough: there one iteration does
  best, and many go astray; where it is exact, as many as y has pixels.
  """

  def guided(x_t: Array, t: Noise) -> Array | Estimate:
    D, x_0, pull = _pulled(denoise, x_t, t)
    spread = lambda v: _gain(t) * pull(A.adjoint(v))
    matrix = lambda v: A.apply(spread(v)) + noise**2 * v
    v = conjugate_gradients(matrix, y - A.apply(x_0), iterations)
    return with_x_0(D, x_0 + spread(v))

  return guided


def conjugate_gradients(matrix: Pull, b: Array, iterations: Array | int) -> Array:
  """v [B, ...] with matrix(v) = b, from zero; of each example by itself.

  The number of iterations may be traced. An example whose matrix shows itself not to be
  positive, as a net's may, stays as it is.
  """
  dot = lambda u, v: jnp.sum(u * v, range(1, b.ndim), keepdims=True)
  over = lambda a, b: jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)

  def step(_: int, carry: tuple) -> tuple:
    v, rest, way, size = carry
    ahead = matrix(way)
    length = over(size, dot(way, ahead))
    v, rest = v + length * way, rest - length * ahead
    new = dot(rest, rest)
    return v, rest, rest + over(new, size) * way, new

  start = jnp.zeros_like(b), b, b, dot(b, b)
  return jax.lax.fori_loop(0, jnp.int32(iterations), step, start)[0]


def _pulled(denoise: Denoise, x_t: Array, t: Noise) -> tuple[Array | Estimate, Array, Pull]:
  """D, its x_0, and g -> (d x_0 / d x_t)' g."""

  def f(x_t: Array) -> tuple[Array, Array | Estimate]:
    D = denoise(x_t, t)
    return mean(D), D

  x_0, pull, D = jax.vjp(f, x_t, has_aux=True)
  return D, x_0, lambda g: pull(g)[0]


def _gain(t: Noise) -> Array:
  """sigma^2 / alpha; 0 where nothing of x_0 is left, and D does not look at x_t."""
  return jnp.where(t.alpha > 0, t.sigma**2 / jnp.where(t.alpha > 0, t.alpha, 1.0), 0.0)
