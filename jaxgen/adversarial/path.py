"""Path lengths: equal steps in styles are to be equal steps in images."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.adversarial.penalties import safe_sqrt

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class PathLength:
  """E (|J'y| - a)^2, where a is a moving mean of |J'y| (Karras et al. 2020,
  Eq. 4).

  J is the synthesis network's Jacobian and y an image of N(0, 1), scaled by
  1 / sqrt(H W). The norm is the root of the layers' mean of squared norms.

  Attributes:
    weight: Of the loss; `every` comes on top.
    decay: Share of a new mean in the moving one.
    every: Batches per move (lazy regularisation).
    shrink: The loss reads every so-many-th example of a batch.
  """

  weight: float = 2.0
  decay: float = 0.01
  every: int = 4
  shrink: int = 2

  def init(self) -> dict[str, Array]:
    """The moving mean, []."""
    return {"mean": jnp.zeros([])}

  def __call__(
    self, synthesize: Callable[[Array], Array], ws: Array, key: Array, stats: dict[str, Array]
  ) -> tuple[Array, dict[str, Array]]:
    """(ws -> images), ws [B, L, W], keys [B] -> loss [], stats."""
    image = jax.eval_shape(synthesize, ws).shape[1:]
    y = jax.vmap(lambda k: jax.random.normal(k, image))(key)
    y /= jnp.sqrt(float(y[0, ..., 0].size))
    g = jax.grad(lambda ws: jnp.sum(synthesize(ws) * y))(ws)
    lengths = safe_sqrt(jnp.mean(jnp.sum(g**2, 2), 1))
    # As in the reference, the mean of now is no constant.
    mean = stats["mean"] + self.decay * (jnp.mean(lengths) - stats["mean"])
    loss = self.weight * jnp.mean((lengths - mean) ** 2)
    return loss, {"mean": jax.lax.stop_gradient(mean)}
