"""Transposed convolutions whose gradients, of any order, waste nothing on CPUs.

x [B, P.., I], a kernel w [K.., I, O] and y [B, Q.., O] of a transposed convolution
meet in one sum,

  F(x, w, y) = sum_{p, k} x_p w_k y_{stride p - k + before},

whose derivative by y is the transposed convolution itself, by x a convolution with
a stride, and by w the gradient of that one's kernel. Each is linear in two of the
three, so the derivatives of all are among them again.

XLA for CPUs computes the one by w, as autodiff writes it down for a transposed
convolution, with all the zeros between the pixels of x: 805 ms where the same
numbers, as the gradient of a strided convolution's kernel, take 31 (32 maps of
4 x 4 x 512 and 8 x 8 x 256, 4 x 4 taps, one thread), a train step of DCGAN 3.7
times as long. Other platforms get what autodiff writes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Array = jax.Array
Pads = Sequence[tuple[int, int]]
ROLES = ("x", "w", "y")


class ConvTranspose(nn.Module):
  """A transposed convolution, with the parameters of Flax's.

  Attributes:
    features: Channels that come out.
    kernel_size: Taps along each axis.
    strides: Pixels that come out for each that comes in.
    padding: Zeros before and after each axis, once x is spread, see `transposed`.
    transpose_kernel: The kernel is [K.., out, in], and turned around.
    use_bias: Adds one to each channel.
    dtype: Of the computation.
    kernel_init: Of the kernel.
  """

  features: int
  kernel_size: Sequence[int]
  strides: Sequence[int]
  padding: Pads
  transpose_kernel: bool = False
  use_bias: bool = True
  dtype: Any = jnp.float32
  kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, P.., in] -> [B, Q.., features]."""
    channels = (x.shape[-1], self.features)
    shape = (*self.kernel_size, *(channels[::-1] if self.transpose_kernel else channels))
    w = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
    if self.transpose_kernel:
      w = jnp.flip(w, range(len(self.kernel_size))).swapaxes(-1, -2)
    y = transposed(x.astype(self.dtype), w, self.strides, self.padding)
    if not self.use_bias:
      return y
    return y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)


def transposed(x: Array, w: Array, strides: Sequence[int], pads: Pads, groups: int = 1) -> Array:
  """x with zeros between its pixels, convolved: [B, P.., I] -> [B, Q.., O].

  Args:
    x: As many axes between the first and the last as there are strides.
    w: Kernel [K.., I / groups, O], not turned around; of the dtype of x.
    strides: Pixels that come out for each that comes in.
    pads: Zeros before and after each axis of x, once it is spread; negative
      numbers crop. Q = stride (P - 1) + 1 + before + after - (K - 1).
    groups: That channels fall into.
  """
  spec = dict(
    strides=tuple(strides),
    pads=tuple(map(tuple, pads)),
    groups=groups,
    precision=jax.config.jax_default_matmul_precision,
  )
  return derivative.bind(x, w, by="y", **spec)


def strided(x: Array, w: Array, stride: int, pads: Pads) -> Array:
  """A convolution with a stride: [B, P.., I] -> [B, Q.., O].

  Plain autodiff writes its second derivatives (of gradient penalties) with a transposed
  convolution, and so with the zeros that this module is about.

  Args:
    x: As many axes between the first and the last as there are pads.
    w: Kernel [K.., I, O], of the dtype of x.
    stride: Pixels that come in for each that goes out.
    pads: Zeros before and after each axis of x.
  """
  n = len(pads)
  spans = zip(x.shape[1:-1], w.shape[:n], pads, strict=True)
  # The pads of the transposed convolution that leads back to x, all of its rows.
  inner = [
    (k - 1 - lo, k - 1 - hi + (length + lo + hi - k) % stride) for length, k, (lo, hi) in spans
  ]
  spec = dict(
    strides=(stride,) * n,
    pads=tuple(inner),
    groups=1,
    precision=jax.config.jax_default_matmul_precision,
  )
  w = jnp.flip(w.swapaxes(-1, -2), range(n))  # which the derivative turns back
  return derivative.bind(w, x, by="x", **spec)


def _autodiff(a: Array, b: Array, by: str, **spec: Any) -> Array:
  """dF/d`by` of the other two, in the order of ROLES, as XLA's own operations."""
  conv = functools.partial(_conv, **spec)
  if by == "y":
    return conv(a, b)
  shape = _shape(a, b, by, **spec)
  f = (lambda x: conv(x, a)) if by == "x" else (lambda w: conv(a, w))
  return jax.linear_transpose(f, jax.ShapeDtypeStruct(shape, a.dtype))(b)[0]


def _on_cpu(a: Array, b: Array, by: str, **spec: Any) -> Array:
  """The same, and by w as the gradient of a strided convolution's kernel."""
  if by != "w":
    return _autodiff(a, b, by, **spec)
  shape = _shape(a, b, by, **spec)
  strided = lambda w: _autodiff(w, b, "x", **spec)
  return jax.linear_transpose(strided, jax.ShapeDtypeStruct(shape, a.dtype))(a)[0]


def _conv(x, w, strides, pads, groups, precision):
  n = len(strides)
  axes = "".join("DHW"[3 - n :])
  return jax.lax.conv_general_dilated(
    x,
    w,
    (1,) * n,
    pads,
    lhs_dilation=strides,
    dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    feature_group_count=groups,
    precision=precision,
  )


def _shape(a, b, by, strides, pads, groups, **_):
  """The shape of dF/d`by`, from those of the other two."""
  strides, pads = np.array(strides), np.sum(pads, 1)
  if by == "y":
    x, taps = np.array(a.shape[1:-1]), np.array(b.shape[:-2])
    return (a.shape[0], *map(int, strides * (x - 1) + 2 + pads - taps), b.shape[-1])
  y = np.array(b.shape[1:-1])
  if by == "x":
    taps = np.array(a.shape[:-2])
    return (b.shape[0], *map(int, (y + taps - 2 - pads) // strides + 1), a.shape[-2] * groups)
  x = np.array(a.shape[1:-1])
  return (*map(int, strides * (x - 1) + 2 + pads - y), a.shape[-1] // groups, b.shape[-1])


def _transpose(which, cotangent, a, b, by, **spec):
  """The derivative of <cotangent, dF/d`by`> by its first or second operand."""
  names = [name for name in ROLES if name != by]
  known = {by: cotangent, names[1 - which]: (a, b)[1 - which]}
  operands = [known[name] for name in ROLES if name in known]
  return derivative.bind(*operands, by=names[which], **spec)


@functools.partial(jax.jit, static_argnames=("by", "strides", "pads", "groups", "precision"))
def _compiled(a, b, **spec):
  return derivative.bind(a, b, **spec)


def _batch(operands, axes, **spec):
  cpu, default = (functools.partial(f, **spec) for f in (_on_cpu, _autodiff))
  one = lambda a, b: jax.lax.platform_dependent(a, b, cpu=cpu, default=default)
  return jax.vmap(one, axes)(*operands), 0


derivative = Primitive("transposed_conv_derivative")
derivative.def_impl(_compiled)
derivative.def_abstract_eval(lambda a, b, **spec: ShapedArray(_shape(a, b, **spec), a.dtype))
ad.defbilinear(derivative, functools.partial(_transpose, 0), functools.partial(_transpose, 1))
batching.primitive_batchers[derivative] = _batch
mlir.register_lowering(derivative, mlir.lower_fun(_autodiff, multiple_results=False))
mlir.register_lowering(derivative, mlir.lower_fun(_on_cpu, multiple_results=False), platform="cpu")
