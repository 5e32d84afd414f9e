"""A long sum that every layer reads and adds to: written down at each, on CPUs.

XLA for CPUs fuses what is cheap into all that read it, so that layer i of a
residual net adds up i terms anew and N layers cost N^2 / 2 additions, in each
direction. Compilers for GPUs and TPUs stop by themselves.
"""

import jax
import jax.numpy as jnp


def materialize(x: jax.Array) -> jax.Array:
  """x of any shape, as an array in memory that nobody computes anew."""
  return jax.lax.platform_dependent(x, cpu=_written, default=lambda x: x)


def _written(x: jax.Array) -> jax.Array:
  first = x.ravel()[0]
  # What a branch returns is in memory, and the compiler cannot know which is
  # taken. The second would only spread a NaN that is there already.
  return jax.lax.cond(jnp.isnan(first), lambda x: x * first, lambda x: x, x)
