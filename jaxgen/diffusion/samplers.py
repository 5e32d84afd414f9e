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
never on how the batch is split. The network is in the program once, in the
body of a loop whose carry ends with the last estimate of x_0: programs of large
ones take minutes to compile. A denoiser that is `Outside` of programs is called
by Python, step by step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.diffusion.denoiser import Denoise, Estimate, loop, mean
from jaxgen.diffusion.process import EDM, LDM, Noise
from jaxgen.diffusion.traits import declare
from jaxgen.keys import fold, normal

Array = jax.Array


def initial(path: Noise, key: Array, shape: tuple[int, ...]) -> Array:
  """x_T ~ N(0, sigma_T^2), [B, *shape]; alpha_T x_0 is left out as it is small.

  Takes keys that the sampler does not get: it folds step numbers into its own.
  """
  return path.sigma[0] * normal(key, shape)


def steps(path: Noise, n: Array, key: Array) -> Callable[[Array], tuple[Noise, Noise, Array]]:
  """i -> t, s, keys [B]: the step from the i-th of n points to the next one.

  At the last point s is t itself.
  """
  at = lambda i: jax.tree.map(lambda a: a[i], path)
  return lambda i: (at(i), at(jnp.minimum(i + 1, n - 1)), fold(key, i))


@declare(nfe=lambda n: n, knobs=("eta", "frac"), takes=("gradient",))
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
  step = _chain(denoise, steps(path, n, key), eta, frac, gradient)
  return loop(denoise)(0, n, step, (x_T, x_T))[1]


@declare(nfe=lambda n: n, knobs=("eta", "frac"), takes=("gradient", "process"))
def ancestral_ldm(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  eta: float = 0.0,
  frac: float = 0.0,
  gradient: Callable[[Array, Noise], Array] | None = None,
  process: Callable = LDM(),  # noqa: B008 (frozen)
) -> Array:
  """`ancestral`, but the last step leads to a chain's first noise level.

  As in latent diffusion's code: x is given as it is there, with noise that a
  decoder does not mind (sigma = 0.04), and is not denoised once more.
  """
  end = process(1 / (process.steps or 1000))
  longer = jax.tree.map(lambda a, last: jnp.append(a, a[-1]).at[n].set(last), path, end)
  step = _chain(denoise, steps(longer, n + 1, key), eta, frac, gradient)
  return loop(denoise)(0, n, step, (x_T, x_T))[0]


def _chain(
  denoise: Denoise,
  step_at: Callable[[Array], tuple[Noise, Noise, Array]],
  eta: Array | float,
  frac: Array | float,
  gradient: Callable[[Array, Noise], Array] | None,
  noise: Array | None = None,
) -> Callable[[Array, tuple], tuple[Array, Array]]:
  """(i, (x, _)) -> x where step i leads, and the estimate of x_0 it goes by."""

  def step(i: Array, carry: tuple) -> tuple:
    (x, _), (t, s, z_key) = carry, step_at(i)
    D = denoise(x, t)
    x0, part = D if isinstance(D, Estimate) else (D, frac)
    eps = (x - t.alpha * x0) / t.sigma
    # Share of s.sigma^2 to draw anew: 1 - SNR_t / SNR_s of it in DDPM.
    fresh = eta**2 * -jnp.expm1(t.logsnr - s.logsnr)
    x_s = s.alpha * x0 + s.sigma * jnp.sqrt(1 - fresh) * eps
    std = s.sigma * jnp.sqrt(fresh) * (t.sigma / s.sigma) ** part
    if gradient is not None:
      x_s += std**2 * gradient(x, t)
    z = normal(z_key, x.shape[1:]) if noise is None else noise[i]
    return x_s + std * z, x0

  return step


@declare(nfe=lambda n: n)
def waveform(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  bound: float = 1.0,
  noise: Array | None = None,
) -> Array:
  """DDPM's chain that begins with N(0, 1) and clips x_t after every step.

  lmnt-com/diffwave's, whose process ends before all is noise. What is clipped
  are the samples on the way, to [-bound, bound], and not the estimates of x_0.
  `noise` [n, B, ...] of unit variance takes the place of what each step draws.
  """
  step_at = steps(path, n, key)
  step = _chain(lambda x, t: mean(denoise(x, t)), step_at, 1.0, 0.0, None, noise)

  def bounded(i: Array, carry: tuple) -> tuple:
    x_s, x0 = step(i, carry)
    return jnp.clip(x_s, -bound, bound), x0

  first = x_T / path.sigma[0]
  return jnp.clip(loop(denoise)(0, n, bounded, (first, first))[-1], -bound, bound)


@declare(nfe=lambda n: n)
def consistency(
  denoise: Denoise,
  x_T: Array,
  path: Noise,
  n: Array,
  key: Array,
  lo: float = 0.002,
  noise: Array | None = None,
) -> Array:
  """Jumps to x_0 and adds noise up to the next point: Song et al. 2023, Alg. 1.

  For a denoiser that is a consistency function, whose x_0 has noise of level
  `lo` still, in sigma / alpha. `noise` [n, B, ...] of unit variance takes the
  place of what each step draws.
  """
  step_at = steps(path, n, key)

  def step(i: Array, carry: tuple) -> tuple:
    (x, _), (t, s, z_key) = carry, step_at(i)
    x0 = mean(denoise(x, t))
    z = normal(z_key, x.shape[1:]) if noise is None else noise[i]
    return s.alpha * x0 + jnp.sqrt(jnp.maximum(s.sigma**2 - (s.alpha * lo) ** 2, 0)) * z, x0

  return loop(denoise)(0, n, step, (x_T, x_T))[-1]


@declare(nfe=lambda n: n)
def euler(denoise: Denoise, x_T: Array, path: Noise, n: Array, key: Array) -> Array:
  """The probability-flow ODE by Euler's method, for x / alpha in sigma / alpha.

  DDIM (Song et al. 2021, Eq. 13) on every process; on EDM it is Karras et al.
  2022, Alg. 1, without line 6, on Flow the Euler step of the velocity.
  """
  step_at = steps(path, n, key)

  def step(i: Array, carry: tuple) -> tuple:
    (x, _), (t, s, _) = carry, step_at(i)
    x0 = mean(denoise(x, t))
    return _move(x, x0, t, s), x0

  return loop(denoise)(0, n, step, (x_T, x_T))[-1]


@declare(nfe=lambda n: n - 1)
def encode(denoise: Denoise, x_1: Array, path: Noise, n: Array, key: Array) -> Array:
  """DDIM backwards: from the path's last point, n - 1, to x_T at its first.

  Euler's steps of the same ODE (Song et al. 2021, Eq. 14); n - 1 evaluations.
  """
  back = jax.tree.map(lambda a: a[n - 1 - jnp.arange(len(a))], path)
  step_at = steps(back, n, key)

  def step(i: Array, x: Array) -> Array:
    t, s, _ = step_at(i)
    return _move(x, mean(denoise(x, t)), t, s)

  return loop(denoise)(0, n - 1, step, x_1)


@declare(nfe=lambda n: 2 * n - 1, knobs=("churn", "s_min", "s_max", "s_noise"), takes=("process",))
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

  # Both visits of a point but the first, where the slope at its start bends.
  twice = jax.tree.map(lambda a: jnp.repeat(a, 2)[1:], path)
  step_at = steps(twice, 2 * n - 1, key)
  r = lambda t: t.sigma / t.alpha

  def step(i: Array, carry: tuple) -> tuple:
    (x, start, slope, _), (t, s, _) = carry, step_at(i)
    even = i % 2 == 0
    # To an even visit x comes afresh, perhaps with more noise; to an odd one
    # by Euler from there, to be bent.
    z = s_noise * normal(fold(key, i // 2), x.shape[1:])
    inside = (s_min <= r(t)) & (r(t) <= s_max) & even
    gamma = jnp.where(inside, jnp.minimum(churn / n, jnp.sqrt(2) - 1), 0)
    x, t = _churned(x, t, gamma, z, process)
    x0 = mean(denoise(x, t))
    eps = (x - t.alpha * x0) / t.sigma  # dy / dr
    bend = (t.sigma - t.alpha * r(start)) / 2 * (eps - slope)
    bent = x + jnp.where(start.alpha > 0, bend, 0)
    x = jnp.where(even, s.alpha * x0 + s.sigma * eps, bent)
    pick = lambda a, b: jnp.where(even, a, b)
    return x, jax.tree.map(pick, t, start), pick(eps, slope), x0

  carry = x_T, step_at(0)[0], x_T, x_T
  return loop(denoise)(0, 2 * n - 1, step, carry)[-1]


def _churned(x: Array, t: Noise, gamma: Array, z: Array, process: Callable) -> tuple[Array, Noise]:
  """More noise z, to r (1 + gamma): Karras et al. 2022, Alg. 2, lines 5-6."""
  fits = jnp.isclose(process(t.t).sigma, t.sigma, rtol=1e-3)
  gamma = jnp.where((gamma > 0) & ~fits, jnp.nan, gamma)
  y = (x / t.sigma + jnp.sqrt((1 + gamma) ** 2 - 1) * z) / (1 + gamma)
  higher = process(process.inverse(t.logsnr - 2 * jnp.log1p(gamma)))
  pick = lambda a, b: jnp.where(gamma == 0, a, b)
  t = jax.tree.map(pick, t, higher)
  return pick(x, t.sigma * y), t


@declare(nfe=lambda n: n)
def dpmpp_2m(denoise: Denoise, x_T: Array, path: Noise, n: Array, key: Array) -> Array:
  """DPM-Solver++(2M): Lu et al. 2022, Alg. 2; remembers the last estimate."""
  step_at, half = steps(path, n, key), lambda t: t.logsnr / 2  # lambda in the paper

  def step(i: Array, carry: tuple) -> tuple:
    (x, last, old), (t, s, _) = carry, step_at(i)
    x0, h, h_last = mean(denoise(x, t)), half(s) - half(t), half(t) - last
    # First order on the first step and after a step of no length.
    lean = jnp.where(h_last > 0, h / (2 * h_last), 0)
    D = x0 + lean * (x0 - old)
    x = s.sigma / t.sigma * x - s.alpha * jnp.expm1(-h) * D
    return x, half(t), x0

  return loop(denoise)(0, n, step, (x_T, half(path)[0], x_T))[-1]


def _move(x: Array, x0: Array, t: Noise, s: Noise) -> Array:
  """x_t -> x_s along the straight line (in y and r) through x_0's estimate."""
  return s.alpha * x0 + s.sigma / t.sigma * (x - t.alpha * x0)


@declare(nfe=lambda n: n, knobs=("eta",))
def dpmpp_2m_sde(
  denoise: Denoise, x_T: Array, path: Noise, n: Array, key: Array, eta: float = 1.0
) -> Array:
  """SDE-DPM-Solver++(2M): Lu et al. 2022, App. B (Alg. 2 of an SDE).

  `eta` >= 0 scales the share of fresh noise as in k-diffusion: 0 is `dpmpp_2m`,
  1 the reverse SDE. Its steps are long for the noise: many small ones, or eta
  below 1, where there are few points.
  """
  step_at, half = steps(path, n, key), lambda t: t.logsnr / 2  # lambda in the paper

  def step(i: Array, carry: tuple) -> tuple:
    (x, last, old), (t, s, z_key) = carry, step_at(i)
    x0, h, h_last = mean(denoise(x, t)), half(s) - half(t), half(t) - last
    eta_h = jnp.where(eta > 0, eta * h, 0.0)  # h may be infinite
    # First order on the first step and after a step of no length.
    lean = jnp.where(h_last > 0, h / (2 * h_last), 0)
    D = x0 + lean * (x0 - old)
    x = s.sigma / t.sigma * jnp.exp(-eta_h) * x
    x -= s.alpha * jnp.expm1(-h - eta_h) * D
    std = s.sigma * jnp.sqrt(-jnp.expm1(-2 * eta_h))
    return x + std * normal(z_key, x.shape[1:]), half(t), x0

  return loop(denoise)(0, n, step, (x_T, half(path)[0], x_T))[-1]


@declare(nfe=lambda n: 2 * n, knobs=("snr", "cap"))
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
  # Every point twice: to correct there, and to leave from.
  step_at = steps(jax.tree.map(lambda a: jnp.repeat(a, 2), path), 2 * n, key)

  def step(i: Array, carry: tuple) -> tuple:
    (x, _), (t, s, z_key) = carry, step_at(i)
    x0 = mean(denoise(x, t))
    score = (t.alpha * x0 - x) / t.sigma**2
    z = normal(z_key, x.shape[1:])
    point = i // 2
    ahead = path.alpha[jnp.minimum(point + 1, n - 1)]
    ahead = jnp.where(point + 1 < n, ahead, 1.0)  # the last: to x_0
    ratio = t.alpha / ahead * snr * d**0.5
    langevin = 2 * (ratio / jnp.maximum(norm(score), tiny)) ** 2
    langevin = jnp.minimum(langevin, cap * t.sigma**2)
    langevin = jnp.where(jnp.isfinite(langevin), langevin, 0)  # no score
    # When it corrects, s is t, and the forward step is none.
    correct = i % 2 == 0
    a = jnp.where(correct, 1.0, t.alpha / s.alpha)
    forward = jnp.maximum(t.sigma**2 - (a * s.sigma) ** 2, 0)
    drift = jnp.where(correct, langevin, forward)
    std = jnp.sqrt(jnp.where(correct, 2 * langevin, forward))
    return (2 - a) * x + drift * score + std * z, x0

  return loop(denoise)(0, 2 * n, step, (x_T, x_T))[-1]
