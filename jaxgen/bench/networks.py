"""Which networks a program evaluates, how often, and what they cost alone.

Any model will do: linen is asked, not the model. Every network is replaced by
a stand-in that returns zeros and is counted when it runs: inside of loops and
branches too, and without the cost of the networks themselves.
"""
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import sharding
from jaxgen.bench import device


class Call(NamedTuple):
  """A network as a program evaluates it."""
  module: nn.Module
  method: str
  variables: Any  # shapes
  args: tuple[tuple, dict[str, Any]]  # arrays as shapes, the rest as it is

  def __call__(self, variables: Any, arrays: list[jax.Array]) -> Any:
    """The evaluation itself, on arrays in the place of shapes."""
    leaves, tree = jax.tree.flatten(self.args)
    arrays = iter(arrays)
    leaves = [next(arrays) if _is_array(x) else x for x in leaves]
    args, named = jax.tree.unflatten(tree, leaves)
    return self.module.apply(variables, *args, method=self.method, **named)

  @property
  def arrays(self) -> list[jax.ShapeDtypeStruct]:
    """The shapes among the arguments."""
    return [x for x in jax.tree.leaves(self.args) if _is_array(x)]

  @property
  def flops(self) -> float:
    """Operations of one evaluation."""
    return device.flops(jax.jit(self.__call__), self.variables, self.arrays)


def evaluations(fn: Callable, *args: Any) -> list[tuple[Call, int]]:
  """The networks that fn(*args) evaluates, and how often each, when run.

  A gradient through a network counts as the evaluation it goes through.
  """
  calls: dict[str, Call] = {}
  counts: Counter[str] = Counter()
  inside = []

  def stand_in(method, args, named, context):
    if inside or context.module.path or context.method_name == "setup":
      return method(*args, **named)
    inside.append(True)
    try:
      module, variables = context.module.unbind()
      call = Call(module, context.method_name, *jax.tree.map(
          _shape, (dict(variables), (args, named))))
      out = jax.eval_shape(call, call.variables, call.arrays)
    finally:
      inside.pop()
    name = repr(call)
    calls[name] = call
    jax.debug.callback(lambda: counts.update([name]))
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), out)

  def fresh(*args):  # jax remembers functions: not one traced without us
    return fn(*args)

  with nn.intercept_methods(stand_in):
    jax.block_until_ready(jax.jit(fresh)(*args))
  jax.effects_barrier()
  return [(calls[name], counts[name]) for name in calls if counts[name]]


def alone(call: Call, times: int, batch: int) -> Callable[[], Any]:
  """Returns run(): the network `times` in a row on the device, nothing else.

  Weights and inputs are drawn at random; what has `batch` rows is cut over
  the devices.
  """
  def run(variables, arrays, n):
    def again(i, _):
      # Inputs change a little: else one evaluation would do for all.
      moved = [x + (1e-6 * i).astype(x.dtype)
               if jnp.issubdtype(x.dtype, jnp.floating) else x for x in arrays]
      return call(variables, moved)
    out = jax.eval_shape(call, variables, arrays)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), out)
    return jax.lax.fori_loop(0, n, again, zeros)

  mesh = sharding.make_mesh()
  def place(x):
    rows = x.shape and x.shape[0] == batch
    return jax.device_put(
        x, (sharding.batched if rows else sharding.replicated)(mesh))
  variables = jax.device_put(
      _drawn(call.variables), sharding.replicated(mesh))
  arrays = [place(x) for x in _drawn(call.arrays)]
  program = jax.jit(run).lower(variables, arrays, times).compile()
  return lambda: program(variables, arrays, times)


def _drawn(shapes: Any) -> Any:
  """Small normal numbers, on the host; keys and integers are zeros."""
  rng = np.random.default_rng(0)
  def draw(s):
    if jnp.issubdtype(s.dtype, jax.dtypes.prng_key):
      return jax.random.split(jax.random.key(0), math.prod(s.shape)
                              ).reshape(s.shape)
    if jnp.issubdtype(s.dtype, jnp.floating):
      return (rng.standard_normal(s.shape, np.float32) / 16).astype(s.dtype)
    return np.zeros(s.shape, s.dtype)
  return jax.tree.map(draw, shapes)


def _is_array(x: Any) -> bool:
  return hasattr(x, "shape") and hasattr(x, "dtype")


def _shape(x: Any) -> Any:
  return jax.ShapeDtypeStruct(x.shape, x.dtype) if _is_array(x) else x
