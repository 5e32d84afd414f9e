"""RePaint: inpainting by going back and forth in time (Lugmayr et al. 2022).

Points of the path are counted here as the authors do, from the clean end: of n points
n - 1 is the noisiest, 0 the last, and -1 is x_0. `place` says where the walk is after
so many steps, in closed form: so both lengths of its jumps are traced, and no table is
made for them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.diffusion.denoiser import Denoise, Estimate
from jaxgen.diffusion.posterior import CLEAN, posterior
from jaxgen.diffusion.process import Noise
from jaxgen.keys import fold, normal

Array = jax.Array
OWN, KNOWN = 0, 1  # what noise is drawn for


class Jumps(NamedTuple):
  """How the walk goes back: whole numbers, which may be traced.

  length: Points that a jump leads back, at least 1 (the authors' jump_length).
  times: How often each stretch is walked, at least 1 (their jump_n_sample, and
    "r", resamplings, of the paper).
  """

  length: Array | int = 10
  times: Array | int = 10


def _stops(n: Array | int, jumps: Jumps) -> Array | int:
  """How many points jumps begin at: 0, length, 2 length, .. below n - length."""
  return -(-jnp.maximum(n - jumps.length, 0) // jumps.length)


def count(n: Array | int, jumps: Jumps) -> Array:
  """Number of steps in all, forth and back: one less than the authors' table has entries."""
  return n + 2 * _stops(n, jumps) * jumps.length * (jumps.times - 1)


def nfe(n: int, jumps: Jumps) -> int:
  """How often the denoiser is evaluated: at each step that takes noise away."""
  return n + int(_stops(n, jumps)) * jumps.length * (jumps.times - 1)


def place(i: Array | int, n: Array | int, jumps: Jumps) -> Array:
  """The point at which step i begins, n - 1 .. 0, and -1 after the last one.

  From n - 1 down to the highest stop; there `times` - 1 jumps, each back up and down
  again; then down to the next stop, and from the stop 0 to -1.
  """
  length, times = jumps
  stops = _stops(n, jumps)
  highest = (stops - 1) * length
  before = jnp.where(stops > 0, n - 1 - highest, n)  # steps to the first stop
  jumping = 2 * length * (times - 1)
  round_, rest = jnp.divmod(i - before, jumping + length)
  stop = highest - round_ * length
  part = rest % (2 * length)
  walking = stop + jnp.minimum(part, 2 * length - part)
  there = jnp.where(rest < jumping, walking, stop - (rest - jumping))
  return jnp.where(i <= before, n - 1 - i, jnp.maximum(there, -1))


def schedule(n: int, jumps: Jumps) -> Array:
  """All of it, [count + 1]: the authors' `get_schedule_jump`."""
  return place(jnp.arange(int(count(n, jumps)) + 1), n, jumps)


def repaint(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  known: Array,
  keep: Array,
  jump_length: Array | float = 10,
  jump_n_sample: Array | float = 10,
  frac: Array | float = 0.0,
  draw: Callable[[Array, int], Array] | None = None,
) -> Array:
  """Lugmayr et al. 2022, Alg. 1, as the authors' code has it -> x_0, [B, ...].

  Where `keep` is 1, x_t is replaced by `known` with fresh noise of the same level t,
  before the denoiser looks at it; but not at the first step. (Alg. 1 puts it in at t - 1,
  after the step.) What comes out is the denoiser's own on the known part too.

  Args:
    denoise, x_T, path, n, key: See `samplers`. The denoiser is inside the program.
    known: x_0 in [-1, 1] where it is known, [B, ...].
    keep: 1 where x is known, else 0, broadcast to x.
    jump_length: Whole, at least 1; may be traced, as may the next.
    jump_n_sample: Whole, at least 1; 1: no jumps, which is the replacement method.
    frac: See `samplers.ancestral`; a denoiser that learns the variance says its own.
    draw: (number of the step, OWN or KNOWN) -> [B, ...] of unit variance, in place of keys.
  """
  jumps = Jumps(*(jnp.maximum(jnp.int32(a), 1) for a in (jump_length, jump_n_sample)))
  draw = draw or (lambda i, what: normal(fold(fold(key, i), what), x_T.shape[1:]))
  ends = jax.tree.map(lambda a, end: jnp.append(a, jnp.asarray(end, a.dtype)), path, CLEAN)
  level = lambda k: jax.tree.map(lambda a: a[jnp.where(k < 0, len(path.t), n - 1 - k)], ends)

  def forth(i: Array, x: Array, t: Noise, s: Noise) -> Array:
    x_known = t.alpha * known + t.sigma * draw(i, KNOWN)
    x = jnp.where(i > 0, keep * x_known + (1 - keep) * x, x)
    D = denoise(x, t)
    x_0, part = D if isinstance(D, Estimate) else (D, frac)
    mean, variance = posterior(x, x_0, t, s)
    std = jnp.sqrt(variance) * (t.sigma / s.sigma) ** part
    return mean + jnp.where(s.sigma > 0, std, 0) * draw(i, OWN)

  def back(i: Array, x: Array, t: Noise, s: Noise) -> Array:
    return noisier(x, t, s, draw(i, OWN))

  def step(i: Array, x: Array) -> Array:
    now, then = place(i, n, jumps), place(i + 1, n, jumps)
    return jax.lax.cond(then < now, forth, back, i, x, level(now), level(then))

  return jax.lax.fori_loop(0, count(n, jumps), step, x_T)


def noisier(x: Array, t: Noise, s: Noise, z: Array) -> Array:
  """x_s ~ q(x_s | x_t) of a level s with more noise than t, by z of unit variance."""
  shrink = s.alpha / t.alpha  # the root of 1 - beta
  return shrink * x + jnp.sqrt(jnp.maximum(s.sigma**2 - (shrink * t.sigma) ** 2, 0)) * z
