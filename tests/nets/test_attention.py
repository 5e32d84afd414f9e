"""Attention against jax's own."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from jaxgen.nets import attention
from jaxgen.nets.attention import attend


def operands(dtype=jnp.float32, offset=0.0, shape=(2, 96, 3, 16), s=40):
  b, t, n, d = shape
  key = jax.random.split(jax.random.key(0), 3)
  make = lambda k, s: (offset + 2 * jax.random.normal(k, s)).astype(dtype)
  return (make(key[0], (b, t, n, d)), make(key[1], (b, s, n, d)), make(key[2], (b, s, n, d)))


def gradient(f, args):
  g = jax.random.normal(jax.random.key(9), args[0].shape)
  g = g.astype(jnp.bfloat16).astype(jnp.float32)
  return jax.jit(jax.grad(lambda a: jnp.sum(f(*a).astype(jnp.float32) * g)))(args)


def error(x, y):
  x, y = (np.asarray(a, np.float64) for a in (x, y))
  return np.linalg.norm(x - y) / np.linalg.norm(y)


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_means_and_gradients(offset):
  args = operands(offset=offset)
  np.testing.assert_allclose(
    attend(*args), jax.nn.dot_product_attention(*args), rtol=1e-4, atol=1e-4
  )
  for ours, theirs in zip(
    gradient(attend, args), gradient(jax.nn.dot_product_attention, args), strict=True
  ):
    assert error(ours, theirs) < 1e-4


def test_scale():
  q, k, v = operands()
  np.testing.assert_allclose(
    attend(q, k, v, scale=0.7),
    jax.nn.dot_product_attention(q, k, v, scale=0.7),
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_half_precision_loses_no_more_than_jaxs_own(offset):
  """Against float32 of the same rounded operands.

  With an offset, what the gradient of a logit is the difference of cancels.
  """
  args = operands(jnp.bfloat16, offset, (2, 256, 3, 64), 256)
  exact = gradient(jax.nn.dot_product_attention, tuple(x.astype(jnp.float32) for x in args))
  ours = gradient(attend, args)
  theirs = gradient(jax.nn.dot_product_attention, args)
  for a, b, c in zip(ours, theirs, exact, strict=True):
    assert error(a, c) < 1.5 * error(b, c) < 0.01


def test_both_modes_and_both_orders_of_derivatives():
  args = operands(shape=(1, 6, 2, 4), s=5)
  jax.test_util.check_grads(attend, args, order=2, modes=("fwd", "rev"), atol=0.02, rtol=0.02)


CUDNN = "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version"


def lowered(monkeypatch, platform, *shapes, dtype=jnp.bfloat16):
  """Text of `attend` and its gradient for a platform, as if cuDNN were here."""
  monkeypatch.setenv(attention.SWITCH, "cudnn")
  monkeypatch.setattr(attention, "_has_cudnn", lambda: True)
  monkeypatch.setattr(CUDNN, lambda: 91100)
  args = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
  loss = lambda *args: attend(*args).astype(jnp.float32).sum()
  traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*args)
  return traced.lower(lowering_platforms=(platform,)).as_text()


FITS = [(2, 256, 3, 64)] * 3


@pytest.mark.parametrize(
  "platform, shapes, dtype, fused",
  [
    ("cuda", FITS, jnp.bfloat16, True),
    ("cpu", FITS, jnp.bfloat16, False),
    ("tpu", FITS, jnp.bfloat16, False),
    ("cuda", FITS, jnp.float32, False),
    ("cuda", [(2, 64, 3, 64)] * 3, jnp.bfloat16, False),  # too short
    ("cuda", [(2, 256, 1, 512)] * 3, jnp.bfloat16, False),  # heads too wide
    ("cuda", [(2, 256, 1, 32)] * 2 + [(2, 256, 1, 64)], jnp.bfloat16, False),
  ],
)
def test_cudnn_is_taken_where_it_fits_and_by_gpus_alone(
  monkeypatch, platform, shapes, dtype, fused
):
  text = lowered(monkeypatch, platform, *shapes, dtype=dtype)
  assert ("__cudnn$fmhaSoftmaxBackward" in text) == fused


def test_cudnn_is_off_by_default(monkeypatch):
  monkeypatch.delenv(attention.SWITCH, raising=False)
  monkeypatch.setattr(attention, "_has_cudnn", lambda: True)
  args = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in FITS]
  assert "cudnn" not in jax.jit(attend).trace(*args).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("scale", [None, 0.7])
def test_what_cudnn_is_asked_for_is_the_same_attention(monkeypatch, scale):
  """By XLA's implementation of the same function, which a CPU has."""
  own = jax.nn.dot_product_attention
  xla = lambda *args, implementation, **kw: own(*args, implementation="xla", **kw)
  monkeypatch.setattr(jax.nn, "dot_product_attention", xla)
  q, k, v = operands(shape=(2, 256, 3, 64), s=300)
  scale_of = scale or 64**-0.5
  np.testing.assert_allclose(
    attention._cudnn(q, k, v, scale_of), attend(q, k, v, scale), rtol=1e-4, atol=1e-4
  )
