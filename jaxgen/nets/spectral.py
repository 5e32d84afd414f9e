"""Layers whose weights have spectral norm 1 (Miyato et al. 2018, Eq. 8)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class Spectral(nn.Module):
  """A layer, its weight divided by its largest singular value.

  The value is found by one power iteration from a vector `u`. It and `u` live
  in the collection "spectral" (`sigma`, `u`), and move where that may change:
  in training. Parameters have the names that the layer alone gives them.

  Attributes:
    layer: Has one weight, called kernel or embedding.
    stored: Where nothing moves, divide by the `sigma` that is kept, as
      PyTorch's own spectral norm does; else by that of an iteration from `u`
      which is not kept, as Brock's code does.
    eps: The least norm by which a vector is divided.
  """

  layer: nn.Module
  stored: bool = False
  eps: float = 1e-6

  def setup(self):
    nn.share_scope(self, self.layer)

  @nn.compact
  def __call__(self, *args) -> Array:
    if self.is_initializing():
      self.layer(*args)  # makes the weights
    params = dict(self.layer.variables["params"])
    (name,) = {"kernel", "embedding"} & set(params)
    weight = params[name]
    # As PyTorch sees it: rows are what comes out, or labels.
    matrix = weight if name == "embedding" else weight.reshape(-1, weight.shape[-1]).T
    u = self.variable(
      "spectral", "u", lambda: jax.random.normal(self.make_rng("params"), matrix.shape[:1])
    )
    stored = self.variable("spectral", "sigma", lambda: jnp.ones([]))
    moves = self.is_mutable_collection("spectral")
    if moves or not self.stored:
      new, sigma = power_iteration(matrix, u.value, self.eps)
    else:
      sigma = stored.value
    if moves and not self.is_initializing():
      u.value, stored.value = new, jax.lax.stop_gradient(sigma)
    params[name] = weight / jnp.where(sigma == 0, 1, sigma)
    alone = self.layer.clone(parent=None, name=None)
    return alone.apply({"params": params}, *args)


def power_iteration(matrix: Array, u: Array, eps: float) -> tuple[Array, Array]:
  """[M, N] and u [M] -> the next u, and the largest singular value.

  The value's gradient takes both vectors for constants. The matrix is read twice: of
  the second product come u and the value.
  """

  def unit(x):
    return x / jnp.maximum(jnp.linalg.norm(x), eps)

  dot = lambda a, b: jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)
  v = unit(dot(u, jax.lax.stop_gradient(matrix)))
  image = dot(matrix, v)
  u = unit(jax.lax.stop_gradient(image))
  return u, dot(u, image)


def spectral(layer: nn.Module, stored: bool = False, eps: float = 1e-6) -> nn.Module:
  """For `norm`: divides every weight by its largest singular value."""
  return Spectral(layer, stored, eps)


def plain(layer: nn.Module) -> nn.Module:
  """For `norm`: leaves a layer as it is (WGAN-GP wants no norm)."""
  return layer
