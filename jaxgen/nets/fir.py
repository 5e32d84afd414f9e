"""Resampling by FIR filters, and convolutions that double or halve H and W.

As StyleGAN2 does it (Karras et al. 2020, App. B, after Zhang 2019): wherever
the resolution changes, a small low-pass filter keeps aliases out. Filters are
separable, so they are sums of a few shifted copies along each axis.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets.transposed import strided, transposed

Array = jax.Array
TAPS = (1, 3, 3, 1)


def fir(x: Array, taps: Sequence[float], pad: tuple[int, int], up: int = 1, down: int = 1) -> Array:
  """Zeros between pixels, padding, convolution, every `down`-th pixel.

  Args:
    x: [B, H, W, C].
    taps: Of the filter; what counts is their ratio, their sum becomes `up`, so
      that a constant image stays what it is.
    pad: Zeros before and after H and W, once they are `up` times as long;
      negative numbers crop.
    up: Pixels for each pixel that comes in, along each axis.
    down: Pixels for each pixel that goes out.
  """
  weights = np.array(taps[::-1], np.float64)  # a true convolution
  weights *= up / weights.sum()
  lo, hi = pad
  for axis in (1, 2):
    config = [(0, 0, 0)] * 4
    config[axis] = (lo, hi + up - 1, up - 1)
    x = jax.lax.pad(x, jnp.zeros([], x.dtype), config)
    last = x.shape[axis] - len(taps)
    x = sum(
      float(w) * jax.lax.slice_in_dim(x, i, i + last + 1, down, axis) for i, w in enumerate(weights)
    )
  return x


def upsample(x: Array, taps: Sequence[float] = TAPS) -> Array:
  """[B, H, W, C] -> [B, 2H, 2W, C]."""
  return fir(x, taps, ((len(taps) + 1) // 2, (len(taps) - 2) // 2), up=2)


def downsample(x: Array, taps: Sequence[float] = TAPS) -> Array:
  """[B, 2H, 2W, C] -> [B, H, W, C]."""
  return fir(x, taps, ((len(taps) - 1) // 2, (len(taps) - 2) // 2), down=2)


def conv(
  x: Array, kernel: Array, taps: Sequence[float] = TAPS, up: bool = False, down: bool = False
) -> Array:
  """Convolves x [B, H, W, I] by a kernel [k, k, I, O], k odd.

  With `up` H and W are doubled on the way, with `down` halved. Filter and
  kernel see zeros around the image once, not one after the other. Where it
  goes up the kernel is turned around, as reference checkpoints have it.
  """
  k, n = len(kernel), len(taps)
  if k == 1 and up:
    return upsample(_conv(x, kernel), taps)
  if k == 1 and down:
    return _conv(downsample(x, taps), kernel)
  if up:
    x = transposed(x, kernel[::-1, ::-1], (2, 2), [(k - 1, k - 1)] * 2)
    lo, hi = k // 2 + (n + 1) // 2 - (k - 1), k // 2 + (n - 2) // 2 - (k - 2)
    return 4 * fir(x, taps, (lo, hi))
  if down:
    x = fir(x, taps, (k // 2 + (n - 1) // 2, k // 2 + (n - 2) // 2))
    return strided(x, kernel, 2, [(0, 0)] * 2)
  return _conv(x, kernel, pad=k // 2)


def _conv(x, kernel, pad=0):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
