"""What a denoiser says of x_t: an estimate of x_0, and what it learned beside.

  denoise(x_t, t: Noise of scalars) -> x_0, or Estimate(x_0, frac)

A net that learns the variance of the chain's steps gives an Estimate. Only what
draws from the chain or bounds its likelihood reads `frac`; whoever wants x_0
alone takes `mean` of either.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxgen.diffusion.process import Noise

Array = jax.Array


class Estimate(NamedTuple):
  """x_0 and the fraction that sets the variance, in [0, 1], shaped alike.

  Nichol & Dhariwal 2021, Eq. 15: log variance = frac log beta + (1 - frac)
  log beta-tilde. ADM's net says v in [-1, 1], and frac = (v + 1) / 2.
  """

  x_0: Array
  frac: Array


Denoise = Callable[[Array, Noise], Array | Estimate]


def mean(D: Array | Estimate) -> Array:
  """The estimate of x_0 alone."""
  return D.x_0 if isinstance(D, Estimate) else D


def moved(D: Array | Estimate, x_0: Array) -> Array | Estimate:
  """D with another x_0; it keeps its fraction, if it has one."""
  return D._replace(x_0=x_0) if isinstance(D, Estimate) else x_0
