"""Samplers: pure functions (denoise, x_T, path, n, key, **knobs) -> x_0.

  denoise   (x_t, t: Noise of scalars) -> an estimate of x_0, shaped like x_t,
            or an Estimate, of which all but `ancestral` take x_0 alone
  x_T       [B, ...] noise at the level of path[0], see `initial`
  path      Noise of arrays [N]: point i is to be visited i-th
  n         how many of them, 1 <= n <= N; may be traced: work follows n,
            and nothing is compiled again when it changes
  key       [B] typed keys, one per example; a deterministic one ignores them
  knobs     scalars that may be traced

Every sampler ends by denoising at the last point, where sigma is still
positive: no step divides by a zero sigma and no last step is special. What it
draws for an example depends on that example's key and the number of the step,
never on how the batch is split. `sampler.nfe(n)` is the number of evaluations
of the denoiser.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.diffusion.denoiser import Denoise, Estimate, mean
from jaxgen.diffusion.process import EDM, Noise

Array = jax.Array


def noise(key: Array, shape: tuple[int, ...]) -> Array:
  """Keys [B] -> N(0, 1) of [B, *shape], each example's from its own key."""
  return jax.vmap(lambda k: jax.random.normal(k, shape))(key)


def initial(path: Noise, key: Array, shape: tuple[int, ...]) -> Array:
  """x_T ~ N(0, sigma_T^2), [B, *shape]; alpha_T x_0 is left out as it is small.

  Takes keys that the sampler does not get: it folds step numbers into its own.
  """
  return path.sigma[0] * noise(key, shape)


class Step(NamedTuple):
  """A visit: of point number i at t, from which to go to the less noisy s."""

  i: Array
  t: Noise
  s: Noise  # t itself at the last point
  key: Array  # [B]


def steps(path: Noise, n: Array, key: Array) -> Callable[[Array], Step]:
  """i -> the leg from the i-th of n points."""
  at = lambda i: jax.tree.map(lambda a: a[i], path)
  fold = jax.vmap(jax.random.fold_in, (0, None))
  return lambda i: Step(i, at(i), at(jnp.minimum(i + 1, n - 1)), fold(key, i))


def iterate(
  step: Callable[[Any, Step], tuple[Any, Array]], state: Any, path: Noise, n: Array, key: Array
) -> Array:
  """Visits n points -> the estimate of x_0 at the last of them.

  `step` takes the state along a leg and returns it and the estimate of x_0 at
  the leg's start. The state's first leaf is x_T. The network is in the program
  once: programs of large ones take minutes to compile.
  """
  leg, x_T = steps(path, n, key), jax.tree.leaves(state)[0]

  def visit(i: Array, carry: tuple) -> tuple:
    state, x_0 = step(carry[0], leg(i))
    return state, x_0.astype(x_T.dtype)

  return jax.lax.fori_loop(0, n, visit, (state, x_T))[1]


def ancestral(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  eta: float = 1.0,
  frac: float = 0.0,
  gradient: Callable[[Array, Noise], Array] | None = None,
) -> Array:
  """From DDIM (eta = 0) to DDPM (eta = 1): Song et al. 2021, Eqs. 12 and 16.

  `eta` lies in [0, 1]. `frac` chooses between the variances of Ho et al. 2020,
  Sec. 3.2: 0 is the posterior's ("fixed small"), 1 the forward step's ("fixed
  large"), the rest their log-interpolation (Nichol & Dhariwal 2021, Eq. 15);
  a denoiser that learns the variance says its own.
  `gradient(x_t, t)`, if given, shifts the mean by the variance times it, which
  is classifier guidance as in Dhariwal & Nichol 2021, Alg. 1: the scale is
  inside and the gradient at x_t.
  """

  def step(x: Array, leg: Step) -> tuple[Array, Array]:
    t, s = leg.t, leg.s
    D = denoise(x, t)
    x0, part = D if isinstance(D, Estimate) else (D, frac)
    eps = (x - t.alpha * x0) / t.sigma
    # Share of s.sigma^2 to draw anew: 1 - SNR_t / SNR_s of it in DDPM.
    fresh = eta**2 * -jnp.expm1(t.logsnr - s.logsnr)
    x_s = s.alpha * x0 + s.sigma * jnp.sqrt(1 - fresh) * eps
    std = s.sigma * jnp.sqrt(fresh) * (t.sigma / s.sigma) ** part
    if gradient is not None:
      x_s += std**2 * gradient(x, t)
    return x_s + std * noise(leg.key, x.shape[1:]), x0

  return iterate(step, x_T, path, n, key)


def euler(denoise: Denoise, x_T: Array, path: Noise, n: Array, key: Array) -> Array:
  """The probability-flow ODE by Euler's method, for x / alpha in sigma / alpha.

  DDIM (Song et al. 2021, Eq. 13) on every process; on EDM it is Karras et al.
  2022, Alg. 1, without line 6, on Flow the Euler step of the velocity.
  """

  def step(x: Array, leg: Step) -> tuple[Array, Array]:
    x0 = mean(denoise(x, leg.t))
    return _move(x, x0, leg), x0

  return iterate(step, x_T, path, n, key)


def encode(denoise: Denoise, x_1: Array, path: Noise, n: Array, key: Array) -> Array:
  """DDIM backwards: from the path's last point, n - 1, to x_T at its first.

  Euler's steps of the same ODE (Song et al. 2021, Eq. 14); n - 1 evaluations.
  """
  back = jax.tree.map(lambda a: a[n - 1 - jnp.arange(len(a))], path)
  leg = steps(back, n, key)
  step = lambda x, leg: _move(x, mean(denoise(x, leg.t)), leg)
  return jax.lax.fori_loop(0, n - 1, lambda i, x: step(x, leg(i)), x_1)


def heun(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  churn: float = 0.0,
  s_min: float = 0.0,
  s_max: float = float("inf"),
  s_noise: float = 1.0,
  process: Callable = EDM(),  # noqa: B008 (frozen)
) -> Array:
  """Karras et al. 2022, Alg. 2 (Alg. 1 without churn), in y = x / alpha.

  Of r = sigma / alpha, which is sigma itself on EDM; so are s_min and s_max.
  `process` is needed to churn on another process than EDM: churning on one
  that did not make the path gives NaN. The steps are long in r where alpha
  goes to zero; take `times.karras`. From alpha = 0 itself it goes by Euler.
  """

  def step(state: tuple, leg: Step) -> tuple:
    x, start, slope = state
    even = leg.i % 2 == 0
    # To an even visit x comes afresh, perhaps with more noise; to an odd one
    # by Euler from there, to be bent.
    z = s_noise * noise(fold(key, leg.i // 2), x.shape[1:])
    inside = (s_min <= r(leg.t)) & (r(leg.t) <= s_max) & even
    gamma = jnp.where(inside, jnp.minimum(churn / n, jnp.sqrt(2) - 1), 0)
    x, t = _churned(x, leg.t, gamma, z, process)
    x0 = mean(denoise(x, t))
    eps = (x - t.alpha * x0) / t.sigma  # dy / dr
    bend = (t.sigma - t.alpha * r(start)) / 2 * (eps - slope)
    bent = x + jnp.where(start.alpha > 0, bend, 0)
    x = jnp.where(even, leg.s.alpha * x0 + leg.s.sigma * eps, bent)
    pick = lambda a, b: jnp.where(even, a, b)
    return (x, jax.tree.map(pick, t, start), pick(eps, slope)), x0

  r = lambda t: t.sigma / t.alpha
  fold = jax.vmap(jax.random.fold_in, (0, None))
  # Both visits of a point but the first, where the slope at its start bends.
  twice = jax.tree.map(lambda a: jnp.repeat(a, 2)[1:], path)
  start = jax.tree.map(lambda a: a[0], path)
  return iterate(step, (x_T, start, x_T), twice, 2 * n - 1, key)


def _churned(x: Array, t: Noise, gamma: Array, z: Array, process: Callable) -> tuple[Array, Noise]:
  """More noise z, to r (1 + gamma): Karras et al. 2022, Alg. 2, lines 5-6."""
  known = jnp.isclose(process(t.t).sigma, t.sigma, rtol=1e-3)
  gamma = jnp.where((gamma > 0) & ~known, jnp.nan, gamma)
  y = (x / t.sigma + jnp.sqrt((1 + gamma) ** 2 - 1) * z) / (1 + gamma)
  higher = process(process.inverse(t.logsnr - 2 * jnp.log1p(gamma)))
  still = gamma == 0
  t = jax.tree.map(lambda a, b: jnp.where(still, a, b), t, higher)
  return jnp.where(still, x, t.sigma * y), t


def dpmpp_2m(denoise: Denoise, x_T: Array, path: Noise, n: Array, key: Array) -> Array:
  """DPM-Solver++(2M): Lu et al. 2022, Alg. 2; remembers the last estimate."""

  def step(carry: tuple, leg: Step) -> tuple:
    x, old, last = carry
    t, s = leg.t, leg.s
    x0, h, h_last = mean(denoise(x, t)), half(s) - half(t), half(t) - last
    # First order on the first leg and after a leg of no length.
    lean = jnp.where(h_last > 0, h / (2 * h_last), 0)
    D = x0 + lean * (x0 - old)
    x = s.sigma / t.sigma * x - s.alpha * jnp.expm1(-h) * D
    return (x, x0, half(t)), x0

  half = lambda t: t.logsnr / 2  # lambda in the paper
  return iterate(step, (x_T, x_T, half(path)[0]), path, n, key)


def _move(x: Array, x0: Array, leg: Step) -> Array:
  """x_t -> x_s along the straight line (in y and r) through x_0's estimate."""
  t, s = leg.t, leg.s
  return s.alpha * x0 + s.sigma / t.sigma * (x - t.alpha * x0)


ancestral.nfe = euler.nfe = dpmpp_2m.nfe = lambda n: n
encode.nfe = lambda n: n - 1
heun.nfe = lambda n: 2 * n - 1


def dpmpp_2m_sde(
  denoise: Denoise, x_T: Array, path: Noise, n: Array, key: Array, eta: float = 1.0
) -> Array:
  """SDE-DPM-Solver++(2M): Lu et al. 2022, App. B (Alg. 2 of an SDE).

  `eta` >= 0 scales the share of fresh noise as in k-diffusion: 0 is `dpmpp_2m`,
  1 the reverse SDE. Its steps are long for the noise: many small ones, or eta
  below 1, where there are few points.
  """

  def step(carry: tuple, leg: Step) -> tuple:
    x, old, last = carry
    t, s = leg.t, leg.s
    x0, h, h_last = mean(denoise(x, t)), half(s) - half(t), half(t) - last
    eta_h = jnp.where(eta > 0, eta * h, 0.0)  # h may be infinite
    # First order on the first leg and after a leg of no length.
    lean = jnp.where(h_last > 0, h / (2 * h_last), 0)
    D = x0 + lean * (x0 - old)
    x = s.sigma / t.sigma * jnp.exp(-eta_h) * x
    x -= s.alpha * jnp.expm1(-h - eta_h) * D
    std = s.sigma * jnp.sqrt(-jnp.expm1(-2 * eta_h))
    return (x + std * noise(leg.key, x.shape[1:]), x0, half(t)), x0

  half = lambda t: t.logsnr / 2  # lambda in the paper
  return iterate(step, (x_T, x_T, half(path)[0]), path, n, key)


dpmpp_2m_sde.nfe = lambda n: n


def pc(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  snr: float = 0.16,
  cap: float = float("inf"),
) -> Array:
  """Reverse diffusion, Langevin's corrector: Song et al. 2021, Algs. 1, 4, 5.

  At every point a Langevin step of the signal-to-noise ratio `snr` (0: none),
  then the predictor's step to the next one (App. E, Eq. 46), whose forward step
  x_t = a x_s + G z is the process' own: Eq. 9 on VE and EDM, Eq. 11 on VP and
  discrete ones. Like Euler's, it wants a close to 1: many points, few of them
  where alpha goes to zero. 2 n evaluations.

  The norm of the score is the example's own, and that of the noise the root of
  its dimension, as the paper has it for one sample (App. G); the authors' code
  takes a batch's mean norms. In few dimensions a score can be about zero and
  its step huge: `cap` bounds the step to cap sigma^2, which the authors do not.
  """
  d, tiny = x_T[0].size, jnp.finfo(x_T.dtype).tiny
  norm = lambda x: jnp.sqrt((x**2).sum(range(1, x.ndim), keepdims=True))

  def step(x: Array, leg: Step) -> tuple[Array, Array]:
    t, s, i = leg.t, leg.s, leg.i // 2
    x0 = mean(denoise(x, t))
    score = (t.alpha * x0 - x) / t.sigma**2
    z = noise(leg.key, x.shape[1:])
    ahead = path.alpha[jnp.minimum(i + 1, n - 1)]
    ahead = jnp.where(i + 1 < n, ahead, 1.0)  # the last: to x_0
    ratio = t.alpha / ahead * snr * d**0.5
    langevin = 2 * (ratio / jnp.maximum(norm(score), tiny)) ** 2
    langevin = jnp.minimum(langevin, cap * t.sigma**2)
    langevin = jnp.where(jnp.isfinite(langevin), langevin, 0)  # no score
    # On a corrector's leg s is t, and the forward step is none.
    correct = leg.i % 2 == 0
    a = jnp.where(correct, 1.0, t.alpha / s.alpha)
    forward = jnp.maximum(t.sigma**2 - (a * s.sigma) ** 2, 0)
    drift = jnp.where(correct, langevin, forward)
    std = jnp.sqrt(jnp.where(correct, 2 * langevin, forward))
    return (2 - a) * x + drift * score + std * z, x0

  # Every point twice: to correct there, and to leave from.
  twice = jax.tree.map(lambda a: jnp.repeat(a, 2), path)
  return iterate(step, x_T, twice, 2 * n, key)


pc.nfe = lambda n: 2 * n
