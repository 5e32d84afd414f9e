"""Blocks whose activations are made again: less is kept, nothing changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets import spatial_transformer, unet

QUICK = {"xla_backend_optimization_level": 0}


def gradient(remat, mults=(1,), **kw):
  """-> gradient of a loss by the weights, and these and its inputs."""
  net = unet.UNet(
    width=8, mults=mults, blocks=1, attend=(4,), head=4, updown=True, dropout=0.5, remat=remat, **kw
  )
  rng = np.random.default_rng(0)
  x, c = rng.normal(size=(2, 4, 4, 1)).astype(np.float32), jnp.ones(2)
  key = jax.random.split(jax.random.key(0), 2)
  shapes = jax.eval_shape(net.init, key[0], x, c)["params"]
  weights = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32) / 4, shapes)

  def loss(weights, x, c, key):
    return jnp.mean(net.apply({"params": weights}, x, c, key=key) ** 2)

  return jax.grad(loss), (weights, x, c, key)


def test_gradients_are_the_same():
  gradients = []
  for remat in ((), (4,)):
    grad, args = gradient(remat)
    gradients.append(jax.jit(grad).lower(*args).compile(QUICK)(*args))
  assert jax.tree.structure(gradients[0]) == jax.tree.structure(gradients[1])
  for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  assert max(np.abs(x).max() for x in jax.tree.leaves(gradients[0])) > 1e-3


def count_blocks(remat, **kw):
  grad, args = gradient(remat, **kw)
  eqns = jax.make_jaxpr(grad)(*args).jaxpr.eqns
  return sum("remat" in e.primitive.name or e.primitive.name == "checkpoint" for e in eqns)


def test_blocks_of_some_heights_are_made_again():
  counts = [count_blocks(remat, mults=(1, 1)) for remat in ((), (4,), (2,), (4, 2))]
  # At 4, four residual blocks, one of which halves, and three attentions; at 2,
  # six, one of which doubles, and the middle's attention.
  assert counts[0] == 0 and counts[1] >= 7 and counts[2] >= 7
  assert counts[3] == counts[1] + counts[2]


def test_transformers_are_made_again():
  """Of a single height, five residual blocks and four of them."""
  assert count_blocks((4,), transformer=spatial_transformer.transformer) >= 9


def test_heights_that_there_are_not():
  with pytest.raises(ValueError, match="heights of 4"):
    gradient((8, 4))
