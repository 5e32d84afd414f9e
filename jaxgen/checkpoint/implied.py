"""Leaves that a checkpoint implies: zeros, and copies of other leaves, that no file holds.

Before the first step an optimiser's moments are zeros and averages are the parameters.
Meta says so of each such leaf: beside dtype, shape and sum stands "implied", which is
"zeros" or the path of the leaf that it equals. Readers make the same bits of that.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.extend import core

from jaxgen.checkpoint.fingerprint import describe, named_leaves

ZEROS = "zeros"


@dataclasses.dataclass(frozen=True)
class Implied:
  """In the place of an array in a state that is saved.

  Attributes:
    shape: Of the array.
    dtype: Of the array.
    like: ZEROS, or the path of the leaf whose values it has.
  """

  shape: tuple[int, ...]
  dtype: Any
  like: str = ZEROS


def results(function: Callable[[Any], Any], tree: Any) -> Any:
  """function(tree), where what it fills with zeros or copies is only named.

  Args:
    function: Traceable. What it returns as it is keeps its array.
    tree: Pytree of arrays.

  Returns:
    The function's result. Leaves that are zeros, or copies of an array that is
    elsewhere in the result, are `Implied`: these arrays are never made.
  """
  closed, shapes = jax.make_jaxpr(function, return_shape=True)(tree)
  outputs = [v if isinstance(v, core.Var) else None for v in closed.jaxpr.outvars]
  arrays = dict(zip(closed.jaxpr.invars, jax.tree.leaves(tree), strict=True))
  makers = {variable: eqn for eqn in closed.jaxpr.eqns for variable in eqn.outvars}
  own = {v: path for v, path in zip(outputs, named_leaves(shapes), strict=True) if v in arrays}
  leaves = [arrays[v] if v in arrays else _implied(v, makers, own) for v in outputs]
  rest = [i for i, leaf in enumerate(leaves) if leaf is None]
  compute = jax.jit(lambda tree: [jax.tree.leaves(function(tree))[i] for i in rest])
  for i, leaf in zip(rest, compute(tree) if rest else (), strict=True):
    leaves[i] = leaf
  return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _implied(variable, makers, own):
  """What a variable is known to be; None: it has to be computed."""
  eqn = makers.get(variable)
  if eqn is None:
    return None
  (source, *_), kind = eqn.invars, eqn.primitive.name
  shape, dtype = variable.aval.shape, variable.aval.dtype
  if kind == "broadcast_in_dim" and isinstance(source, core.Literal):
    return None if any(np.asarray(source.val).tobytes()) else Implied(shape, dtype)
  if kind in ("copy", "copy_p") and isinstance(source, core.Var) and source in own:
    return Implied(shape, dtype, own[source])
  return None


def split(state: Any) -> tuple[Any, dict[str, Implied]]:
  """What is to be written of a state, and by path what is implied."""
  leaves = named_leaves(state)
  implied = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, Implied)}
  if not implied:
    return state, {}
  return _nested({path: leaf for path, leaf in leaves.items() if path not in implied}), implied


def summaries(
  implied: Mapping[str, Implied], leaves: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
  """What meta says of implied leaves, where `leaves` is what it says of all others.

  Sums are those of the arrays, as if these were there: of zeros it is 0.

  Raises:
    ValueError: One is to equal a leaf that is not written, or is of another kind.
  """
  rows = {}
  for path, leaf in implied.items():
    row = {"sum": 0} if leaf.like == ZEROS else dict(leaves.get(leaf.like, {}))
    if leaf.like != ZEROS and describe(leaf) | {"sum": row.get("sum")} != row:
      raise ValueError(f"{path} cannot be read from {leaf.like}, which is another kind of leaf")
    rows[path] = describe(leaf) | row | {"implied": leaf.like}
  return rows


def read(
  abstract: Any, leaves: Mapping[str, dict[str, Any]], read_stored: Callable[[Any], Any]
) -> Any:
  """The leaves of `abstract`: those of files, and those that meta implies.

  Args:
    abstract: Pytree of jax.ShapeDtypeStruct with shardings.
    leaves: What meta says of all leaves, by path.
    read_stored: Reads a pytree of them from files.

  Raises:
    ValueError: What meta implies cannot be.
    KeyError: Likewise.
  """
  wanted = named_leaves(abstract)
  like = {path: leaves[path]["implied"] for path in wanted if "implied" in leaves[path]}
  if not like:
    return read_stored(abstract)
  stored = {path: leaf for path, leaf in wanted.items() if path not in like}
  for path, source in like.items():
    if source != ZEROS:
      if describe(wanted[path]) | {"sum": leaves[path]["sum"]} != leaves[source]:
        raise ValueError(f"{path} is not like {source}")
      stored.setdefault(source, wanted[path])
  # Orbax reads no trees without leaves.
  arrays = named_leaves(read_stored(_nested(stored))) if stored else {}
  lent = set(wanted)  # arrays that another leaf of the result is

  def leaf(path):
    if path not in like:
      return arrays[path]
    if like[path] == ZEROS:
      return _zeros(wanted[path])
    array = jax.device_put(arrays[like[path]], wanted[path].sharding)
    # Each leaf has memory of its own: states are donated.
    array = jnp.copy(array) if like[path] in lent else array
    lent.add(like[path])
    return array

  return jax.tree.unflatten(jax.tree.structure(abstract), [leaf(path) for path in wanted])


def _zeros(leaf):
  part = lambda index: np.zeros(leaf.shape, leaf.dtype)[index]
  return jax.make_array_from_callback(leaf.shape, leaf.sharding, part)


def _nested(leaves):
  return traverse_util.unflatten_dict(leaves, sep="/")
