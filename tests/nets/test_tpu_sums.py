"""Sums in a TPU's matrix unit: their numbers, and who gets them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets.tpu_sums import ROWS, suits, sum_by_product


@pytest.mark.parametrize(
  "shape, axes",
  [((3, 5, 7, 6), (0, 1, 2)), ((3, 40, 2, 6), (0, 1)), ((4, 9, 6), (1,)), ((50, 6), (0,))],
)
def test_numbers_are_those_of_a_sum_in_float64(shape, axes):
  x = jax.random.normal(jax.random.key(0), shape).astype(jnp.bfloat16)
  exact = np.asarray(x, np.float64).sum(axes)
  ours = np.asarray(jax.jit(sum_by_product, static_argnums=1)(x, axes), np.float64)
  assert ours.shape == exact.shape
  # Rounded once, at the end: half a unit in the last of 8 bits.
  np.testing.assert_allclose(ours, exact, rtol=2**-8, atol=1e-5)


def lowered(f, platform, *args):
  return jax.jit(f).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def bias_gradient(dtype):
  """The gradient of a biased layer, as Flax and autodiff write it, and its operands."""
  layer = nn.Dense(16, dtype=dtype)
  x = jax.ShapeDtypeStruct((4, 8, 8, 6), dtype)
  params = jax.eval_shape(layer.init, jax.random.key(0), x)
  return jax.grad(lambda p, x: layer.apply(p, x).astype(jnp.float32).sum()), params, x


@pytest.mark.parametrize(
  "platform, dtype, products",
  [("tpu", "bfloat16", 1), ("tpu", "float32", 0), ("cpu", "bfloat16", 0), ("cuda", "bfloat16", 0)],
)
def test_tpus_alone_multiply_by_ones(platform, dtype, products):
  text = lowered(bias_gradient(dtype)[0], platform, *bias_gradient(dtype)[1:])
  assert sum(f"tensor<{ROWS}x4x8x8x" in x and "dot_general" in x for x in text.split("\n")) == (
    products
  )


def test_other_sums_for_tpus_stay_sums():
  """Also those of whole numbers and of no axes at all."""
  for x, axes in ((jnp.arange(6), (0,)), (jnp.ones((300, 4), jnp.bfloat16), (0, 1))):
    text = lowered(lambda x, axes=axes: jax.lax.reduce_sum(x, axes), "tpu", x)
    assert "stablehlo.reduce" in text and "dot_general" not in text


@pytest.mark.parametrize(
  "shape, axes, dtype, expected",
  [
    ((4, 64, 6), (0, 1), "bfloat16", True),
    ((4, 64, 6), (0, 1), "float32", False),  # would be rounded
    ((4, 64, 6), (1,), "bfloat16", False),  # of each example: fused with what makes it
    ((4, 64, 6), (0, 2), "bfloat16", False),  # channels are neighbours in memory
    ((4, 4, 6), (0, 1), "bfloat16", False),  # few
  ],
)
def test_which_sums_are_products(shape, axes, dtype, expected):
  assert suits(jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)), axes) == expected
