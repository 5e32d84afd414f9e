"""The kernel of attention for TPUs, in the interpreter, against attention without it."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xla
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.nets import attention, tpu_attention

COLLECTIVES = ("all-gather", "all-to-all", "all-reduce", "collective-permute")

# B, T, S, N, D, C: one block of queries, or two of 32, of other lengths and widths.
SHAPES = [(2, 32, 128, 2, 64, 64), (1, 64, 256, 1, 72, 40)]


def operands(b, t, s, n, d, c, dtype=jnp.bfloat16):
  """q, k, v and the gradient of what comes out."""
  shapes = (b, t, n, d), (b, s, n, d), (b, s, n, c), (b, t, n, c)
  keys = jax.random.split(jax.random.key(0), 4)
  return tuple(
    jax.random.normal(key, shape).astype(dtype) for key, shape in zip(keys, shapes, strict=True)
  )


@functools.partial(jax.jit, static_argnums=0)
def both_ways(attend, q, k, v, g):
  """Means and the three gradients."""
  out, vjp = jax.vjp(attend, q, k, v)
  return (out, *vjp(g.astype(out.dtype)))


def error(x, exact):
  x, exact = (np.asarray(a, np.float64) for a in (x, exact))
  return np.linalg.norm(x - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("shape", SHAPES)
def test_means_and_gradients_are_as_near_to_float32_as_without_it(monkeypatch, shape):
  monkeypatch.setattr(tpu_attention, "LOGITS", 2**13)  # small arrays in several blocks
  args = operands(*shape)
  assert tpu_attention.fits(*args[:3]) and tpu_attention.block(*shape[1:3]) == 32
  exact = both_ways(lambda *a: attention.attend(*a, 0.3), *(x.astype(jnp.float32) for x in args))
  plain = both_ways(lambda *a: attention.attend(*a, 0.3), *args)
  kernel = both_ways(lambda *a: tpu_attention.attend(*a, 0.3, True), *args)
  for ours, other, true in zip(kernel, plain, exact, strict=True):
    assert error(ours, true) < 1.5 * error(other, true) < 0.02


def test_logits_of_any_size_neither_overflow_nor_vanish():
  q, k, v, g = operands(1, 128, 128, 1, 64, 64)
  arrays = both_ways(lambda *a: tpu_attention.attend(*a, 1.0, True), 30 * q, 30 * k, v, g)
  assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in arrays)


@pytest.mark.parametrize(
  "shapes, dtype, fits",
  [
    ([(2, 1024, 6, 64)] * 3, "bfloat16", True),
    ([(2, 256, 9, 64)] * 3, "bfloat16", True),
    ([(2, 16384, 1, 64)] * 3, "bfloat16", True),
    ([(2, 1024, 6, 64)] * 3, "float32", False),
    ([(2, 1024, 1, 512)] * 3, "bfloat16", False),  # heads too wide
    ([(2, 1000, 6, 64)] * 3, "bfloat16", False),  # no whole registers
    ([(2, 32768, 1, 64)] * 3, "bfloat16", False),  # a row of logits is too long
    ([(2, 1024, 6, 64), (2, 77, 6, 64), (2, 77, 6, 64)], "bfloat16", False),
  ],
)
def test_what_it_takes(shapes, dtype, fits):
  args = [jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for shape in shapes]
  assert tpu_attention.fits(*args) == fits


@pytest.mark.parametrize(
  "switch, platform, t, kernels",
  [
    ("pallas", "tpu", 256, 2),
    ("pallas", "cpu", 256, 0),
    ("", "tpu", 256, 0),
    ("pallas", "tpu", 64, 0),
  ],
)
def test_the_switch_takes_it_for_tpus_alone(monkeypatch, switch, platform, t, kernels):
  monkeypatch.setenv(attention.SWITCH, switch)
  args = [jax.ShapeDtypeStruct((2, t, 3, 64), jnp.bfloat16)] * 3
  loss = lambda *args: attention.attend(*args).astype(jnp.float32).sum()
  traced = jax.jit(jax.value_and_grad(loss, (0, 1, 2))).trace(*args)
  assert traced.lower(lowering_platforms=(platform,)).as_text().count("@tpu_custom_call") == kernels


def test_examples_on_several_chips_stay_there():
  """In a process of its own, with two devices."""
  subprocess.run(
    [sys.executable, __file__],
    check=True,
    timeout=300,
    env=os.environ | {"XLA_FLAGS": xla.devices(2)},
  )


def two_chips():
  """Each computes what is its own: the same numbers, and no array is sent."""
  mesh = Mesh(jax.devices(), ("data",))
  assert mesh.size == 2
  place = lambda x: jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
  args = operands(2, 128, 128, 1, 64, 64)
  attend = lambda *a: tpu_attention.attend(*a, 0.3, True)
  run = jax.jit(lambda *a: both_ways(attend, *a))
  split = tuple(map(place, args))
  program = run.lower(*split).compile()
  assert not any(f"{kind}(" in program.as_text() for kind in COLLECTIVES)
  for ours, other in zip(program(*split), run(*args), strict=True):
    np.testing.assert_array_equal(np.asarray(ours, np.float32), np.asarray(other, np.float32))


if __name__ == "__main__":
  two_chips()
