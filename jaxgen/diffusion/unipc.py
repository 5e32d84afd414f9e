"""Samplers that remember estimates: one evaluation a point, of higher order.

As in `samplers`, whose promises they keep. Their steps are even where those of
lambda = log(alpha / sigma) are: take `times.karras`, or an even path of a
process whose lambda is about linear in t.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.denoiser import Denoise, loop, mean
from jaxgen.diffusion.process import Noise
from jaxgen.diffusion.samplers import steps
from jaxgen.diffusion.traits import declare

Array = jax.Array


@declare(nfe=lambda n: n)
def unipc(denoise: Denoise, x_T: Array, path: Noise, n: Array, key: Array, order: int = 2) -> Array:
  """UniPC: Zhao et al. 2023, Alg. 5-8, predicting x_0, B(h) = e^h - 1 (bh2).

  `order` (static) is 2 or 3 (advised: 2 with guidance, 3 without). A corrector
  of the same order reuses each estimate, so that the whole is one order better.
  The first steps have what order they can and, as in the authors' code, the
  last have less: the very last is denoising.
  """
  if order not in (2, 3):
    raise ValueError(f"unipc has order 2 or 3, not {order}")
  predict, correct = _weights(path.logsnr / 2, n, order)
  reach = -path.alpha[1:] * jnp.expm1((path.logsnr[:-1] - path.logsnr[1:]) / 2)
  # Of the step that arrived at a point: none at the first.
  arrive, correct = (jnp.concatenate([jnp.zeros_like(a[:1]), a]) for a in (reach, correct))

  step_at = steps(path, n, key)

  def step(i: Array, carry: tuple) -> tuple:
    (x, base, old), (t, s, _) = carry, step_at(i)  # x is from base = sigma_s / sigma_t x_t
    x0 = mean(denoise(x, t))
    x = base + arrive[i] * (old[0] + lean(correct[i], [x0, *old[1:]], old[0]))
    base = s.sigma / t.sigma * x
    x = base + reach[i] * (x0 + lean(predict[i], old[:-1], x0))
    return x, base, (x0, *old[:-1])

  lean = lambda weights, them, origin: sum(
    w * (other - origin) for w, other in zip(weights, them, strict=True)
  )
  return loop(denoise)(0, n, step, (x_T, x_T, (x_T,) * order))[-1][0]


def _weights(lam: Array, n: Array, order: int) -> tuple[Array, Array]:
  """Weights of the steps between lambdas [N]: predictor [N - 1, order - 1],
  corrector [N - 1, order], of differences to the estimate at the step's start.

  Both interpolate the estimates, at nodes in units of the step: 1 is its end
  (the corrector alone knows it), the older ones lie below 0.
  """
  h = lam[1:] - lam[:-1]
  pad = jnp.concatenate([jnp.full(order, -jnp.inf), lam[:-1]])
  past = lambda j: pad[order - j : len(pad) - j]  # lambda j points before
  r = [(past(j) - lam[:-1]) / h for j in range(1, order)]
  i = jnp.arange(len(h))
  # Orders that points ahead allow, and points behind, where they differ.
  most = jnp.where(h > 0, jnp.minimum(n - i, order), 1)
  for j in range(order - 1, 0, -1):
    usable = jnp.isfinite(past(j)) & (past(j) < past(j - 1))
    most = jnp.where(usable, most, jnp.minimum(most, j))
  # Nodes that are not to be used get a harmless place.
  r = [jnp.where(j < most, a, -float(j)) for j, a in enumerate(r, 1)]
  b, one = _moments(h), jnp.ones_like(h)
  zeros = [0 * one] * (order - 1)
  predict, correct = [zeros], [[0.5 * one, *zeros]]
  for p in range(2, order + 1):
    nodes, padding = r[: p - 1], zeros[p - 1 :]
    # The authors' UniP-2 has 1 / 2 for the first moment.
    ahead = [0.5 / r[0]] if p == 2 else _interpolate(nodes, b)
    predict.append(ahead + padding)
    correct.append(_interpolate([one, *nodes], b) + padding)
  pick = lambda table: jnp.stack(
    [jnp.choose(most - 1, list(w), mode="clip") for w in zip(*table, strict=True)], axis=-1
  )
  return pick(predict), pick(correct)


def _moments(h: Array) -> list[Array]:
  """E[u], E[u^2], E[u^3] for u in [0, 1] of density ~ e^(h u)."""
  u, weight = np.polynomial.legendre.leggauss(8)
  u, weight = (1 + u) / 2, weight / 2
  # By parts where h is long, by quadrature where that would cancel.
  long = jnp.maximum(h, 1.0)
  density = weight * jnp.exp(jnp.minimum(h, 1.0)[:, None] * (u - 1))
  total, moment, out = density.sum(1), 1.0, []
  for i in (1, 2, 3):
    moment = -1 / jnp.expm1(-long) - i / long * moment
    short = (density * u**i).sum(1) / total
    out.append(jnp.where(h < 1, short, moment))
  return out


def _interpolate(nodes: list[Array], b: list[Array]) -> list[Array]:
  """E[l(u)] for the Lagrange polynomials l of 0 and the nodes, but 0's own."""

  def weight(node: Array, others: list[Array]) -> Array:
    match others:
      case []:
        return b[0] / node
      case [m]:
        return (b[1] - m * b[0]) / (node * (node - m))
      case [m, k]:
        top = b[2] - (m + k) * b[1] + m * k * b[0]
        return top / (node * (node - m) * (node - k))

  return [weight(node, nodes[:i] + nodes[i + 1 :]) for i, node in enumerate(nodes)]
