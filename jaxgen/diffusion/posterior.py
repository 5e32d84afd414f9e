"""The Markov chain's posterior, its variances, and the bound in bits per dim.

Here t is noisier than s. The clean end of the chain is `CLEAN`: with s = CLEAN
the posterior is x_0 itself, with variance zero.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.diffusion.denoiser import Estimate, mean
from jaxgen.diffusion.process import Noise, position

Array = jax.Array

CLEAN = Noise(0.0, 1.0, 0.0)


def _share(t: Noise, s: Noise) -> Array:
  """Variance of q(x_t | x_s) over sigma_t^2: 1 - SNR_t / SNR_s."""
  return -jnp.expm1(t.logsnr - s.logsnr)


def posterior(x_t: Array, x_0: Array, t: Noise, s: Noise) -> tuple[Array, Array]:
  """Mean and variance of q(x_s | x_t, x_0): Ho et al. 2020, Eqs. 6 and 7.

  Kingma et al. 2021, App. A, has it for every process.
  """
  share = _share(t, s)
  keep = t.alpha / s.alpha * (s.sigma / t.sigma) ** 2
  return s.alpha * share * x_0 + keep * x_t, s.sigma**2 * share


def log_variances(path: Noise) -> tuple[Array, Array]:
  """Log variances [N] of q(x_s | x_t, x_0) and q(x_t | x_s) along a path [N].

  s is the path's next point and at its end the clean one, where the former
  variance is zero; there, as in ADM, it is that of the point before, if any.
  Ho et al. 2020, Sec. 3.2, call the two beta-tilde and beta; a network that
  learns `frac` in [0, 1] has (Nichol & Dhariwal 2021, Eq. 15)

    log variance = frac * large + (1 - frac) * small
  """
  s = jax.tree.map(lambda a, end: jnp.append(a[1:], end), path, CLEAN)
  share = jnp.log(_share(path, s))
  small = 2 * jnp.log(s.sigma[:-1]) + share[:-1]
  large = 2 * jnp.log(path.sigma) + share
  return jnp.append(small, small[-1] if len(small) else large), large


class Link(NamedTuple):
  """One link of the chain, from t to the less noisy s, or many of them.

  small, large: log variances of q(x_s | x_t, x_0) and q(x_t | x_s); the former,
  where s is CLEAN, is that of the link before.
  """

  t: Noise
  s: Noise
  small: Array
  large: Array


def links(path: Noise) -> Link:
  """The N links of a path [N], the last of which leads to CLEAN."""
  s = jax.tree.map(lambda a, end: jnp.append(a[1:], end), path, CLEAN)
  return Link(path, s, *log_variances(path))


def link(process, t: Noise) -> Link:
  """From t, of any shape, one step of a discrete process down.

  `t` lies on the process' grid, as draws of `times.grid` do.
  """
  steps = process.steps
  i = position(t.t, steps)
  s = process(jnp.maximum(i - 1, 1) / steps)
  up = process(jnp.maximum(i, 2) / steps)  # the link that lends its variance
  small = 2 * jnp.log(s.sigma) + jnp.log(_share(up, s))
  s = jax.tree.map(lambda a, end: jnp.where(i > 1, a, end), s, CLEAN)
  return Link(t, s, small, 2 * jnp.log(t.sigma) + jnp.log(_share(t, s)))


def log_variance(D: Array | Estimate, link: Link, frac: Array = 1.0) -> Array:
  """Of p(x_s | x_t): D's own (Nichol & Dhariwal 2021, Eq. 15) or a fixed one.

  `frac` serves where D learned none: 0 fixed small, 1 fixed large, but small
  where s is CLEAN, as in ADM.
  """
  if isinstance(D, Estimate):
    frac = D.frac
  else:
    frac = jnp.where(link.s.sigma == 0, 0.0, frac)
  return frac * link.large + (1 - frac) * link.small


def vb_terms(x_0: Array, x_t: Array, D: Array | Estimate, link: Link, frac: Array = 1.0) -> Array:
  """The bound's terms L_s of these links, [B] bits per dimension.

  Ho et al. 2020, Eq. 5: KL(q(x_s | x_t, x_0) || p(x_s | x_t)), or where s is
  CLEAN -log p(x_0 | x_t) of x_0 = byte / 127.5 - 1. The model's mean is the
  posterior's with D's x_0, its variance `log_variance`. `link` is of
  [B, 1, .., 1] or of scalars.
  """
  t, s = link.t, link.s
  log_var = log_variance(D, link, frac)
  true, _ = posterior(x_t, x_0, t, s)
  ours, _ = posterior(x_t, mean(D), t, s)
  kl = normal_kl(true, link.small, ours, log_var)
  return bits(jnp.where(s.sigma == 0, byte_nll(x_0, ours, log_var), kl))


def bits(nats: Array) -> Array:
  """[B, ...] nats of each dimension -> [B] bits per dimension."""
  return nats.reshape(len(nats), -1).mean(1) / jnp.log(2.0)


def normal_kl(mean: Array, log_var: Array, other: Array, other_log_var: Array) -> Array:
  """KL(N(mean, e^log_var) || N(other, e^other_log_var)), elementwise, nats."""
  d = log_var - other_log_var
  squared = (mean - other) ** 2 * jnp.exp(-other_log_var)
  return 0.5 * (jnp.expm1(d) - d + squared)


def byte_nll(x_0: Array, mean: Array, log_var: Array) -> Array:
  """-log p(byte), elementwise, nats: Ho et al. 2020, Eq. 13.

  Of x_0 = byte / 127.5 - 1, whose bin is 1 / 127.5 wide; the outermost bins are
  open. As in the reference codes the normal distribution function is the tanh
  approximation and a bin's probability at least 1e-12.
  """

  def cdf(x: Array) -> Array:
    z = (x - mean) * jnp.exp(-0.5 * log_var)
    return 0.5 + 0.5 * jnp.tanh((2 / jnp.pi) ** 0.5 * (z + 0.044715 * z**3))

  low = jnp.where(x_0 < -0.999, 0.0, cdf(x_0 - 1 / 255))
  high = jnp.where(x_0 > 0.999, 1.0, cdf(x_0 + 1 / 255))
  return -jnp.log(jnp.maximum(high - low, 1e-12))


def prior_bpd(x_0: Array, T: Noise) -> Array:
  """KL(q(x_T | x_0) || N(0, 1)) in bits per dimension, [B].

  Ho et al. 2020, Eq. 5, L_T.
  """
  mean = T.alpha * x_0
  log_var = jnp.broadcast_to(2 * jnp.log(T.sigma), mean.shape)
  return bits(normal_kl(mean, log_var, 0.0, 0.0))
