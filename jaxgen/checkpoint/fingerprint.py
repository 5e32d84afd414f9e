"""What a pytree of arrays is, in a few numbers that survive resharding.

A leaf's sum is an exact integer sum over its 32-bit words, each mixed with its
own index. Integer sums do not depend on the order of addition, so the number
is the same for every mesh and sharding. Multiplying by an odd weight is
one-to-one: a single changed word always changes the sum, and any other damage
goes unnoticed with probability 2^-32 per leaf.
"""

from typing import Any

import jax
import jax.numpy as jnp

LARGE = 2**18  # elements: from here on a leaf is summed on its own
PACKED = {"int2", "uint2", "int4", "uint4", "float4_e2m1fn"}
WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def named_leaves(tree: Any) -> dict[str, Any]:
  """Leaves by path: `params/gen/kernel`, whatever the containers are."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
  if len(named) < len(leaves):
    raise ValueError("two leaves of the state share one path")
  return named


def describe(leaf: jax.Array | jax.ShapeDtypeStruct) -> dict[str, Any]:
  """{"dtype", "shape"} as JSON; shape is that seen by jax."""
  return {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}


def fingerprint(tree: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
  """Leaves by path, and the paths of those that hold NaN or infinity.

  The same jitted programs on every process; five bytes per leaf leave the
  device.

  Args:
    tree: pytree of jax arrays of any dtype of whole bytes, typed keys too.

  Returns:
    ({path: {"dtype", "shape", "sum"}}, non-finite paths), sum in [0, 2^32).

  Raises:
    TypeError: naming the leaf that is no jax array, or of no such dtype.
  """
  leaves = named_leaves(tree)
  for path, leaf in leaves.items():
    if not isinstance(leaf, jax.Array):
      raise TypeError(f"{path} is a {type(leaf).__name__}, not a jax array")
    if str(leaf.dtype) in PACKED:
      raise TypeError(f"{path} is {leaf.dtype}: keep it as int8")
  # Large leaves one by one: those of a shape share a program, and need no more
  # memory than one of them. Small ones at once, for there are many shapes.
  few = {path: x for path, x in leaves.items() if x.size < LARGE}
  parts = {path: _summary({path: x})[path] for path, x in leaves.items() if path not in few}
  parts = jax.device_get(parts | _summary(few))
  sums = {path: describe(leaf) | {"sum": int(parts[path][0])} for path, leaf in leaves.items()}
  return sums, [path for path in leaves if not parts[path][1]]


def _summary(leaves: dict[str, jax.Array]) -> dict[str, tuple]:
  """By path, but programs do not depend on the paths."""
  return dict(zip(leaves, _summaries(list(leaves.values())), strict=True))


@jax.jit
def _summaries(leaves):
  return [(_sum(x), _finite(x)) for x in leaves]


def _finite(x):
  if jnp.issubdtype(x.dtype, jnp.inexact):
    return jnp.isfinite(x).all()
  return jnp.bool_(True)


def _sum(x):
  """Array of any dtype -> [] uint32."""
  u = _words(x)
  # weights are odd, hence invertible modulo 2^32, and differ by position
  index = jnp.zeros(u.shape, jnp.uint32)
  for axis in range(u.ndim):
    index = index * jnp.uint32(u.shape[axis]) + jax.lax.broadcasted_iota(jnp.uint32, u.shape, axis)
  weight = (index + jnp.uint32(0x9E3779B9)) * jnp.uint32(0x85EBCA6B)
  weight = (weight ^ (weight >> 15)) | jnp.uint32(1)
  return jnp.sum((u ^ (u >> 16)) * weight, dtype=jnp.uint32)


def _words(x):
  """Array of any dtype -> uint32 array; a word holds at most 32 bits of x."""
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    x = jax.random.key_data(x)
  if jnp.issubdtype(x.dtype, jnp.complexfloating):
    x = jnp.stack([x.real, x.imag], -1)
  if x.dtype == jnp.bool_:
    x = x.astype(jnp.uint8)
  words = WORDS[x.dtype.itemsize]
  return jax.lax.bitcast_convert_type(x, words).astype(jnp.uint32)
