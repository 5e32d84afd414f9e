"""Guidance of any denoiser towards an attribute that a predictor sees.

Of the same predictors that GAN-Control learns by. Like DPS (Chung et al. 2023)
it takes the predictor at the estimate of x_0 and nothing is retrained, but its
step is that of a Gaussian posterior: the covariance of x_0 given x_t is
sigma^2 / alpha dD/dx_t by Tweedie's formula (Boys et al. 2023, Eq. 13), and the
estimate moves as a Kalman filter's would. So it needs no step size, and where
data are Gaussian and the predictor linear it is exact.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.diffusion.denoiser import Denoise, Estimate, mean, with_x_0
from jaxgen.diffusion.process import Noise

Array = jax.Array
Predict = Callable[[Array], Array]  # x_0 [B, ...] -> values [B, K], each x_0 alone


def towards(
  denoise: Denoise,
  predict: Predict,
  target: Array,
  tolerance: Array | float,
  strength: Array | float = 1.0,
) -> Denoise:
  """D of x_t given that `predict` of x_0 is the target, but for the tolerance.

  D + C G' (G C G' + tolerance^2)^-1 (target - predict(D)), where C is the
  covariance above and G the predictor's slope at D (Boys et al. 2023, Eq. 16).

  Args:
    denoise: D, which is evaluated once, and differentiated K times.
    predict: See `Predict`.
    target: [B, K], or [K] for all.
    tolerance: Standard deviation of the values about the target, in their own
      units: one for all, or [K]. It is above 0.
    strength: By how much of the step to move; 0: as without guidance.
  """

  def guided(x_t: Array, t: Noise) -> Array | Estimate:
    D, pull = jax.vjp(lambda x: denoise(x, t), x_t)
    x_0 = mean(D)
    values, slope = jax.vjp(predict, x_0)
    units = jnp.broadcast_to(
      jnp.eye(values.shape[-1])[:, None], (*values.shape[-1:], *values.shape)
    )
    G = jax.vmap(lambda unit: slope(unit)[0])(units)  # [K, B, ...]
    still = jax.tree.map(jnp.zeros_like, D)
    spread = jnp.where(t.alpha > 0, t.sigma**2 / jnp.maximum(t.alpha, 1e-12), 0.0)
    CG = spread * jax.vmap(lambda g: pull(with_x_0(still, g))[0])(G)
    k, b = G.shape[:2]
    G_rows, C_rows = G.reshape(k, b, -1), CG.reshape(k, b, -1)
    GCG = jnp.einsum("ibn,jbn->bij", G_rows, C_rows, precision="highest")
    gain = solved(GCG, jnp.asarray(tolerance, jnp.float32), target - values)
    moved = jnp.einsum("bk,kbn->bn", gain, C_rows, precision="highest").reshape(x_0.shape)
    return with_x_0(D, x_0 + (strength * moved).astype(x_0.dtype))

  return guided


def solved(GCG: Array, tolerance: Array, error: Array) -> Array:
  """(GCG + tolerance^2)^-1 error, [B, K].

  A net is not quite a denoiser: what makes [B, K, K] no covariance is left out.
  """
  # In units of the tolerance, so that values of any unit count alike.
  scale = jnp.broadcast_to(tolerance, GCG.shape[-1:])
  scaled = (GCG + jnp.swapaxes(GCG, -1, -2)) / 2 / (scale[:, None] * scale)
  variances, axes = jnp.linalg.eigh(scaled)
  along = jnp.einsum("bij,bi->bj", axes, error / scale, precision="highest")
  along /= jnp.maximum(variances, 0) + 1
  return jnp.einsum("bij,bj->bi", axes, along, precision="highest") / scale
