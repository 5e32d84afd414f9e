"""Attention as a kernel for TPUs: no weight leaves the chip's own memory.

One program of a grid takes a block of queries of one head, and all its keys: their
logits, weights and the gradients of these live in vector memory (Dao et al. 2022).
The gradient makes the weights again, from q and k, in one kernel for all three.

By count, at 8 images, 6 heads of 64 channels and 1,024 positions, forward and
backward: 7 products of 1,024 x 1,024 x 64 a head, of which 64 channels fill half
of the matrix unit, 0.69 M cycles of a v5e, and layouts around it as the compiler
estimates them (0.25 M), where it estimates 1.91 M for `nets.attention` without a kernel.
Of kernels themselves it estimates nothing. No TPU has run this one: it compiles for one
v5e, and in the interpreter its numbers are right. Ahead of time, as for `jaxgen plan`,
it compiles for no more chips than one: the compiler does not ask jax there how a
kernel is shared.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding, PartitionSpec

Array = jax.Array
LOGITS = 2**18  # of a block: each float32 array of them is 1 MiB, of 16 that a kernel may take
LANES = 128  # numbers side by side in a register
SUBLANES = 16  # rows of 16-bit numbers in one


def block(t: int, s: int) -> int:
  """Queries of a block, of t with s keys."""
  return min(t, max(LOGITS // s, SUBLANES))


def fits(q: Array, k: Array, v: Array) -> bool:
  """Whether the kernel takes q [B, T, N, D], k [B, S, N, D] and v [B, S, N, C]."""
  (t, d), s, c = (q.shape[1], q.shape[3]), k.shape[1], v.shape[3]
  half = {x.dtype for x in (q, k, v)} == {jnp.dtype("bfloat16")}
  whole = t % block(t, s) == 0 and block(t, s) % SUBLANES == 0 and s % LANES == 0
  return half and whole and s <= LOGITS // SUBLANES and max(d, c) <= LANES and d % 8 == c % 8 == 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def attend(q: Array, k: Array, v: Array, scale: float, interpret: bool = False) -> Array:
  """softmax(scale * q k^T) v, of arrays that `fits` takes.

  Args:
    q: [B, T, N, D].
    k: [B, S, N, D].
    v: [B, S, N, C].
    scale: Of the logits.
    interpret: By an interpreter, for machines without a TPU.

  Returns: [B, T, N, C].
  """
  return _forward(q, k, v, scale, interpret)[0]


def _forward(q, k, v, scale, interpret):
  call = _partitioned(_means, "b n t d, b n s d, b n s c -> b n t c", scale, interpret)
  return _heads_last(call(*map(_heads_first, (q, k, v)))), (q, k, v)


def _backward(scale, interpret, operands, g):
  rule = "b n t d, b n s d, b n s c, b n t c -> b n t d, b n s d, b n s c"
  call = _partitioned(_gradients, rule, scale, interpret)
  return tuple(map(_heads_last, call(*map(_heads_first, (*operands, g)))))


attend.defvjp(_forward, _backward)


def _heads_first(x: Array) -> Array:
  return jnp.swapaxes(x, 1, 2)


_heads_last = _heads_first


def _partitioned(f: Callable, rule: str, scale: float, interpret: bool) -> Callable:
  """f of [B, N, ..] whose examples and heads may lie on several chips: each does its own."""
  local = lambda *operands: f(*operands, scale, interpret)  # which takes no keywords
  whole = custom_partitioning(local)

  def partition(mesh: Any, arguments: Sequence[Any], result: Any):
    spec = tuple(arguments[0].sharding.spec)[:2]
    own = NamedSharding(mesh, PartitionSpec(*spec))
    return mesh, local, jax.tree.map(lambda _: own, result), tuple(own for _ in arguments)

  whole.def_partition(partition=partition, sharding_rule=rule)
  return whole


def _blocks(q: Array, k: Array, v: Array) -> tuple[tuple[int, ...], Callable, Callable]:
  """The grid, and what of an array [B, N, T or S, ..] one program of it sees."""
  t, s = q.shape[2], k.shape[2]
  rows = block(t, s)
  some = lambda x: pl.BlockSpec((None, None, rows, x.shape[3]), lambda b, n, i: (b, n, i, 0))
  all_ = lambda x: pl.BlockSpec((None, None, s, x.shape[3]), lambda b, n, i: (b, n, 0, 0))
  return (*q.shape[:2], t // rows), some, all_


def _means(q: Array, k: Array, v: Array, scale: float, interpret: bool) -> Array:
  grid, some, all_ = _blocks(q, k, v)
  out = jax.ShapeDtypeStruct((*q.shape[:3], v.shape[3]), v.dtype)

  def kernel(q, k, v, out):
    weights = _weights(q[...], k[...], scale)
    out[...] = _product(weights.astype(v.dtype), v[...], 1, 0).astype(out.dtype)

  specs = [some(q), all_(k), all_(v)]
  call = pl.pallas_call(
    kernel, out, grid=grid, in_specs=specs, out_specs=some(out), interpret=interpret
  )
  return call(q, k, v)


def _gradients(
  q: Array, k: Array, v: Array, g: Array, scale: float, interpret: bool
) -> tuple[Array, ...]:
  """By q, k and v; those of keys are summed over the blocks of queries, in float32."""
  grid, some, all_ = _blocks(q, k, v)

  def kernel(q, k, v, g, dq, dk, dv, dk_sum, dv_sum):
    i = pl.program_id(2)

    @pl.when(i == 0)
    def _():
      dk_sum[...] = jnp.zeros(dk_sum.shape, dk_sum.dtype)
      dv_sum[...] = jnp.zeros(dv_sum.shape, dv_sum.dtype)

    weights = _weights(q[...], k[...], scale)
    slope = _product(g[...], v[...], 1, 1)
    slope = weights * (slope - (weights * slope).sum(1, keepdims=True)) * scale
    slope, weights = slope.astype(q.dtype), weights.astype(q.dtype)
    dq[...] = _product(slope, k[...], 1, 0).astype(dq.dtype)
    dk_sum[...] += _product(slope, q[...], 0, 0)
    dv_sum[...] += _product(weights, g[...], 0, 0)

    @pl.when(i == grid[2] - 1)
    def _():
      dk[...] = dk_sum[...].astype(dk.dtype)
      dv[...] = dv_sum[...].astype(dv.dtype)

  call = pl.pallas_call(
    kernel,
    [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)],
    grid=grid,
    in_specs=[some(q), all_(k), all_(v), some(g)],
    out_specs=[some(q), all_(k), all_(v)],
    scratch_shapes=[pltpu.VMEM(x.shape[2:], jnp.float32) for x in (k, v)],
    interpret=interpret,
  )
  return tuple(call(q, k, v, g))


def _weights(q: Array, k: Array, scale: float) -> Array:
  """Softmax of [T, D] and [S, D], [T, S] in float32."""
  logits = _product(q, k, 1, 1) * scale
  weights = jnp.exp(logits - logits.max(1, keepdims=True))
  return weights / weights.sum(1, keepdims=True)


def _product(a: Array, b: Array, i: int, j: int) -> Array:
  """Sums over axis i of a and axis j of b, in float32."""
  return jax.lax.dot_general(a, b, (((i,), (j,)), ((), ())), preferred_element_type=jnp.float32)
