"""Strided convolutions by blocks against the definition, and XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets.strided import strided_conv, transposed_conv

CASES = [(25, 4), (25, 2), (7, 4), (4, 4), (8, 3), (16, 8), (5, 1)]


def arrays(taps, stride):
  rng = np.random.default_rng(0)
  return [np.float32(rng.normal(size=s)) for s in ((2, 12 * stride, 3), (taps, 3, 5), (2, 12, 5))]


def own(x, w, stride):
  return jax.lax.conv_general_dilated(
    x, w, (stride,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), precision="highest"
  )


@pytest.mark.parametrize("taps, stride", CASES)
def test_against_the_definition(taps, stride):
  """y_j = sum_k w_k x_{s j + k - left}, and its transpose."""
  x, w, y = arrays(taps, stride)
  left = (taps - stride) // 2
  down = np.zeros((2, 12, 5))
  up = np.zeros((2, 12 * stride, 3))
  for j in range(12):
    for k in range(taps):
      if 0 <= (i := stride * j + k - left) < 12 * stride:
        down[:, j] += x[:, i] @ np.float64(w[k])
        up[:, i] += y[:, j] @ np.float64(w[k]).T
  np.testing.assert_allclose(strided_conv(x, w, stride), down, atol=2e-6 * np.abs(down).max())
  transposed = transposed_conv(y, w.swapaxes(1, 2), stride)
  np.testing.assert_allclose(transposed, up, atol=2e-6 * np.abs(up).max())


def test_gradients_are_those_of_xla():
  """Of a penalty on the slope, too: second derivatives."""
  x, w, y = arrays(25, 4)

  def penalty(conv, x, w):
    slope = jax.grad(lambda x: jnp.sum(jnp.tanh(conv(x, w, 4)) * y))(x)
    return jnp.mean((jnp.sum(slope**2, (1, 2)) - 1) ** 2)

  expected = jax.grad(penalty, (1, 2))(own, x, w)
  for a, b in zip(jax.grad(penalty, (1, 2))(strided_conv, x, w), expected, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_a_length_that_is_no_multiple():
  x, w, _ = arrays(25, 4)
  with pytest.raises(ValueError, match="46 samples: want a multiple of the stride, 4"):
    strided_conv(x[:, :-2], w, 4)
