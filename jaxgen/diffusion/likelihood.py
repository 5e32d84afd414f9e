"""How likely data is: the variational bound, and the probability-flow ODE.

Of batches x_0 [B, ...], in bits per dimension, with one key per example. Bytes
come as x_0 = byte / 127.5 - 1, so that a byte's bin is 1 / 127.5 wide.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.diffusion import posterior
from jaxgen.diffusion.denoiser import Denoise, mean
from jaxgen.diffusion.process import Noise
from jaxgen.keys import fold, normal

Array = jax.Array


def bound_bpd(
  denoise: Denoise, x_0: Array, path: Noise, key: Array, frac: float = 1.0
) -> dict[str, Array]:
  """The bound on -log2 p(bytes) of the chain along a path [T]: Ho 2020, Eq. 5.

  For a discrete process, `path` is all of it (`times.even` of its steps) or a
  respaced part (Nichol & Dhariwal 2021, Sec. 4). Of every term one draw of x_t,
  with T evaluations. Clip the denoiser, as ADM does. `frac` is the variance of
  one that learned none, see `posterior.log_variance`.

  Returns:
    "total" [B], the bound, which is "prior" [B] + "vb" [B, T] added up, and the
    mean squared errors of eps, "mse", and of x_0, "xstart_mse", both [B, T];
    noisiest first, as in ADM's `calc_bpd_loop`.
  """
  flat = lambda a: a.reshape(len(a), -1).mean(1)

  def term(i: Array, link: posterior.Link) -> tuple[Array, tuple]:
    t = link.t
    eps = normal(fold(key, i), x_0.shape[1:])
    x_t = t.alpha * x_0 + t.sigma * eps
    D = denoise(x_t, t)
    vb = posterior.vb_terms(x_0, x_t, D, link, frac)
    xstart_mse = flat((mean(D) - x_0) ** 2)
    # eps - eps_hat = (alpha / sigma) (x_0_hat - x_0)
    return i + 1, (vb, (t.alpha / t.sigma) ** 2 * xstart_mse, xstart_mse)

  _, terms = jax.lax.scan(term, 0, posterior.links(path))
  vb, mse, xstart_mse = (a.T for a in terms)
  prior = posterior.prior_bpd(x_0, jax.tree.map(lambda a: a[0], path))
  return {
    "total": prior + vb.sum(1),
    "vb": vb,
    "prior": prior,
    "mse": mse,
    "xstart_mse": xstart_mse,
  }


def ode_bpd(
  denoise: Denoise,
  x_0: Array,
  process,
  key: Array,
  n: Array = 64,
  probes: int = 1,
  width: float = 1 / 127.5,
  lo: float = 0.002,
  hi: float = 80.0,
) -> Array:
  """-log2 p(x_0), [B], by the probability-flow ODE: Song et al. 2021, Sec. 4.3.

  4 n evaluations and the derivatives of as many, along `probes` vectors.

  Args:
    denoise: Smooth: not clipped, without a choice by x_t.
    x_0: [B, ...].
    process: t -> Noise and back; its own ends hold inside of [lo, hi].
    key: [B].
    n: Steps of `_solve`; may be traced.
    probes: The trace of dD/dx is estimated with so many random vectors of signs
      (Hutchinson's, Skilling's), unbiased; 0: it is exact, by all unit vectors.
    width: Of the bins over which discrete data is spread evenly; 0 asks for the
      density of x_0 itself.
    lo: r = sigma / alpha where the data is.
    hi: r where there is noise alone.
  """
  v = _probes(fold(key, 1), x_0.shape[1:], probes, x_0.dtype)
  ends = process(process.inverse(-2 * jnp.log(jnp.array([lo, hi]))))
  u_lo, u_hi = -ends.logsnr / 2

  # In y = x / alpha and u = log r the ODE is dy/du = y - D(y). As y ~ N(0, r^2)
  # at its noisy end, log p(y) = -d log(2 pi) / 2 - |y_hi|^2 / (2 r_hi^2)
  # - d u_lo - int tr(dD/dy) du, where d log r_hi and int d du have met.
  def slope(u: Array, at: tuple) -> tuple[Array, Array]:
    t = process(process.inverse(-2 * u))
    y, _ = at
    D, push = jax.linearize(lambda y: mean(denoise(t.alpha * y, t)), y)
    trace = (v * jax.vmap(push)(v)).reshape(*v.shape[:2], -1).mean(2)
    return y - D, trace.sum(0) / (probes or 1)

  y = _spread(x_0, fold(key, 0), width) if width else x_0
  start = y, jnp.zeros(len(y), y.dtype)
  y, trace = _solve(slope, start, u_lo, u_hi, n)
  square = ((y * jnp.exp(-u_hi)) ** 2).reshape(len(y), -1).mean(1)
  nats = (math.log(2 * math.pi) + square) / 2 + u_lo + trace
  return (nats - (math.log(width) if width else 0)) / math.log(2)


def _solve(slope: Callable, y: Any, lo: Array, hi: Array, n: Array) -> Any:
  """dy/du = slope(u, y) from lo to hi by n classical Runge-Kutta steps."""
  h = (hi - lo) / n
  plus = lambda y, by, k: jax.tree.map(lambda a, b: a + by * b, y, k)
  stages = jnp.array([(0, 1), (1 / 2, 2), (1 / 2, 2), (1, 1)], h.dtype)

  def step(i: Array, y: Any) -> Any:
    def stage(carry: tuple, place: Array) -> tuple:
      k, total = carry
      k = slope(lo + h * (i + place[0]), plus(y, h * place[0], k))
      return (k, plus(total, place[1] / 6, k)), None

    zero = jax.tree.map(jnp.zeros_like, y)
    (_, total), _ = jax.lax.scan(stage, (zero, zero), stages)
    return plus(y, h, total)

  return jax.lax.fori_loop(0, n, step, y)


def _spread(x: Array, key: Array, width: float) -> Array:
  """x + U(-width / 2, width / 2)."""
  draw = lambda k: jax.random.uniform(k, x.shape[1:], x.dtype, -1.0, 1.0)
  return x + width / 2 * jax.vmap(draw)(key)


def _probes(key: Array, shape: tuple, number: int, dtype: jnp.dtype) -> Array:
  """[number, B, *shape] of -1 and 1; with number = 0 every unit vector."""
  if number:
    draw = lambda k: jax.random.rademacher(k, (number, *shape), dtype)
    return jnp.swapaxes(jax.vmap(draw)(key), 0, 1)
  d = math.prod(shape)
  units = jnp.eye(d, dtype=dtype).reshape(d, 1, *shape)
  return jnp.broadcast_to(units, (d, len(key), *shape))
