"""A chain of few, large steps, as denoising diffusion GANs undo it.

Xiao et al. 2022, Sec. 3 and App. B: noise is that of the variance-preserving SDE
(Song et al. 2021), cut into T steps. x_0 is data and x_T nearly pure noise; the
net takes x_{t+1} and is told t = 0 .. T - 1. A guess of x_0 becomes x_t by the
posterior q(x_t | x_{t+1}, x_0), which for t = 0 is the guess itself.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = Key = jax.Array
FIRST = 1e-3  # the time of x_0, where noise hardly begins


class Tables(NamedTuple):
  """Float32, by t; the first four [T + 1], from t = 0, the others [T].

  x_t = alphas[t] x_{t-1} + sigmas[t] eps = alphas_bar[t] x_0 + sigmas_bar[t] eps,
  and q(x_t | x_{t+1}, x_0) has the mean x_0_share[t] x_0 + x_next_share[t] x_{t+1}
  and the standard deviation std[t]. Nothing is added to x_0: `sigmas[0]` stands
  for no step.
  """

  alphas: np.ndarray
  sigmas: np.ndarray
  alphas_bar: np.ndarray
  sigmas_bar: np.ndarray
  x_0_share: np.ndarray
  x_next_share: np.ndarray
  std: np.ndarray


@dataclasses.dataclass(frozen=True)
class DenoisingChain:
  """Noises pairs of neighbours, draws from the posterior, runs back.

  Attributes:
    steps: T.
    beta_min: Of the SDE's noise, linear in time: at its beginning.
    beta_max: And at its end. Where noise is `geometric`, the variances there.
    geometric: The variance is beta_min (beta_max / beta_min)^time in place of
      the SDE's 1 - exp(-time beta_min - time^2 (beta_max - beta_min) / 2).
  """

  steps: int = 4
  beta_min: float = 0.1
  beta_max: float = 20.0
  geometric: bool = False

  @property
  def times(self) -> np.ndarray:
    """Those of x_0 .. x_T, float64 [T + 1] in (0, 1]."""
    return FIRST + (1 - FIRST) * np.arange(self.steps + 1) / self.steps

  @functools.cached_property
  def tables(self) -> Tables:
    """All that the chain needs, worked out in float64."""
    time, low, high = self.times, self.beta_min, self.beta_max
    if self.geometric:
      kept = 1 - low * (high / low) ** time
    else:
      kept = np.exp(-0.5 * time**2 * (high - low) - time * low)
    betas = np.append(1e-8, 1 - kept[1:] / kept[:-1])
    # Rounded here, as published: for T = 1 what is left of 1 - beta is rounding.
    betas = betas.astype(np.float32).astype(np.float64)
    bar = np.cumprod(1 - betas[1:])
    before = np.append(1.0, bar[:-1])
    columns = (
      np.append(1.0, np.sqrt(1 - betas[1:])),
      np.sqrt(betas),
      np.append(1.0, np.sqrt(bar)),
      np.append(0.0, np.sqrt(1 - bar)),
      betas[1:] * np.sqrt(before) / (1 - bar),
      (1 - before) * np.sqrt(1 - betas[1:]) / (1 - bar),
      np.sqrt(betas[1:] * (1 - before) / (1 - bar)),
    )
    return Tables(*(column.astype(np.float32) for column in columns))

  def draw_t(self, key: Key) -> Array:
    """Keys [B] -> t [B], each of 0 .. T - 1 as likely."""
    return jax.vmap(lambda k: jax.random.randint(k, (), 0, self.steps))(key)

  def pair(self, x_0: Array, t: Array, eps: Array, eps_next: Array) -> tuple[Array, Array]:
    """x_t and x_{t+1} of x_0 [B, ...] for t [B]: of q(x_t | x_0), then of q(x_{t+1} | x_t)."""
    of = self.tables
    at = lambda table, t: rows(table, t, x_0.ndim)
    x_t = at(of.alphas_bar, t) * x_0 + at(of.sigmas_bar, t) * eps
    return x_t, at(of.alphas, t + 1) * x_t + at(of.sigmas, t + 1) * eps_next

  def posterior(self, x_0: Array, x_next: Array, t: Array, eps: Array) -> Array:
    """x_t of q(x_t | x_{t+1}, x_0), for t [B] or []; for t = 0 it is x_0."""
    of = self.tables
    at = lambda table: rows(table, t, x_0.ndim)
    return at(of.x_0_share) * x_0 + at(of.x_next_share) * x_next + at(of.std) * eps

  def run(
    self,
    predict: Callable[[Array, Array, Array], Array],
    x_T: Array,
    n: Array | int,
    noise: Callable[[Array], Array],
  ) -> Array:
    """The guess of x_0 after n <= T steps from x_T [B, ...]: for n = T a sample.

    Args:
      predict: (x_{t+1}, t [], number of the step []) -> x_0 [B, ...].
      x_T: N(0, 1).
      n: Steps, may be traced.
      noise: (number of the step []) -> the posterior's eps [B, ...].
    """

    def body(i, carry):
      x, _ = carry
      t = self.steps - 1 - i
      x_0 = predict(x, t, i)
      return self.posterior(x_0, x, t, noise(i)), x_0

    return jax.lax.fori_loop(0, n, body, (x_T, x_T))[1]


def rows(table: np.ndarray, t: Array, ndim: int) -> Array:
  """Entries of a table at t [B] or [], to multiply [B, ...] of `ndim` axes."""
  values = jnp.asarray(table)[t]
  return values.reshape(*values.shape, *[1] * (ndim - 1)) if values.ndim else values
