"""A diffusion in front of the discriminator (Wang et al. 2022, Diffusion-GAN).

What D sees of x, real or fake, is y = sqrt(abar_t) x + sqrt(1 - abar_t) s eps,
and t is told (Eqs. 1 and 8). t is up to T, which adapts to D as p does in ADA. The
noise's size s is far below that of images: what is far along is faint and noisy,
not noise of unit variance.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.keys import fold, normal

Array = jax.Array
Stats = dict[str, Any]
LEAST, MOST = 10, 1000  # of T
BETAS = 1e-4, 2e-2  # from t = 1 to t = T
LIST = 64  # times to choose from; half of them are 0


@dataclasses.dataclass(frozen=True)
class Noising:
  """Noise of a time t in 0 .. T of each example; T follows how D fares.

  Attributes:
    sigma: Size s of the noise, in the units of x.
    target: Of E sign(D(real)), which p is led by: more is overfitting.
    every: Batches per move of p, and of T with it.
    kimg: Thousand examples in which p can go from 0 to 1.
    p: At the start; T is 10 + 990 p.
    priority: Times t > 0 are drawn in proportion to t - 1 (Eq. 11), not alike.
    before: Another augmentation, which comes first; None: none.
    seed: Of the draws of times.
  """

  sigma: float = 0.05
  target: float = 0.6
  every: int = 4
  kimg: float = 100.0
  p: float = 0.0
  priority: bool = True
  before: Any = None
  seed: int = 0

  logged = ("T",)  # p near 1, of which training warns, is nothing to worry about here

  def init(self) -> Stats:
    """p, T, the times [64] to choose from, the step since; sum of signs, examples."""
    T = longest(jnp.float32(self.p))
    now = {"p": jnp.float32(self.p), "T": T, "t": self.draw_times(T, 0), "since": jnp.int32(0)}
    now |= {"signs": jnp.float32(0), "seen": jnp.float32(0)}
    return now | ({"before": self.before.init()} if self.before else {})

  def advance(self, stats: Stats, step: Array) -> Stats:
    """Moves p, T and the times where a step begins that they are due at.

    Not where one ends, as in the source: so a batch that is differentiated in
    parts sees the same times in all of them.
    """
    due = step - stats["since"] >= self.every
    seen = jnp.maximum(stats["seen"], 1)
    move = jnp.sign(stats["signs"] / seen - self.target) * stats["seen"] / (1000 * self.kimg)
    p = jnp.clip(stats["p"] + move, 0, 1)
    T = longest(p)
    new = {"p": p, "T": T, "t": self.draw_times(T, step), "since": jnp.int32(step)}
    new |= {"signs": jnp.float32(0), "seen": jnp.float32(0)}
    return stats | {k: jnp.where(due, v, stats[k]) for k, v in new.items()}

  def draw_t(self, key: Array, stats: Stats) -> Array:
    """Keys [B] -> t int32 [B], for this object and D."""
    choose = lambda k: jax.random.randint(k, (), 0, LIST)
    return stats["t"][jax.vmap(choose)(key)]

  def __call__(self, x: Array, key: Array, stats: Stats, t: Array) -> Array:
    """x [B, ...] at the times t [B]; where t is 0, x bit for bit."""
    if self.before:
      x = self.before(x, key, stats["before"])
    return diffuse(x, self.sigma * normal(fold(key, 1), x.shape[1:]), t, stats["T"])

  def update(self, stats: Stats, real_logits: Array, step: Array, batch: int) -> Stats:
    """Counts D's signs on `batch` real examples."""
    new = {"signs": stats["signs"] + jnp.sum(jnp.sign(real_logits)), "seen": stats["seen"] + batch}
    if self.before:
      new["before"] = self.before.update(stats["before"], real_logits, step, batch)
    return stats | new

  def draw_times(self, T: Array, step: Array | int) -> Array:
    """32 zeros and 32 draws of 1 .. T, int32 [64]: the same at a step of any run."""
    key = jax.random.fold_in(jax.random.key(self.seed), step)
    u = jax.random.uniform(key, (LIST // 2,))
    some = 1 + jnp.sum(jnp.cumsum(chances(T, self.priority)) <= u[:, None], 1, dtype=jnp.int32)
    # A sum of rounded numbers may stay below 1, and u above it.
    return jnp.concatenate([jnp.zeros(LIST - LIST // 2, jnp.int32), jnp.minimum(some, T)])


def longest(p: Array) -> Array:
  """T of p [], int32: 10 to 1000."""
  return jnp.clip(LEAST + jnp.round(p * (MOST - LEAST)), LEAST, MOST).astype(jnp.int32)


def chances(T: Array, priority: bool = True) -> Array:
  """Probabilities of t = 1 .. 1000 for this T [], [1000]: zero beyond T."""
  k = jnp.arange(MOST)
  weight = jnp.where(k < T, k if priority else 1, 0)
  return weight / jnp.sum(weight)


def diffuse(x: Array, noise: Array, t: Array, T: Array) -> Array:
  """x and noise [B, ...] at the times t [B] of T []."""
  alpha, sigma = (a[t].reshape(-1, *[1] * (x.ndim - 1)) for a in table(T))
  return alpha * x + sigma * noise


def table(T: Array) -> tuple[Array, Array]:
  """sqrt(abar_t) and sqrt(1 - abar_t) of t = 0 .. 1000, each [1001].

  beta is linear over 1 .. T, so that x is as gone at T whatever the T; beyond it
  they stay.
  """
  k = jnp.arange(MOST)
  first, last = BETAS
  beta = jnp.where(k < T, first + (last - first) * k / (T - 1), 0)
  log = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.log1p(-beta))])  # of abar
  return jnp.exp(log / 2), jnp.sqrt(-jnp.expm1(log))
