"""The sums of leaves: numpy's and XLA's are the same, and see any change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.checkpoint import fingerprint as fp

DTYPES = (
  "bool int8 uint16 int32 float32 float16 bfloat16 float8_e4m3fn complex64 float64 int64 complex128"
).split()


def on_device(leaf):
  """As an accelerator sums it."""
  return jax.device_get(fp._device_summary({"w": leaf}))["w"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7, 3), (2, fp.CHUNK // 2 + 1)])
def test_numpy_sums_as_xla_does(dtype, shape):
  with jax.enable_x64(True):
    noise = np.random.default_rng(0).standard_normal(shape) * 50
    leaf = jnp.asarray(noise).astype(dtype)
    total, finite = on_device(leaf)
    assert fp._host_summary(leaf) == (int(total), bool(finite))


def test_keys_are_summed_by_their_words():
  keys = jax.random.split(jax.random.key(3), 5)
  total, finite = on_device(keys)
  assert fp._host_summary(keys) == (int(total), bool(finite))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, fp.CHUNK, 2 * fp.CHUNK + 4])
def test_what_is_not_finite_is_seen_in_any_chunk(value, place):
  x = np.zeros(2 * fp.CHUNK + 5, np.float32)
  x[place] = value
  assert fp.fingerprint({"w": jnp.asarray(x)})[1] == ["w"]


def test_leaves_that_numpy_does_not_reach_have_the_same_sums(monkeypatch):
  noise = jax.random.normal(jax.random.key(0), (fp.LARGE + 3,))
  tree = {"large": noise, "small": noise[:7], "bad": noise[:5] / 0, "ids": jnp.arange(9)}
  before = fp.fingerprint(tree)
  monkeypatch.setattr(fp, "_on_host", lambda leaf: False)
  assert fp.fingerprint(tree) == before and before[1] == ["bad"]


def test_one_bit_changes_the_sum():
  x = np.random.default_rng(1).standard_normal(3 * fp.CHUNK).astype(np.float32)
  before = fp.fingerprint({"w": jnp.asarray(x)})[0]
  x.view(np.uint32)[fp.CHUNK + 17] ^= 1 << 9
  assert fp.fingerprint({"w": jnp.asarray(x)})[0] != before
