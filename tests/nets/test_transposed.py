"""Transposed convolutions against XLA's own, in float64, and their programs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets.transposed import ConvTranspose, strided, transposed

# Axes, stride, taps, pads, groups.
CASES = [
  (1, 2, 4, (2, 2), 1),
  (2, 1, 3, (1, 1), 1),
  (2, 2, 4, (2, 2), 1),
  (2, 2, 3, (1, 2), 1),
  (2, 4, 5, (3, 0), 1),
  (2, 4, 3, (2, 3), 1),  # pixels that no tap reaches
  (2, 2, 5, (-1, 3), 1),
  (2, 2, 4, (2, 2), 2),
  (1, 4, 7, (5, 1), 2),
]


def own(x, w, strides, pads, groups=1):
  axes = "HW"[: len(strides)]
  return jax.lax.conv_general_dilated(
    x,
    w,
    (1,) * len(strides),
    pads,
    lhs_dilation=strides,
    dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    feature_group_count=groups,
  )


def both(axes, stride, taps, pad, groups):
  """x, w, and the two convolutions as functions of them."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *(3, 4)[:axes], 2 * groups))
  w = rng.normal(size=(*(taps,) * axes, 2, 3 * groups))
  args = (stride,) * axes, (pad,) * axes, groups
  return x, w, *(lambda x, w, f=f: f(x, w, *args) for f in (transposed, own))


def slope(f):
  """A number that depends on f's first derivatives, by both operands: on those, too."""
  loss = lambda x, w: jnp.sum(jnp.tanh(f(x, w)))
  return lambda x, w: sum(jnp.sum(jnp.sin(g)) for g in jax.grad(loss, (0, 1))(x, w))


def agree(ours, theirs, *operands):
  pairs = zip(*(jax.tree.leaves(jax.jit(f)(*operands)) for f in (ours, theirs)), strict=True)
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


@pytest.mark.parametrize("case", CASES)
def test_numbers_and_derivatives_of_two_orders(case):
  with jax.enable_x64(True):
    x, w, ours, theirs = both(*case)
    agree(
      *(lambda x, w, f=f: (f(x, w), jax.grad(slope(f), (0, 1))(x, w)) for f in (ours, theirs)), x, w
    )


def test_derivatives_of_the_third_order():
  with jax.enable_x64(True):
    x, w, ours, theirs = both(1, 2, 3, (2, 1), 1)
    agree(*(jax.grad(slope(slope(f)), (0, 1)) for f in (ours, theirs)), x, w)


def test_forward_mode_and_many_at_once():
  with jax.enable_x64(True):
    x, w, ours, theirs = both(2, 2, 4, (2, 2), 1)
    agree(*(lambda x, w, f=f: jax.jvp(f, (x, w), (x + 1, w + 1)) for f in (ours, theirs)), x, w)
    many = [np.stack([a, a - 1]) for a in (x, w)]
    agree(*(jax.vmap(jax.grad(slope(f), (0, 1)), (0, None)) for f in (ours, theirs)), many[0], w)
    agree(*(jax.vmap(f) for f in (ours, theirs)), *many)
    np.testing.assert_allclose(ours(x, w), theirs(x, w))  # not compiled


# Pixels, stride, taps, pads.
STRIDED = [
  (9, 2, 3, (0, 0)),
  (8, 2, 3, (0, 0)),  # the last row is read by no tap
  (8, 2, 3, (1, 1)),
  (8, 2, 4, (2, 0)),
  (10, 3, 5, (1, 4)),
  (7, 4, 3, (0, 1)),  # pixels between the taps
]


@pytest.mark.parametrize("pixels, stride, taps, pad", STRIDED)
def test_convolutions_with_a_stride_and_their_penalties(pixels, stride, taps, pad):
  rng = np.random.default_rng(0)
  x, w = rng.normal(size=(2, pixels, pixels + 1, 2)), rng.normal(size=(taps, taps, 2, 3))
  dims = ("NHWC", "HWIO", "NHWC")
  theirs = lambda x, w: jax.lax.conv_general_dilated(
    x, w, (stride, stride), [pad] * 2, dimension_numbers=dims
  )
  ours = lambda x, w: strided(x, w, stride, [pad] * 2)
  with jax.enable_x64(True):
    agree(
      *(lambda x, w, f=f: (f(x, w), jax.grad(slope(f), (0, 1))(x, w)) for f in (ours, theirs)), x, w
    )


def test_no_penalty_of_a_stride_dilates_for_a_kernel_on_cpus():
  """R1's gradient by w, of which autodiff spreads what comes in for a kernel."""
  x, w = np.ones((2, 9, 9, 4), np.float32), np.ones((3, 3, 4, 6), np.float32)
  dims = ("NHWC", "HWIO", "NHWC")
  plain = lambda x, w: jax.lax.conv_general_dilated(
    x, w, (2, 2), [(0, 0)] * 2, dimension_numbers=dims
  )
  steep = lambda f: lambda x, w: jax.grad(lambda x: jnp.sum(jnp.tanh(f(x, w))))(x)
  spread = lambda f: sum("lhs_dilate = [2, 2]" in line for line in gradients(f, x, w, "cpu"))
  ours = lambda x, w: strided(x, w, 2, [(0, 0)] * 2)
  assert spread(steep(ours)) < spread(steep(plain))


def gradients(f, x, w, platform):
  """The text of a program of first derivatives, lowered for a platform."""
  both = jax.jit(jax.grad(lambda x, w: jnp.sum(jnp.tanh(f(x, w))), (0, 1)))
  text = both.trace(x, w).lower(lowering_platforms=(platform,)).as_text()
  return [line.split(" = ", 1)[1] for line in text.splitlines() if "convolution" in line]


@pytest.mark.parametrize("platform", ("tpu", "cuda"))
def test_other_platforms_get_what_autodiff_writes(platform):
  x, w, ours, theirs = both(2, 2, 4, (2, 2), 1)
  dims = lambda f: [
    line.split("dim_numbers")[1].split(" : ")[0] for line in gradients(f, x, w, platform)
  ]
  assert dims(ours) == dims(theirs) and len(dims(ours)) == 3


def test_no_gradient_of_a_kernel_dilates_on_cpus():
  """Dilation of x, where it is not spread for a kernel of [K, K, I, O]."""
  x, w, ours, theirs = both(2, 2, 4, (2, 2), 1)
  spread = lambda f: sum("lhs_dilate = [2, 2]" in line for line in gradients(f, x, w, "cpu"))
  assert spread(theirs) == 2 and spread(ours) == 1


@pytest.mark.parametrize("flip", (False, True))
def test_the_layer_is_flaxs(flip):
  kw = dict(padding=[(2, 2), (1, 2)], transpose_kernel=flip)
  x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
  ours, theirs = (f(6, (4, 3), (2, 2), **kw) for f in (ConvTranspose, nn.ConvTranspose))
  variables = theirs.init(jax.random.key(1), x)
  assert jax.tree.all(jax.tree.map(jnp.array_equal, ours.init(jax.random.key(1), x), variables))
  variables["params"]["bias"] = jnp.arange(6.0)
  np.testing.assert_array_equal(ours.apply(variables, x), theirs.apply(variables, x))
