"""Linear operators of images, y = A x + noise: what is measured of x [B, H, W, C].

Each knows its adjoint and solves (a A A' + c) v = b in closed form, which is what
methods in `diffusion.inverse` want. Where nothing is left to divide by, v is zero: with
c = 0 and a = 1 that makes the pseudo-inverse A' (A A')^-1. Strengths may be traced.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion import degrade

Array = jax.Array
LEAST = 1e-6  # below this a divisor is taken for zero


class Linear(NamedTuple):
  """An operator A.

  apply: x [B, H, W, C] -> y [B, ...], A x.
  adjoint: y -> x, A' y.
  solve: (b like y, a >= 0, c >= 0) -> v like y, with (a A A' + c) v = b.
  """

  apply: Callable[[Array], Array]
  adjoint: Callable[[Array], Array]
  solve: Callable[[Array, Array | float, Array | float], Array]

  def inverse(self, y: Array, c: Array | float = 0.0) -> Array:
    """The pseudo-inverse of y, or with c > 0 Tikhonov's: A' (A A' + c)^-1 y."""
    return self.adjoint(self.solve(y, 1.0, c))


def mask(keep: Array) -> Linear:
  """Keeps pixels where `keep` is 1 and makes the others 0; [B or 1, H, W, 1]."""
  cut = lambda x: keep * x
  return Linear(cut, cut, lambda b, a, c: _over(b, a * keep + c))


def downsample(shape: tuple[int, ...], factor: int) -> Linear:
  """Means over boxes of factor x factor; `shape` [H, W, C] is that of x.

  ValueError where the factor does not divide both sides.
  """
  height, width, channels = shape
  if factor < 1 or height % factor or width % factor:
    raise ValueError(f"{height}x{width} cannot be cut into boxes of {factor}x{factor}")

  def apply(x: Array) -> Array:
    boxes = x.reshape(len(x), height // factor, factor, width // factor, factor, channels)
    return jnp.mean(boxes, (2, 4))

  def adjoint(y: Array) -> Array:
    return jnp.repeat(jnp.repeat(y, factor, 1), factor, 2) / factor**2

  return Linear(apply, adjoint, lambda b, a, c: _over(b, a / factor**2 + c))


def grey(channels: int = 3) -> Linear:
  """Luma of x, [B, H, W, 1]; see `degrade.grey`."""
  weights = np.float32(degrade.LUMA if channels == 3 else [1.0])
  length = float(np.sum(weights**2))
  adjoint = lambda y: y * weights
  return Linear(degrade.grey, adjoint, lambda b, a, c: _over(b, a * length + c))


def blur(shape: tuple[int, ...], width: Array | float) -> Linear:
  """By a Gaussian of `width` pixels, see `degrade.blur`, which is its own adjoint."""
  (rows, down), (columns, across) = (degrade.cosines(n) for n in shape[:2])
  gain = jnp.exp(-0.5 * (down[:, None] ** 2 + across**2) * width**2)[..., None]
  waves = lambda x: jnp.einsum("uh,vw,bhwc->buvc", rows, columns, x)
  pixels = lambda f: jnp.einsum("uh,vw,buvc->bhwc", rows, columns, f)
  apply = lambda x: pixels(gain * waves(x))
  return Linear(apply, apply, lambda b, a, c: pixels(_over(waves(b), a * gain**2 + c)))


def _over(b: Array, divisor: Array | float) -> Array:
  whole = divisor > LEAST
  return jnp.where(whole, b / jnp.where(whole, divisor, 1.0), 0.0)
