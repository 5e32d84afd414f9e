"""The sums of leaves: numpy's and XLA's are the same, and see any change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.checkpoint import fingerprint as fp

DTYPES = (
  "bool int8 uint16 int32 float32 float16 bfloat16 float8_e4m3fn complex64 float64 int64 complex128"
).split()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7, 3), (2, fp.CHUNK // 2 + 1)])
def test_numpy_sums_as_xla_does(dtype, shape):
  with jax.enable_x64(True):
    noise = np.random.default_rng(0).standard_normal(shape) * 50
    leaf = jnp.asarray(noise).astype(dtype)
    total, finite = jax.device_get(fp._device_summary(leaf))
    assert fp._host_summary(leaf) == (int(total), bool(finite))


def test_keys_are_summed_by_their_words():
  keys = jax.random.split(jax.random.key(3), 5)
  total, finite = jax.device_get(fp._device_summary(keys))
  assert fp._host_summary(keys) == (int(total), bool(finite))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, fp.CHUNK, 2 * fp.CHUNK + 4])
def test_what_is_not_finite_is_seen_in_any_chunk(value, place):
  x = np.zeros(2 * fp.CHUNK + 5, np.float32)
  x[place] = value
  assert fp.fingerprint({"w": jnp.asarray(x)})[1] == ["w"]


def test_one_bit_changes_the_sum():
  x = np.random.default_rng(1).standard_normal(3 * fp.CHUNK).astype(np.float32)
  before = fp.fingerprint({"w": jnp.asarray(x)})[0]
  x.view(np.uint32)[fp.CHUNK + 17] ^= 1 << 9
  assert fp.fingerprint({"w": jnp.asarray(x)})[0] != before
