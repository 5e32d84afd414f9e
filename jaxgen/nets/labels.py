"""Labels as vectors: of one class, or of several by weight."""
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
USUAL = nn.initializers.variance_scaling(1., "fan_in", "normal", out_axis=0)


class LabelEmbed(nn.Module):
  """Labels -> vectors [B, width], rows of a table.

  Labels are int32 [B], or float32 [B, classes]: weights of the rows, by which
  one walks from class to class.
  """
  classes: int
  width: int
  embedding_init: Callable[..., Array] = USUAL

  @nn.compact
  def __call__(self, y: Array) -> Array:
    table = self.param("embedding", self.embedding_init,
                       (self.classes, self.width))
    if jnp.issubdtype(y.dtype, jnp.integer):
      return jnp.take(table, y, axis=0)
    return jnp.dot(y, table, precision=jax.lax.Precision.HIGHEST)


class Projection(nn.Module):
  """Features [B, D], labels -> logits [B] (Miyato & Koyama 2018, Eq. 5).

  Attributes:
    classes: Number of labels; 0: features alone decide.
    norm: What wraps each layer, such as nets.spectral.spectral.
    kernel_init: Of both layers.
  """
  classes: int
  norm: Callable[[nn.Module], nn.Module]
  kernel_init: Callable[..., Array] = nn.initializers.orthogonal()

  @nn.compact
  def __call__(self, h: Array, y: Array | None = None) -> Array:
    logit = self.norm(nn.Dense(
        1, kernel_init=self.kernel_init, name="linear"))(h)
    if not self.classes:
      return logit[:, 0]
    row = self.norm(LabelEmbed(
        self.classes, h.shape[-1], self.kernel_init, name="label"))(y)
    return logit[:, 0] + jnp.sum(row * h, -1)
