"""Nets that are told several numbers of an example: F(x, c [B, K], y).

For flow maps, whose c are a time and how far to go, and what else they learn to
be told (see `models.mean_flow`). Each column of c is embedded as the one time of
other nets is, and the embeddings are summed. In float32.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets import dit, mlp
from jaxgen.nets.layers import sinusoids
from jaxgen.nets.unet import TORCH

Array = jax.Array


def columns(c: Array) -> list[Array]:
  """[B, K] -> K of [B]."""
  return list(jnp.moveaxis(c, -1, 0))


def embedding(
  c: Array, y: Array | None, width: int, labels: int, level: Array | None = None, scale: float = 1.0
) -> Array:
  """For `nets.unet.UNet.embedding`: [B, 4 width], of c times `scale`."""
  if level is not None:
    raise ValueError("this embedding reads no level of augmentation")
  dense = functools.partial(nn.Dense, 4 * width, kernel_init=TORCH)
  emb = 0.0
  for i, a in enumerate(columns(c)):
    hidden = nn.silu(dense(name=f"time_{i}_0")(sinusoids(scale * a, width)))
    emb += dense(name=f"time_{i}_2")(hidden)
  if labels:
    emb += nn.Embed(labels, 4 * width, name="label", embedding_init=nn.initializers.normal(1.0))(y)
  return nn.silu(emb)


class DiT(dit.DiT):
  """DiT that is told two times, as Geng et al. 2025 (MeanFlow) have it."""

  def condition(self, c_noise: Array, y: Array | None) -> Array:
    """Of c [B, 2], and labels: [B, D] float32."""
    t, h = columns(c_noise)
    dense = functools.partial(nn.Dense, self.width, kernel_init=dit.SMALL)
    span = dense(name="span_2")(nn.silu(dense(name="span_0")(sinusoids(h, dit.FEATURES))))
    return super().condition(t, y) + span


class Denoiser(mlp.Denoiser):
  """F(x, c, y), shaped like x [B, D], of c times `scale`; for points."""

  scale: float = 1.0

  def condition(self, c_noise: Array) -> Array:
    """Of c [B, K], [B, E]."""
    return jnp.concatenate([sinusoids(self.scale * a, 32) for a in columns(c_noise)], -1)
