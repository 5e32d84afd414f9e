"""Noising processes: t -> Noise(t, alpha, sigma), x_t = alpha x_0 + sigma eps.

A process is any object with `__call__(t) -> Noise` and `inverse(logsnr) -> t`,
where logsnr = log(alpha^2 / sigma^2) falls as t grows. Both are elementwise and
take traced arrays of any shape. `steps` is None in continuous time. Discrete
processes have `betas`, [steps] float64: tables are made of them on the host, so
nothing is lost before the one rounding to the device's float.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class Noise(NamedTuple):
  """A noise level: scalars (sampling), [N] (a path) or [B, 1, .., 1] (loss)."""

  t: Array
  alpha: Array
  sigma: Array

  @property
  def logsnr(self) -> Array:
    """log(alpha^2 / sigma^2); -inf where nothing of x_0 is left."""
    return 2 * (jnp.log(self.alpha) - jnp.log(self.sigma))


def position(t: Array, steps: int) -> Array:
  """t * steps, where whole numbers come out whole.

  In float32 (i / steps) * steps can miss i by a last bit, which is a different
  noise level where a table is steep (the last betas of the cosine schedule).
  """
  raw = jnp.asarray(t, float) * steps
  nearest = jnp.round(raw)
  error = 4 * jnp.finfo(raw.dtype).eps * steps
  return jnp.where(jnp.abs(raw - nearest) < error, nearest, raw)


@functools.cache
def _logsnrs(process) -> np.ndarray:
  """[steps] float64: logsnr after i = 1 .. steps steps of the Markov chain."""
  abar = np.cumprod(1 - process.betas)
  return np.log(abar) - np.log1p(-abar)


def _noise(process, t: Array) -> Noise:
  """Reads the table at t = i / steps; between points logsnr is linear in t.

  Below t = 1 / steps, where the chain has no noise level, it stays level.
  """
  t = jnp.asarray(t, float)
  table = jnp.asarray(_logsnrs(process), t.dtype)
  at = jnp.clip(position(t, process.steps), 1, process.steps) - 1
  low = jnp.clip(jnp.floor(at), 0, process.steps - 2).astype(jnp.int32)
  part = at - low
  logsnr = (1 - part) * table[low] + part * table[low + 1]
  # Accurate at both ends, where 1 - alpha^2 would cancel.
  alpha = jnp.sqrt(jax.nn.sigmoid(logsnr))
  return Noise(t, alpha, jnp.sqrt(jax.nn.sigmoid(-logsnr)))


def _time(process, logsnr: Array) -> Array:
  """The t in [1 / steps, 1] of this logsnr, clipped to the table's ends."""
  logsnr = jnp.asarray(logsnr, float)
  table = jnp.asarray(_logsnrs(process), logsnr.dtype)
  grid = jnp.arange(1, process.steps + 1, dtype=logsnr.dtype)
  return jnp.interp(-logsnr, -table, grid) / process.steps


@dataclasses.dataclass(frozen=True)
class DDPM:
  """Ho et al. 2020, Sec. 4: betas rise linearly from `beta_1` to `beta_T`.

  The betas are taken as given: with other numbers of steps than 1000 they
  usually want other ends, see `Linear`.
  """

  steps: int = 1000
  beta_1: float = 1e-4
  beta_T: float = 0.02

  @property
  def betas(self) -> np.ndarray:
    """[steps] float64."""
    return np.linspace(self.beta_1, self.beta_T, self.steps)

  __call__, inverse = _noise, _time


@dataclasses.dataclass(frozen=True)
class Linear:
  """ADM's "linear": DDPM's betas times 1000 / steps (Nichol & Dhariwal's code).

  So that as much noise is added however many steps there are.
  """

  steps: int = 1000

  @property
  def betas(self) -> np.ndarray:
    """[steps] float64."""
    scale = 1000 / self.steps
    return np.linspace(scale * 1e-4, scale * 0.02, self.steps)

  __call__, inverse = _noise, _time


@dataclasses.dataclass(frozen=True)
class LDM:
  """Latent diffusion's "linear": the root of beta is (Rombach et al. 2022).

  Its code's default schedule, for latents; others know it as "scaled linear".
  """

  steps: int = 1000
  beta_1: float = 0.0015
  beta_T: float = 0.0195

  @property
  def betas(self) -> np.ndarray:
    """[steps] float64."""
    lo, hi, i = self.beta_1**0.5, self.beta_T**0.5, np.arange(self.steps)
    # From both ends and rounded once, as PyTorch does: the same to the last bit.
    pace = np.longdouble((hi - lo) / max(self.steps - 1, 1))
    roots = np.where(i < self.steps // 2, lo + pace * i, hi - pace * (self.steps - 1 - i))
    return roots.astype(np.float64) ** 2

  __call__, inverse = _noise, _time


@dataclasses.dataclass(frozen=True)
class Cosine:
  """Nichol & Dhariwal 2021, Eq. 17: abar ~ cos^2, betas clipped at 0.999."""

  steps: int = 1000
  offset: float = 0.008

  @property
  def betas(self) -> np.ndarray:
    """[steps] float64."""
    t = np.arange(self.steps + 1) / self.steps
    abar = np.cos((t + self.offset) / (1 + self.offset) * np.pi / 2) ** 2
    return np.minimum(1 - abar[1:] / abar[:-1], 0.999)

  __call__, inverse = _noise, _time


@dataclasses.dataclass(frozen=True)
class VP:
  """Variance-preserving SDE on t in (0, 1]: Song et al. 2021, Eqs. 32-33."""

  beta_min: float = 0.1
  beta_max: float = 20.0

  steps = None

  def __call__(self, t: Array) -> Noise:
    t = jnp.asarray(t, float)
    # -log alpha^2: the integral of beta from 0 to t.
    integral = t * (self.beta_min + t * (self.beta_max - self.beta_min) / 2)
    return Noise(t, jnp.exp(-integral / 2), jnp.sqrt(-jnp.expm1(-integral)))

  def inverse(self, logsnr: Array) -> Array:
    """The t of this logsnr."""
    integral = jax.nn.softplus(-jnp.asarray(logsnr, float))
    slope = self.beta_max - self.beta_min
    # The root of the quadratic, in the form that does not cancel at small t.
    root = jnp.sqrt(self.beta_min**2 + 2 * slope * integral)
    return 2 * integral / (self.beta_min + root)


@dataclasses.dataclass(frozen=True)
class VE:
  """Variance-exploding SDE on t in [0, 1]: Song et al. 2021, Eq. 31."""

  sigma_min: float = 0.01
  sigma_max: float = 50.0

  steps = None

  def __call__(self, t: Array) -> Noise:
    t = jnp.asarray(t, float)
    sigma = self.sigma_min * (self.sigma_max / self.sigma_min) ** t
    return Noise(t, jnp.ones_like(t), sigma)

  def inverse(self, logsnr: Array) -> Array:
    """The t of this logsnr."""
    log_sigma = -jnp.asarray(logsnr, float) / 2
    low, high = np.log(self.sigma_min), np.log(self.sigma_max)
    return (log_sigma - low) / (high - low)


@dataclasses.dataclass(frozen=True)
class EDM:
  """sigma(t) = t > 0, no scaling: Karras et al. 2022, Table 1."""

  steps = None

  def __call__(self, t: Array) -> Noise:
    t = jnp.asarray(t, float)
    return Noise(t, jnp.ones_like(t), t)

  def inverse(self, logsnr: Array) -> Array:
    """The t of this logsnr."""
    return jnp.exp(-jnp.asarray(logsnr, float) / 2)


@dataclasses.dataclass(frozen=True)
class Flow:
  """A straight line to the noise, t in (0, 1]: Lipman et al. 2023, Eq. 20."""

  steps = None

  def __call__(self, t: Array) -> Noise:
    t = jnp.asarray(t, float)
    return Noise(t, 1 - t, t)

  def inverse(self, logsnr: Array) -> Array:
    """The t of this logsnr."""
    return jax.nn.sigmoid(-jnp.asarray(logsnr, float) / 2)


@dataclasses.dataclass(frozen=True)
class GVP:
  """A quarter of a circle to the noise, t in (0, 1]: alpha = cos(pi t / 2).

  Albergo & Vanden-Eijnden 2023; SiT's "GVP" (Ma et al. 2024).
  """

  steps = None

  def __call__(self, t: Array) -> Noise:
    t = jnp.asarray(t, float)
    quarter = jnp.pi / 2
    # Not a cosine, which is below zero in float32 at t = 1.
    return Noise(t, jnp.sin(quarter * (1 - t)), jnp.sin(quarter * t))

  def inverse(self, logsnr: Array) -> Array:
    """The t of this logsnr."""
    return jnp.arctan(jnp.exp(-jnp.asarray(logsnr, float) / 2)) * 2 / jnp.pi
