"""Times drawn where the loss is large: less noise in the bound's gradient.

The history of losses is a pytree of arrays that training carries along; nothing
here runs on the host.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.diffusion.process import position

Array = jax.Array


class History(NamedTuple):
  """The last losses of every time: a ring buffer for each."""

  losses: Array  # [steps, history] float32, of which `seen` are filled
  seen: Array  # [steps] int32, number of losses so far


@dataclasses.dataclass(frozen=True)
class SecondMoment:
  """p_t ~ sqrt(E[L_t^2]) over the last losses: Nichol & Dhariwal 2021, Eq. 18.

  Uniform until every one of `steps` times has had `history` losses; after that
  `floor` of the probability stays uniform.
  """

  steps: int = 1000
  history: int = 10
  floor: float = 0.001

  def init(self) -> History:
    """An empty history."""
    shape = self.steps, self.history
    return History(jnp.zeros(shape), jnp.zeros(self.steps, jnp.int32))

  def probabilities(self, stats: History) -> Array:
    """[steps], of the times 1 / steps, 2 / steps, .., 1."""
    even = jnp.full(self.steps, 1 / self.steps)
    mixed = (1 - self.floor) * self._moment(stats) + self.floor * even
    return jnp.where(self._warm(stats), mixed, even)

  def __call__(self, key: Array, ndim: int, stats: History) -> tuple[Array, Array]:
    """Keys [B] -> t [B, 1, .., 1] and the weights [B] of their losses.

    With the weights, 1 / (steps p_t), the loss keeps its expectation.
    """
    cdf = jnp.cumsum(self._moment(stats))
    floor = jnp.where(self._warm(stats), self.floor, 1.0)

    # From the mixture's parts: rare times are not lost in the sums' rounding.
    def draw(k: Array) -> Array:
      which, even, uneven = jax.random.split(k, 3)
      anywhere = jax.random.randint(even, (), 0, self.steps)
      u = jax.random.uniform(uneven) * cdf[-1]
      index = jnp.searchsorted(cdf, u, side="right").astype(jnp.int32)
      index = jnp.minimum(index, self.steps - 1)
      return jnp.where(jax.random.uniform(which) < floor, anywhere, index)

    index = jax.vmap(draw)(key)
    weight = 1 / (self.steps * self.probabilities(stats)[index])
    t = (index + 1) / self.steps
    return t.reshape(-1, *[1] * (ndim - 1)), weight

  def update(self, stats: History, t: Array, losses: Array) -> History:
    """Adds losses [B] of the times t [B, 1, .., 1], in the batch's order."""
    index = position(t.reshape(-1), self.steps).astype(jnp.int32) - 1
    order = jnp.argsort(index, stable=True)
    index, losses = index[order], losses.reshape(-1)[order]
    # Of one batch's losses at one time: how many go before and how many after.
    before = jnp.arange(len(index)) - jnp.searchsorted(index, index)
    ahead = jnp.searchsorted(index, index, side="right") - 1
    after = ahead - jnp.arange(len(index))
    slot = (stats.seen[index] + before) % self.history
    row = jnp.where(after < self.history, index, self.steps)  # else dropped
    return History(stats.losses.at[row, slot].set(losses, mode="drop"), stats.seen.at[index].add(1))

  def _warm(self, stats: History) -> Array:
    return (stats.seen >= self.history).all()

  def _moment(self, stats: History) -> Array:
    moment = jnp.sqrt(jnp.mean(stats.losses**2, axis=1))
    return moment / jnp.maximum(moment.sum(), jnp.finfo(moment.dtype).tiny)
