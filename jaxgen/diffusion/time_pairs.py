"""Pairs of times on one way of noise, for models that jump to its end.

A consistency model f(x_t, t) gives the same x_0 all along a path of the
probability-flow ODE (Song et al. 2023, Sec. 3). It learns from pairs of noise
levels t > s of the process EDM: what it says at t is drawn to what it says at
s, and at the least level it says x itself (`precond.boundary`), or s is 0.

  levels    step [] -> N [], how many there are by then
  draw      (key [B], ndim, step) -> t, s, [B, 1, .., 1] each
  target    (x, z, t, s, f, teacher) -> what f(x + t z, t) is drawn to, [B, ...];
            f and teacher: (x_t, t) -> x_0
  weight    (t, s) -> of the distance
  distance  gap [B, ...] -> [B]

Steps count batches; a schedule stays at its end once `steps` are over.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.traits import declare

Array = jax.Array
F = Callable[[Array, Array], Array]
Levels = Callable[[Array], Array]


def fixed(step: Array, n: int = 40) -> Array:
  """Always n levels."""
  return jnp.full_like(step, n)


def progressive(step: Array, steps: int, n_0: int = 2, n_1: int = 150) -> Array:
  """From n_0 levels to n_1 + 1, by the root of the steps done.

  Song et al. 2023, App. C, whose formula has one level less: as their code has it.
  """
  return 1 + jnp.searchsorted(jnp.asarray(_rises(steps, n_0, n_1)), step, side="right")


@functools.cache
def _rises(steps: int, n_0: int, n_1: int) -> np.ndarray:
  """[n_1] int32: the steps from which on there are 2, 3, .. n_1 + 1 levels.

  A table, for float32 would round some of them to a step before or after.
  """
  k = np.arange(steps + 1)
  n = np.ceil(np.sqrt(k / steps * ((n_1 + 1) ** 2 - n_0**2) + n_0**2) - 1)
  return np.searchsorted(np.maximum(n, 1), np.arange(1, n_1 + 1)).astype(np.int32)


def doubled(step: Array, steps: int, n_0: int = 10, n_1: int = 1280) -> Array:
  """n_0 + 1 levels, 2 n_0 + 1, .. n_1 + 1, equally long each (Song & Dhariwal 2024, Sec. 3.4)."""
  rounds = math.floor(math.log2(n_1 / n_0)) + 1
  return jnp.minimum(n_0 * 2 ** (step // max(steps // rounds, 1)).clip(0, rounds), n_1) + 1


def halved(step: Array, every: int, n_0: int = 64, least: int = 1) -> Array:
  """Of progressive distillation: n_0 steps, and half as many after each `every`.

  Salimans & Ho 2022, Alg. 2. As in the code of Song et al. the last two rounds,
  of 2 steps and of 1, are twice as long. A distilled model takes `halved` steps,
  which are one less than the levels that they join.
  """
  rounds, last = step // every, int(math.log2(n_0)) - 1
  early = n_0 // 2 ** jnp.minimum(rounds, last + 1)
  late = jnp.where(rounds - last >= 2, 1, 2)
  return jnp.maximum(jnp.where(rounds < last, early, jnp.minimum(late, n_0)), least)


def constant(step: Array, mu: float = 0.95) -> Array:
  """The same decay of the target net's average at all steps."""
  return jnp.full(jnp.shape(step), mu)


def adaptive(step: Array, levels: Levels, mu: float = 0.95, n_0: int = 2) -> Array:
  """mu^(n_0 / (N - 1)): slower the more levels there are (Song et al. 2023, App. C)."""
  return jnp.exp(n_0 * math.log(mu) / (levels(step) - 1))


def renewed(step: Array, levels: Levels) -> Array:
  """0 where the number of steps changes, else 1: the student becomes the teacher."""
  return jnp.where(levels(step + 1) == levels(step), 1.0, 0.0)


def ramp(part: Array, lo: float, hi: float, rho: float) -> Array:
  """From `hi` at part = 0 to `lo` at 1: Karras et al. 2022, Eq. 5."""
  first, last = hi ** (1 / rho), lo ** (1 / rho)
  return (first + part * (last - first)) ** rho


def neighbours(
  key: Array,
  ndim: int,
  step: Array,
  levels: Levels,
  lo: float = 0.002,
  hi: float = 80.0,
  rho: float = 7.0,
  mean: float | None = None,
  std: float = 2.0,
) -> tuple[Array, Array]:
  """Two neighbours of the N levels from `hi` to `lo`.

  All alike probable (Song et al. 2023); or, with `mean`, as probable as ln t ~
  N(mean, std^2) lies between the two (Song & Dhariwal 2024, Eq. 10).
  """
  n = levels(step) - 1  # gaps between levels
  if mean is None:
    i = jax.vmap(lambda k: jax.random.randint(k, (), 0, n))(key)
  else:
    low, high = ((math.log(end) - mean) / std for end in (lo, hi))
    z = jax.vmap(lambda k: jax.random.truncated_normal(k, low, high))(key)
    first, last = hi ** (1 / rho), lo ** (1 / rho)
    part = (jnp.exp((mean + std * z) / rho) - first) / (last - first)
    i = jnp.clip(jnp.floor(part * n), 0, n - 1)
  i = i.reshape(-1, *[1] * (ndim - 1))
  # Not by the ramp at its end: the boundary is to be met to the last bit.
  s = jnp.where(i + 1 == n, lo, ramp((i + 1) / n, lo, hi, rho))
  return jnp.where(i == 0, hi, ramp(i / n, lo, hi, rho)), s


def strides(
  key: Array,
  ndim: int,
  step: Array,
  levels: Levels,
  lo: float = 0.002,
  hi: float = 80.0,
  rho: float = 7.0,
) -> tuple[Array, Array]:
  """Both ends of one of N steps from `hi` to `lo`: N is that of `halved`."""
  return neighbours(key, ndim, step, lambda k: levels(k) + 1, lo, hi, rho)


def shrinking(
  key: Array,
  ndim: int,
  step: Array,
  steps: int,
  stages: int = 8,
  mean: float = -1.1,
  std: float = 2.0,
  q: float = 2.0,
  k: float = 8.0,
  b: float = 1.0,
  lo: float = 0.0,
  hi: float = math.inf,
) -> tuple[Array, Array]:
  """ln t ~ N(mean, std^2), and s that nears t in equal stages (Geng et al. 2024, Sec. 3).

  In the first stages s is mostly 0: f is drawn to x, which is denoising. t is
  kept within [lo, hi].
  """
  z = jax.vmap(jax.random.normal)(key).reshape(-1, *[1] * (ndim - 1))
  t = jnp.clip(jnp.exp(mean + std * z), lo, hi)
  stage = jnp.clip(step * stages // steps, 0, stages - 1)
  return t, below(t, stage, q, k, b)


def below(t: Array, stage: Array, q: float = 2.0, k: float = 8.0, b: float = 1.0) -> Array:
  """t (1 - (1 + k sigmoid(-b t)) / q^(stage + 1)), or 0 (Geng et al. 2024, their code)."""
  gap = (1 + k * jax.nn.sigmoid(-b * t)) / q ** (stage + 1.0)
  return jnp.maximum(t * (1 - gap), 0)


def training(x: Array, z: Array, t: Array, s: Array, f: F, teacher: F | None = None) -> Array:
  """f at x + s z, along the line that x itself says: no teacher (Song et al. 2023, Alg. 3).

  Where s = 0, x.
  """
  del t, teacher
  # The net is asked in any case, but never at a level that it cannot read.
  x_0 = f(x + s * z, jnp.where(s > 0, s, 1.0))
  return jnp.where(s > 0, x_0, x)


@declare(takes=("teacher",))
def distillation(x: Array, z: Array, t: Array, s: Array, f: F, teacher: F) -> Array:
  """f where one step of Heun's by the teacher leads to (Song et al. 2023, Alg. 2)."""
  x_t = x + t * z
  d = (x_t - teacher(x_t, t)) / t
  x_s = x_t + (s - t) * d
  d_s = (x_s - teacher(x_s, s)) / s
  return f(x_t + (s - t) / 2 * (d + d_s), s)


def two_in_one(
  x: Array, z: Array, t: Array, s: Array, f: F, teacher: F | None = None, rho: float = 7.0
) -> Array:
  """The x_0 by which one step leads where f's two do (Salimans & Ho 2022, Alg. 2).

  Steps are Euler's; they meet half-way in t^(1 / rho). f is the target net,
  which is the teacher of a round here (see `renewed`).
  """
  del teacher
  middle = ((t ** (1 / rho) + s ** (1 / rho)) / 2) ** rho
  x_t = x + t * z
  x_m = x_t + (middle - t) * (x_t - f(x_t, t)) / t
  x_s = x_m + (s - middle) * (x_m - f(x_m, middle)) / middle
  return x_t - t * (x_s - x_t) / (s - t)


def uniform_weight(t: Array, s: Array) -> Array:
  """1: Song et al. 2023."""
  del s
  return jnp.ones_like(t)


def inverse_gap(t: Array, s: Array) -> Array:
  """1 / (t - s): Song & Dhariwal 2024, Sec. 3.1."""
  return 1 / (t - s)


def mean_square(gap: Array) -> Array:
  """The mean of squares, as the code of Song et al. 2023 has it."""
  return jnp.mean(gap**2, range(1, gap.ndim))


def pseudo_huber(gap: Array, c: float = 0.00054) -> Array:
  """sqrt(|gap|^2 + c^2 dim) - c sqrt(dim) (Song & Dhariwal 2024, Eq. 8).

  With c = 0 the plain norm (Geng et al. 2024).
  """
  axes = tuple(range(1, gap.ndim))
  c = c * math.sqrt(math.prod(gap.shape[1:]))
  total = jnp.sum(gap**2, axes) + c**2
  # The root has no slope at 0, which is where nothing is left to learn.
  return jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1.0)), 0.0) - c
