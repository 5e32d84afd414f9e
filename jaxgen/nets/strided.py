"""Convolutions over time with a stride, and their transposes, without dilation.

A stride's samples become as many channels, of which a plain convolution by
blocks of taps makes the same numbers. So gradients of any order are plain
convolutions, too. XLA for CPUs computes the kernel's gradient of a transposed
convolution, and second derivatives of a strided one, with all the zeros of a
dilation: WaveGAN's moves, the penalty's among them, took 5.5 times as long.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def strided_conv(x: Array, w: Array, stride: int) -> Array:
  """[B, L, in] -> [B, L / stride, out]; zeros beyond the ends, as TensorFlow's "SAME".

  Args:
    x: Of a length that `stride` divides.
    w: Kernel [taps, in, out] of at least `stride` taps.
    stride: Steps between the outputs.

  Raises:
    ValueError: It does not.
  """
  b, length, channels = x.shape
  if length % stride:
    raise ValueError(f"{length} samples: want a multiple of the stride, {stride}")
  kernel, before = blocks(w, stride)
  kernel = kernel.reshape(len(kernel), stride * channels, -1)
  x = x.reshape(b, length // stride, stride * channels)
  return conv(x, kernel, before)


def transposed_conv(x: Array, w: Array, stride: int) -> Array:
  """[B, L, in] -> [B, L * stride, out]: the transpose of `strided_conv`.

  Args:
    x: What every `stride`-th step of the result is a copy of the kernel for.
    w: Kernel [taps, in, out] of at least `stride` taps.
    stride: Steps between the inputs.
  """
  b, length, channels = x.shape
  kernel, before = blocks(w, stride)
  kernel = kernel[::-1].swapaxes(1, 2).reshape(len(kernel), channels, -1)
  y = conv(x, kernel, len(kernel) - 1 - before)
  return y.reshape(b, length * stride, -1)


def blocks(w: Array, stride: int) -> tuple[Array, int]:
  """A kernel in blocks of `stride` taps, and how many lie before its own place.

  [taps, in, out] -> [n, stride, in, out], with zeros at both ends.
  """
  taps = len(w)
  left = (taps - stride) // 2  # samples that it reaches back
  before = -(-left // stride)
  front = before * stride - left
  count = -(-(front + taps) // stride)
  w = jnp.pad(w, ((front, count * stride - front - taps), (0, 0), (0, 0)))
  return w.reshape(count, stride, *w.shape[1:]), before


def conv(x: Array, kernel: Array, before: int) -> Array:
  """[B, L, in] -> [B, L, out], by a kernel that reaches `before` steps back."""
  return jax.lax.conv_general_dilated(
    x, kernel, (1,), [(before, len(kernel) - 1 - before)], dimension_numbers=("NWC", "WIO", "NWC")
  )
