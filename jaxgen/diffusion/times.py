"""Where to train and where to sample: draws and paths of t.

A draw maps keys [B] (typed, one per example) and the rank of x to t of shape
[B, 1, .., 1], so that t's alpha and sigma broadcast against x.

A path maps (process, i, n) to t: point number i of n, 0 the noisiest, n - 1
the last before x_0. It is elementwise in i and n may be traced; past its end
a path stays at its last point, as do respaced ones asked for more points than
the process has. With n = 1 a path is the noisiest point alone.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.traits import declare

Array = jax.Array
CUSTOMARY = 1000  # a continuous process is respaced as if it had so many steps


def _each(draw: Callable[[Array], Array], key: Array, ndim: int) -> Array:
  return jax.vmap(draw)(key).reshape(-1, *[1] * (ndim - 1))


def uniform(key: Array, ndim: int, lo: float = 1e-3, hi: float = 1.0) -> Array:
  """t ~ U[lo, hi)."""
  draw = lambda k: jax.random.uniform(k, (), minval=lo, maxval=hi)
  return _each(draw, key, ndim)


def grid(key: Array, ndim: int, steps: int = 1000) -> Array:
  """t ~ U{1 / steps, 2 / steps, .., 1}: the points of a discrete process."""
  draw = lambda k: jax.random.randint(k, (), 1, steps + 1) / steps
  return _each(draw, key, ndim)


def lognormal(key: Array, ndim: int, mean: float = -1.2, std: float = 1.2) -> Array:
  """ln t ~ N(mean, std^2): EDM's training noise (Karras et al. 2022)."""
  draw = lambda k: jnp.exp(mean + std * jax.random.normal(k))
  return _each(draw, key, ndim)


def logit_normal(key: Array, ndim: int, mean: float = 0.0, std: float = 1.0) -> Array:
  """logit t ~ N(mean, std^2): Esser et al. 2024, Eq. 19."""
  draw = lambda k: jax.nn.sigmoid(mean + std * jax.random.normal(k))
  return _each(draw, key, ndim)


def even(process, i: Array, n: Array, hi: float = 1.0, lo: float = 0.0) -> Array:
  """hi, hi (n - 1) / n, .., hi / n: all of a process of n steps.

  With `lo`, evenly from hi to the last before lo.
  """
  del process
  t = lo + (hi - lo) * (n - jnp.minimum(i, n - 1)) / n
  # n / n need not be 1 on a device, and Flow knows no time beyond 1.
  return jnp.where(i == 0, hi, t)


def span(process, i: Array, n: Array, hi: float = 1.0, lo: float = 0.04) -> Array:
  """Evenly from `hi` to `lo`, both ends among the points.

  SiT's way to its last step, which is of size `lo` (Ma et al. 2024).
  """
  del process
  part = jnp.minimum(i, n - 1) / jnp.maximum(n - 1, 1)
  # n / n need not be 1 on a device.
  return jnp.where((i >= n - 1) & (n > 1), lo, hi + part * (lo - hi))


def shorter(
  process, i: Array, n: Array, betas: Sequence[float] = (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)
) -> Array:
  """The noise levels of a shorter chain of these betas, the last one first.

  DiffWave's fast schedule (Kong et al. 2021, App. B; Chen et al. 2021), of a
  discrete process whose levels those lie between. n should be as many as there
  are: with fewer the way would end in noise, so all of it is NaN.
  """
  abar, own = (np.cumprod(1 - np.asarray(b, np.float64)) for b in (betas, process.betas))
  logsnr = lambda abar: np.log(abar) - np.log1p(-abar)
  grid = np.arange(1, process.steps + 1)
  t = jnp.asarray(np.interp(-logsnr(abar), -logsnr(own), grid)[::-1] / process.steps, float)
  return jnp.where(n < len(betas), jnp.nan, t[jnp.minimum(i, len(betas) - 1)])


def ldm(process, i: Array, n: Array) -> Array:
  """Latent diffusion's: every k-th index from 1, where k = steps // S.

  S is what its code is asked for, which may be less than n: 6 make 7 points, 400
  make 500. Of n that no S makes, floor(j steps / n) + 1; and where that code
  reads beyond its table, and fails, all one earlier. Its last step is that of
  `samplers.ancestral_ldm`.
  """
  return _respaced(_from_one, process, i, n)


def ldm_quadratic(process, i: Array, n: Array) -> Array:
  """`quadratic`, one index later each: latent diffusion's "quad"."""
  return _respaced(_squares_from_one, process, i, n)


@declare(knobs=("first", "bend"))
def warped(process, i: Array, n: Array, first: float = 1.0, bend: float = 1.0) -> Array:
  """t = first ((n - i) / n)^bend: short schedules to be searched for.

  Saharia et al. 2021, Sec. 2.4, and Chen et al. 2021 (WaveGrad) search small
  grids of schedules for a handful of steps. Both arguments are knobs: `first`
  in (0, 1] is the noisiest time, bend > 1 puts points where there is less
  noise. A search is `jaxgen sweep --respacing warped --over bend=1,2,3`.
  """
  del process
  return first * ((n - jnp.minimum(i, n - 1)) / n) ** bend


def karras(
  process, i: Array, n: Array, lo: float = 0.002, hi: float = 80.0, rho: float = 7.0
) -> Array:
  """r = sigma / alpha from `hi` to `lo`: Karras et al. 2022, Eq. 5.

  The path for second-order samplers, and for `heun` the one to take where
  alpha goes to zero: r stays finite. On EDM, t = r; a discrete process that
  ends before `hi` or begins after `lo` is taken from its own end to its own.
  """
  part = jnp.minimum(i, n - 1) / jnp.maximum(n - 1, 1)
  ends = process(process.inverse(-2 * jnp.log(jnp.array([hi, lo], float))))
  first, last = (ends.sigma / ends.alpha) ** (1 / rho)
  r = (first + part * (last - first)) ** rho
  return process.inverse(-2 * jnp.log(r))


@declare(knobs=("bend",))
def jumps(
  process,
  i: Array,
  n: Array,
  lo: float = 0.002,
  hi: float = 80.0,
  rho: float = 7.0,
  bend: float = 1.0,
) -> Array:
  """The first n of n + 1 points of `karras`: the last step leads to `lo` itself.

  For samplers of few steps whose every step is long. Of the way in t^(1 / rho)
  1 - (1 - i / n)^bend is done: bend > 1 puts points where there is less noise.
  """
  part = 1 - (1 - jnp.minimum(i, n - 1) / n) ** bend
  return karras(process, part, jnp.int32(2), lo, hi, rho)


def chosen(
  process,
  i: Array,
  n: Array,
  ts: Sequence[int] = (0, 22),
  of: int = 40,
  lo: float = 0.002,
  hi: float = 80.0,
  rho: float = 7.0,
) -> Array:
  """Some of the `of` points of `karras`, by index, as the code of Song et al. 2023 has it.

  Its last index, at which nothing is evaluated, is left out. With fewer n the
  way is as long; what is left out are the last points.
  """
  index = jnp.asarray(ts)[jnp.minimum(jnp.minimum(i, n - 1), len(ts) - 1)]
  return karras(process, index, jnp.int32(of), lo, hi, rho)


def ddim(process, i: Array, n: Array) -> Array:
  """ADM's "ddim25" and so on: every k-th index from 0, never the last one.

  t = (index + 1) / steps. ADM refuses n that no stride gives; here they get
  floor(j steps / n).
  """
  return _respaced(_every_kth, process, i, n)


def spaced(process, i: Array, n: Array) -> Array:
  """ADM's "250" and so on: evenly with both ends, rounded to the grid."""
  return _respaced(_both_ends, process, i, n)


def quadratic(process, i: Array, n: Array) -> Array:
  """DDIM's quadratic indices up to 0.8 steps (Song et al. 2021, App. D.2).

  Dense at low noise; with many steps the lowest indices repeat.
  """
  return _respaced(_squares, process, i, n)


def named(process, i: Array, n: Array, spacing: str = "ddim25") -> Array:
  """What ADM calls `timestep_respacing`: "250", "ddim25", "10,10,15,20".

  Nichol & Dhariwal 2021, App. C: of sections of equal length, first the least
  noisy, so many points each, both ends among them; or DDIM's stride. `count`
  says how many points that makes, and n should be that: with fewer the way
  would end in noise, so all of it is NaN.

  Raises:
    ValueError: No such spacing of this process; see `count`.
  """
  steps = process.steps or CUSTOMARY
  index = jnp.asarray(_published(spacing, steps))
  t = (index[jnp.minimum(i, len(index) - 1)] + 1).astype(float) / steps
  return jnp.where(n < len(index), jnp.nan, t)


def count(spacing: str, steps: int = 1000) -> int:
  """How many points `named` has.

  Raises:
    ValueError: Not a spacing, a section too short for its points, or "ddimN"
      where no whole stride makes N points.
  """
  return len(_published(spacing, steps))


@functools.cache
def _published(spacing: str, steps: int) -> np.ndarray:
  """Indices, noisiest first."""
  striding = spacing.startswith("ddim")
  try:
    numbers = [int(n) for n in spacing.removeprefix("ddim").split(",")]
  except ValueError:
    numbers = []
  if not numbers or min(numbers) < 0 or not sum(numbers):
    raise ValueError(f'spacing {spacing!r}: want one like "250", "10,10,15,20" or "ddim25"')
  if striding:
    (n,) = numbers if len(numbers) == 1 else (0,)
    strides = (np.arange(0, steps, k) for k in range(1, steps))
    index = next((stride for stride in strides if len(stride) == n), None)
    if index is None:
      raise ValueError(f"spacing {spacing!r}: no whole stride makes so many of {steps} steps")
    return index[::-1].astype(np.int32)
  size, longer = divmod(steps, len(numbers))
  parts, start = [], 0
  for section, n in enumerate(numbers):
    length = size + (section < longer)
    if n > length:
      raise ValueError(f"spacing {spacing!r}: {n} points in a section of {length} steps")
    parts.append(start + _both_ends(length, n))
    start += length
  return np.concatenate(parts)[::-1].astype(np.int32)


def _every_kth(steps: int, n: int) -> np.ndarray:
  k = -(-steps // n)
  j = np.arange(n)
  return j * k if -(-steps // k) == n else j * steps // n


def _both_ends(steps: int, n: int) -> np.ndarray:
  # A running sum as published: its rounding decides ties such as 499.5.
  stride = np.full(n, (steps - 1) / max(n - 1, 1))
  stride[:1] = 0.0
  return np.round(np.cumsum(stride))


def _squares(steps: int, n: int) -> np.ndarray:
  return np.floor(np.linspace(0, np.sqrt(steps * 0.8), n) ** 2)


def _squares_from_one(steps: int, n: int) -> np.ndarray:
  return np.minimum(_squares(steps, n) + 1, steps - 1)


def _from_one(steps: int, n: int) -> np.ndarray:
  points = lambda S: -(-steps // (steps // S))
  S = n
  while points(S) > n:
    S -= 1
  j = np.arange(n)
  index = j * (steps // S) if points(S) == n else j * steps // n
  return index + (index[-1] + 1 < steps)


@functools.cache
def _indices(rule: Callable, steps: int) -> np.ndarray:
  """The rule's indices, noisiest first, for n = 1, 2, .. steps, end to end.

  Rules round in float64, which devices lack: hence a table of the host's.
  """
  rows = [rule(steps, n)[::-1] for n in range(2, steps + 1)]
  return np.concatenate([[steps - 1], *rows]).astype(np.int32)


def _respaced(rule: Callable, process, i: Array, n: Array) -> Array:
  steps = process.steps or CUSTOMARY
  n = jnp.minimum(n, steps)
  row = n * (n - 1) // 2
  table = jnp.asarray(_indices(rule, steps))
  index = table[row + jnp.minimum(i, n - 1)]
  return (index + 1).astype(float) / steps
