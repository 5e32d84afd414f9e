"""Minibatch discrimination: Salimans et al. 2016, Sec. 3.2."""
import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class Discrimination(nn.Module):
  """Features [B, A] -> [B, A + kernels]: how near others in the batch are.

  M_i = f(x_i) T and o_ib = sum_{j != i} exp(-|M_ib - M_jb|_1); a generator that
  says the same thing over and over is found out by it. Needs memory for
  B^2 kernels dims numbers.

  Attributes:
    kernels: B of the paper, numbers that are appended; 100 in its code.
    dims: C of the paper, the length of what is compared; 5 in its code.
  """
  kernels: int = 100
  dims: int = 5

  @nn.compact
  def __call__(self, f: Array) -> Array:
    m = nn.DenseGeneral((self.kernels, self.dims), use_bias=False,
                        kernel_init=nn.initializers.normal(0.05), name="T")(f)
    gap = jnp.abs(m[:, None] - m[None]).sum(-1)  # [B, B, kernels]
    near = jnp.exp(-gap).sum(1) - 1  # without the example itself
    return jnp.concatenate([f, near], -1)
