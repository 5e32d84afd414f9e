"""A diffusion transformer with today's trunk, as language models have it.

Beside DiT: RMSNorm (Zhang & Sennrich 2019), rotary places in two dimensions
(Su et al. 2021; Heo et al. 2024), SwiGLU (Shazeer 2020) and normed queries and
keys (Henry et al. 2020; Dehghani et al. 2023). Such trunks train faster than
DiT's at equal size (LightningDiT, Yao et al. 2025, arXiv 2501.01423);
theirs adds fixed places too, which rotary ones make needless here.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets import dit

Array = jax.Array
MULTIPLE = 64  # of which a perceptron's width is

Norm = functools.partial(nn.RMSNorm, epsilon=1e-6)  # in float32


class Attention(dit.Attention):
  """Self-attention that sees how far apart tokens are, [B, T, D].

  Queries and keys of every head have norm sqrt(C) before a learned gain, so
  that logits stay small in bfloat16; then they are turned by their place.

  Attributes:
    grid: Rows and columns of tokens, which come row by row.
  """

  grid: tuple[int, int] = (1, 1)

  def adapt(self, q: Array, k: Array) -> tuple[Array, Array]:
    """Normed and turned, [B, T, N, C]."""
    cos, sin = angles(self.grid, q.shape[-1])
    q, k = Norm(name="norm_q")(q), Norm(name="norm_k")(k)
    return tuple(rotate(x.astype(jnp.float32), cos, sin).astype(self.dtype) for x in (q, k))


class SwiGLU(nn.Module):
  """Tokens one by one: silu(a) b of two matrices, and back (Shazeer 2020).

  Two thirds as wide as a perceptron with one, so that weights are as many.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    hidden = -(-8 * width // (3 * MULTIPLE)) * MULTIPLE
    dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=dit.XAVIER)
    a, b = jnp.split(dense(2 * hidden, name="fc1")(x), 2, -1)
    return dense(width, name="fc2")(nn.silu(a) * b)


class ModernDiT(dit.Transformer):
  """DiT's frame and adaLN-zero around today's blocks."""

  norm = Norm

  def block(self, grid: tuple[int, int]) -> Callable[..., nn.Module]:
    """See Transformer."""
    return functools.partial(
      dit.Block,
      attention=functools.partial(Attention, self.heads, self.dtype, grid),
      mlp=functools.partial(SwiGLU, self.dtype),
      norm=Norm,
    )


def angles(grid: tuple[int, int], head: int) -> tuple[np.ndarray, np.ndarray]:
  """Cosines and sines [T, 1, head / 2]: the row's quarter, then the column's."""
  if head % 4:
    raise ValueError(f"heads of {head} channels: places in two dimensions want a multiple of 4")
  w = 1 / 10000 ** (np.arange(head // 4) / (head / 4))
  places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, 2, 1)
  angle = (places * w).reshape(len(places), 1, -1)
  return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
  """Turns the pairs (i, i + C / 2) of x [B, T, N, C] (Su et al. 2021, Eq. 34)."""
  a, b = jnp.split(x, 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
