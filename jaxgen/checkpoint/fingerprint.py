"""What a pytree of arrays is, in a few numbers that survive resharding.

A leaf's sum is an exact integer sum over its 32-bit words, each mixed with its
own index. Integer sums do not depend on the order of addition, so the number
is the same for every mesh and sharding. Multiplying by an odd weight is
one-to-one: a single changed word always changes the sum, and any other damage
goes unnoticed with probability 2^-32 per leaf.

Where a leaf lies in the host's memory, numpy sums it: a net has dozens of
shapes, and a program for each takes longer to compile than the sums take (of a
small U-Net's 448 leaves 3 to 6 CPU seconds against 0.05).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CHUNK = 2**16  # words that numpy sums at once: they stay in the cache
LARGE = 2**18  # elements: from here on a leaf has a program of its own
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

  The same on every process; five bytes per leaf leave an accelerator.

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
  here = {path: _host_summary(x) for path, x in leaves.items() if _on_host(x)}
  away = {path: x for path, x in leaves.items() if path not in here}
  # Large leaves one by one: those of a shape share a program, and need no more
  # memory than one of them. Small ones at once, for there are many shapes.
  few = {path: x for path, x in away.items() if x.size < LARGE}
  parts = {path: _device_summary({path: x})[path] for path, x in away.items() if path not in few}
  parts = here | jax.device_get(parts | _device_summary(few))
  sums = {path: describe(leaf) | {"sum": int(parts[path][0])} for path, leaf in leaves.items()}
  return sums, [path for path in leaves if not parts[path][1]]


def _on_host(leaf: jax.Array) -> bool:
  """Whether numpy reaches all of it."""
  return leaf.is_fully_addressable and all(d.platform == "cpu" for d in leaf.devices())


def _device_summary(leaves: dict[str, jax.Array]) -> dict[str, tuple]:
  """Sums, and whether all is finite, by path; programs do not depend on the paths."""
  return dict(zip(leaves, _summaries(list(leaves.values())), strict=True))


@jax.jit
def _summaries(leaves):
  return [(_sum(x), _finite(x)) for x in leaves]


def _host_summary(leaf: jax.Array) -> tuple[int, bool]:
  """`_device_summary` without a program."""
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  values = np.ascontiguousarray(leaf).reshape(-1)  # no copy of what one device holds
  words = values.view(f"u{min(values.dtype.itemsize, 4)}")
  floats, each = jnp.issubdtype(values.dtype, jnp.inexact), words.size // max(values.size, 1)
  total, finite = 0, True
  for start in range(0, words.size, CHUNK):
    u = words[start : start + CHUNK].astype(np.uint32)
    weight = np.arange(start, start + u.size, dtype=np.uint64).astype(np.uint32)
    total += int(np.sum((u ^ (u >> 16)) * _weight(weight), dtype=np.uint64))
    if floats:
      finite &= bool(np.isfinite(values[start // each : (start + CHUNK) // each]).all())
  return total % 2**32, finite


def _weight(index):
  """uint32 -> uint32: odd, hence invertible modulo 2^32, and differs by position."""
  weight = (index + np.uint32(0x9E3779B9)) * np.uint32(0x85EBCA6B)
  return (weight ^ (weight >> np.uint32(15))) | np.uint32(1)


def _finite(x):
  if jnp.issubdtype(x.dtype, jnp.inexact):
    return jnp.isfinite(x).all()
  return jnp.bool_(True)


def _sum(x):
  """Array of any dtype -> [] uint32."""
  u = _words(x)
  index = jnp.zeros(u.shape, jnp.uint32)
  for axis in range(u.ndim):
    index = index * jnp.uint32(u.shape[axis]) + jax.lax.broadcasted_iota(jnp.uint32, u.shape, axis)
  return jnp.sum((u ^ (u >> 16)) * _weight(index), dtype=jnp.uint32)


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
