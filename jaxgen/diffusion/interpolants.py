"""SiT's diffusion: velocities in time, and samplers that follow them.

Ma et al. 2024 (arXiv 2401.08740). Its time runs from noise, 0, to data, 1: here
that is 1 - t, as everywhere in this house. A process in continuous time is its
interpolant: `process.Flow` its Linear, `process.GVP`, `process.VP`. Nets are told
its time, 1 - t, unscaled, and predict one of

  velocity    dx_t / d(1 - t)            score    -eps / sigma            eps

Samplers step in time (`samplers.euler` and others in sigma / alpha, where the
same steps lie elsewhere) and may add noise: for any w(t) >= 0 the SDE

  dx = (velocity + w score) d(1 - t) + sqrt(2 w) dW

has the marginals of the ODE, w = 0, whatever net it was that learned.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.diffusion.denoiser import Denoise, loop, mean
from jaxgen.diffusion.precond import Coefficients
from jaxgen.diffusion.process import Noise
from jaxgen.diffusion.samplers import steps
from jaxgen.diffusion.traits import declare
from jaxgen.keys import normal

Array = jax.Array
Process = Callable[[Array], Noise]
# An estimate of x_0 from less noise than this leaves float32 no digits of eps.
LEAST = 5e-4


def slopes(process: Process, t: Array) -> tuple[Array, Array]:
  """Derivatives of alpha and sigma by 1 - t, at t of any shape."""
  t = jnp.asarray(t, float)
  _, slope = jax.jvp(lambda t: process(t)[1:], (t,), (-jnp.ones_like(t),))
  return slope


# What the net predicts: see `precond`.


def velocity(noise: Noise, process: Process) -> Coefficients:
  """F = alpha' x_0 + sigma' eps, of slopes by 1 - t."""
  d_alpha, d_sigma = slopes(process, noise.t)
  area = d_sigma * noise.alpha - noise.sigma * d_alpha
  return d_sigma / area, -noise.sigma / area, 1.0, 1 - noise.t


def score(noise: Noise) -> Coefficients:
  """F = -eps / sigma."""
  return 1 / noise.alpha, noise.sigma**2 / noise.alpha, 1.0, 1 - noise.t


def eps(noise: Noise) -> Coefficients:
  """F = eps."""
  return 1 / noise.alpha, -noise.sigma / noise.alpha, 1.0, 1 - noise.t


# Weights of eps' squared error, of nets that predict eps or the score.


def even_weight(noise: Noise) -> Array:
  """1: of the score, sigma^2."""
  return jnp.ones_like(noise.sigma)


def velocity_weight(noise: Noise, process: Process) -> Array:
  """As if the velocity of them were the net's."""
  return (diffusion(process, noise) / noise.sigma) ** 2


def likelihood_weight(noise: Noise, process: Process) -> Array:
  """That of the likelihood's bound (Song, Durkan et al. 2021)."""
  return diffusion(process, noise) / noise.sigma**2


def diffusion(process: Process, t: Noise) -> Array:
  """Half the squared diffusion of the forward SDE whose marginals these are."""
  d_alpha, d_sigma = slopes(process, t.t)
  return t.sigma * (d_alpha / t.alpha * t.sigma - d_sigma)


# The coefficient w(t) of the SDE, as willisma/SiT's `transport` has them.


def sbdm(process: Process, t: Noise, strength: Array) -> Array:
  """That of the forward SDE, infinite where alpha is zero: for VP."""
  return strength * diffusion(process, t)


def sigma(process: Process, t: Noise, strength: Array) -> Array:
  """sigma(t), by which published numbers were made."""
  return strength * t.sigma


def linear(process: Process, t: Noise, strength: Array) -> Array:
  """t."""
  return strength * t.t


def constant(process: Process, t: Noise, strength: Array) -> Array:
  """1."""
  return strength * jnp.ones_like(t.sigma)


def decreasing(process: Process, t: Noise, strength: Array) -> Array:
  """(strength cos(pi (1 - t)) + 1)^2 / 4."""
  return (1 - strength * jnp.cos(jnp.pi * t.t)) ** 2 / 4


def rising_and_falling(process: Process, t: Noise, strength: Array) -> Array:
  """sin^2(pi t): most noise half way."""
  return strength * jnp.sin(jnp.pi * t.t) ** 2


# The last step of the SDE, from the path's last point to no noise.


class Estimates(NamedTuple):
  """What a denoiser says of x_t, each shaped like it."""

  x_0: Array
  velocity: Array
  score: Array


def mean_step(x: Array, e: Estimates, h: Array, w: Array) -> Array:
  """One of the SDE's, without the noise."""
  return x + h * (e.velocity + w * e.score)


def euler_step(x: Array, e: Estimates, h: Array, w: Array) -> Array:
  """One of the ODE's."""
  return x + h * e.velocity


def tweedie(x: Array, e: Estimates, h: Array, w: Array) -> Array:
  """The estimate of x_0 itself."""
  return e.x_0


def stay(x: Array, e: Estimates, h: Array, w: Array) -> Array:
  """None: what is left of the noise stays. For paths that end near t = 0."""
  return x


def estimate(denoise: Denoise, x: Array, t: Noise, process: Process) -> Estimates:
  """Velocity and score from an estimate of x_0; below LEAST, those at LEAST."""
  at = jnp.maximum(t.t, LEAST)
  # t < 0 is no time: see `conditioning.stop_early`.
  t = jax.tree.map(lambda a, b: jnp.where((t.t < 0) | (t.t > LEAST), a, b), t, process(at))
  d_alpha, d_sigma = slopes(process, at)
  x_0 = mean(denoise(x, t))
  eps = (x - t.alpha * x_0) / t.sigma
  return Estimates(x_0, d_alpha * x_0 + d_sigma * eps, -eps / t.sigma)


def gap(t: Noise, s: Noise) -> Array:
  """Time from t to s; 0 where one is no time, see `conditioning.stop_early`."""
  return jnp.where((t.t < 0) | (s.t < 0), 0.0, t.t - s.t)


def points(path: Noise, n: Array, process: Process, end: float) -> Callable[[Array], Noise]:
  """i -> the i-th of n points; the time `end` after them."""
  last = process(jnp.asarray(end, path.t.dtype))
  return lambda i: jax.tree.map(
    lambda a, b: jnp.where(i < n, a[jnp.minimum(i, n - 1)], b), path, last
  )


@declare(nfe=lambda n: n, takes=("process",))
def ode_euler(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  process: Process,
  end: float = 0.0,
) -> Array:
  """Euler's steps of the velocity, in time, from each point to the next.

  The last goes to the time `end`: SiT's VP ends at 0.001, others at 0.
  """
  at = points(path, n, process, end)

  def step(i: Array, x: Array) -> Array:
    t = at(i)
    return x + gap(t, at(i + 1)) * estimate(denoise, x, t, process).velocity

  return loop(denoise)(0, n, step, x_T)


@declare(nfe=lambda n: 2 * n, takes=("process",))
def ode_heun(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  process: Process,
  end: float = 0.0,
) -> Array:
  """Heun's steps of the velocity, in time; see `ode_euler`.

  The slope at t = 0 itself, where x_t says nothing of it, is that at LEAST.
  """
  drift = lambda e, t: e.velocity
  unmoved = lambda x, t, h, i: x
  ahead = lambda x, e, t, h, i: x + h * e.velocity
  at = points(path, n, process, end)
  return _heun(denoise, x_T, at, 2 * n, process, drift, unmoved, ahead)


@declare(nfe=lambda n: n, knobs=("strength",), takes=("process",))
def sde_euler(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  process: Process,
  coefficient: Callable[..., Array] = sigma,
  last: Callable[..., Array] = mean_step,
  strength: float = 1.0,
) -> Array:
  """Euler-Maruyama: n - 1 steps of the SDE, and a `last` one to t = 0.

  `strength` scales the `coefficient`; 0 is the ODE.
  """
  step_at, at = steps(path, n, key), points(path, n, process, 0.0)

  def step(i: Array, x: Array) -> Array:
    (t, _, z_key), h = step_at(i), gap(at(i), at(i + 1))
    w = coefficient(process, t, strength)
    e = estimate(denoise, x, t, process)
    noise = jnp.sqrt(2 * w * h) * normal(z_key, x.shape[1:])
    return jnp.where(i == n - 1, last(x, e, h, w), mean_step(x, e, h, w) + noise)

  return loop(denoise)(0, n, step, x_T)


@declare(nfe=lambda n: 2 * n - 1, knobs=("strength",), takes=("process",))
def sde_heun(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  process: Process,
  coefficient: Callable[..., Array] = sigma,
  last: Callable[..., Array] = mean_step,
  strength: float = 1.0,
) -> Array:
  """Heun's steps of the drift, from where a step's noise leads first.

  As `sde_euler` otherwise.
  """
  step_at, at = steps(path, n, key), points(path, n, process, 0.0)
  w = lambda t: coefficient(process, t, strength)
  drift = lambda e, t: e.velocity + w(t) * e.score

  def kick(x: Array, t: Noise, h: Array, i: Array) -> Array:
    z = normal(step_at(i)[2], x.shape[1:])
    return jnp.where(i == n - 1, x, x + jnp.sqrt(2 * w(t) * h) * z)

  def ahead(x: Array, e: Estimates, t: Noise, h: Array, i: Array) -> Array:
    return jnp.where(i == n - 1, last(x, e, h, w(t)), x + h * drift(e, t))

  return _heun(denoise, x_T, at, 2 * n - 1, process, drift, kick, ahead)


def _heun(
  denoise: Denoise,
  x_T: Array,
  at: Callable[[Array], Noise],
  visits: Array,
  process: Process,
  drift: Callable[[Estimates, Noise], Array],
  kick: Callable[..., Array],
  ahead: Callable[..., Array],
) -> Array:
  """Two visits a step: at its start, after a kick, and where that leads."""

  def visit(j: Array, carry: tuple) -> tuple:
    (x, start, slope), i, first = carry, j // 2, j % 2 == 0
    pick = lambda a, b: jnp.where(first, a, b)
    t, s = at(i), at(i + 1)
    h, here = gap(t, s), jax.tree.map(pick, t, s)
    x = pick(kick(x, t, h, i), x)
    e = estimate(denoise, x, here, process)
    bent = start + h / 2 * (slope + drift(e, here))
    return pick(ahead(x, e, t, h, i), bent), pick(x, start), pick(drift(e, here), slope)

  return loop(denoise)(0, visits, visit, (x_T, x_T, x_T))[0]
