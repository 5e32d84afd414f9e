"""Denoisers: an estimate of x_0 from x_t, perhaps with a learned variance.

  denoise(x_t, t: Noise of scalars) -> x_0, or Estimate(x_0, frac)

A net that learns the variance of the chain's steps gives an Estimate. Only what
draws from the chain or bounds its likelihood reads `frac`; all else takes the
`mean` of either.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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


class Outside(NamedTuple):
  """A denoiser that is no part of a program, such as one that takes x in pieces.

  Samplers call it with the arrays themselves, one step after the other.
  """

  denoise: Denoise

  def __call__(self, x_t: Array, t: Noise) -> Array | Estimate:
    return self.denoise(x_t, t)


def loop(denoise: Denoise) -> Callable[..., Any]:
  """`jax.lax.fori_loop`, for steps that call `denoise`; so `n` may be traced.

  Python's own, of the same arguments, if the denoiser is `Outside` of programs.
  """
  return _in_turn if isinstance(denoise, Outside) else jax.lax.fori_loop


def _in_turn(first: int, last: Array | int, step: Callable[[Array, Any], Any], carry: Any) -> Any:
  for i in range(first, int(last)):
    carry = step(jnp.int32(i), carry)
  return carry


def mean(D: Array | Estimate) -> Array:
  """The estimate of x_0 alone."""
  return D.x_0 if isinstance(D, Estimate) else D


def with_x_0(D: Array | Estimate, x_0: Array) -> Array | Estimate:
  """D with another x_0, and the same fraction if it has one."""
  return D._replace(x_0=x_0) if isinstance(D, Estimate) else x_0
