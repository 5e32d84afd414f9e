"""Averages of weights: decay profiles, and profiles found after training.

A profile maps the number of updates so far to the decay of the next one. Its
scales are in images, so that a run with another batch size means the same.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.errors import UserError

Decay = Callable[[jax.Array], jax.Array]


def half_life(images: float, ramp: float | None = 0.05, *, batch: int) -> Decay:
  """Exponential average that halves an update's weight every `images` images.

  Args:
    images: Half-life H in images; decay = 0.5 ** (batch / H).
    ramp: Early on, H is at most `ramp` times the images seen so far (Karras et
      al. 2022, training loop; None: no warm-up).
    batch: Images per update; given by the train loop.
  """

  def decay(step: jax.Array) -> jax.Array:
    life = images
    if ramp is not None:
      life = jnp.minimum(images, ramp * step.astype(jnp.float32) * batch)
    return 0.5 ** (batch / jnp.maximum(life, 1e-8))

  return decay


def power(width: float, *, batch: int) -> Decay:
  """Power-function average (Karras et al. 2024, Eqs. 123-127).

  Args:
    width: Standard deviation of the profile relative to training time, in
      (0, 0.28): 0.05 and 0.1 are usual. decay = (1 - 1/t) ** (gamma + 1).
    batch: Unused: the profile has no scale of its own.
  """
  del batch
  exponent = width_to_gamma(width) + 1
  # log1p, as late in training 1 - 1/t itself has no digits of 1/t left.
  return lambda step: jnp.exp(exponent * jnp.log1p(-1 / (step.astype(jnp.float32) + 1)))


def width_to_gamma(width: float) -> float:
  """Relative width -> gamma: the cubic of Karras et al. 2024, Eq. 126."""
  if not 0 < width < 12**-0.5:
    raise UserError(f"ema width={width} must lie between 0 and 0.288")
  roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
  return float(np.real(roots).max())


def overlap(t_a: np.ndarray, g_a: np.ndarray, t_b: np.ndarray, g_b: np.ndarray) -> np.ndarray:
  """Inner product of two power profiles (Karras et al. 2024, Eq. 146).

  Args: times in any unit and exponents gamma, broadcast against each other.
  """
  ratio = np.where(t_a < t_b, t_a / t_b, t_b / t_a)
  later = np.where(t_a < t_b, g_b, g_a)  # the gamma of the later one
  return (g_a + 1) * (g_b + 1) * ratio**later / ((g_a + g_b + 1) * np.maximum(t_a, t_b))


def combine(snapshots: Mapping[tuple[int, float], Any], width: float) -> Any:
  """Post-hoc average: the profile of `width` at the last snapshot's time.

  Solves for the combination of stored averages whose profile is nearest to the
  wanted one (Karras et al. 2024, Sec. C.2, Eq. 144).

  Args:
    snapshots: (updates, width) of each stored average -> its pytree.
    width: Relative width wanted.

  Returns:
    A pytree like the snapshots, and float32 as they are.
  """
  weights = combination(list(snapshots), width)

  def mix(*leaves):
    total = sum(w * np.asarray(x, np.float64) for w, x in zip(weights, leaves, strict=True))
    return total.astype(leaves[0].dtype)

  return jax.tree.map(mix, *snapshots.values())


def combination(points: list[tuple[int, float]], width: float) -> np.ndarray:
  """Weights [n] of n stored averages, each (updates, width); they sum to 1."""
  t = np.array([p[0] for p in points], np.float64)
  g = np.array([width_to_gamma(p[1]) for p in points])
  gamma, end = width_to_gamma(width), t.max()
  a = overlap(t[:, None], g[:, None], t[None], g[None])
  b = overlap(t, g, end, gamma)
  # Profiles of one run are nearly parallel: lstsq, not solve. The sum is made 1
  # afterwards, so that constants are kept, as the authors' code does.
  scale = np.abs(a).max()
  weights = np.linalg.lstsq(a / scale, b / scale, rcond=1e-14)[0]
  return weights / weights.sum()
