"""What a denoiser is trained for: weighs its errors against its likelihood.

Each maps an example's mean squared error of F, [B], and `vb` to a loss [B].
vb(stop) is the drawn time's term of the variational bound in bits per
dimension, [B] (see `posterior.vb_terms`); stop = True: with the estimate of x_0
held constant, so that it teaches the variance alone. It costs nothing where it
is not called.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
Bound = Callable[[bool], Array]


def squared(gap: Array) -> Array:
  """What an entry of F is off by -> its error, for L2."""
  return gap**2


def absolute(gap: Array) -> Array:
  """The same for L1 (Chen et al. 2021, Sec. 3)."""
  return jnp.abs(gap)


def simple(mse: Array, vb: Bound) -> Array:
  """L_simple: the error alone (Ho et al. 2020, Eq. 14)."""
  del vb
  return mse


def hybrid(mse: Array, vb: Bound, weight: float = 1.0) -> Array:
  """L_hybrid = L_simple + lambda L_vlb (Nichol & Dhariwal 2021, Eq. 16).

  The term of one time of T stands for 1 / T of L_vlb, so that lambda = 0.001
  is weight = T / 1000.
  """
  return mse + weight * vb(True)


def bound(mse: Array, vb: Bound, weight: float = 1000.0) -> Array:
  """L_vlb: bits per dimension themselves (Nichol & Dhariwal 2021, Eq. 4).

  With weight = T its mean is the bound's, but for the constant L_T.
  """
  del mse
  return weight * vb(False)
