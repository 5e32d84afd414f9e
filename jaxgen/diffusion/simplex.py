"""Simplex noise of several octaves: AnoDDPM (Wyatt et al. 2022, Sec. 3.2).

Gaussian noise hides what is small and leaves what is large: a lesion of many
pixels survives partial diffusion. This noise has structure of all sizes. One
octave is Perlin's simplex noise in two dimensions, a random gradient at each
point of a triangular lattice that fades within the triangles around it.

Other than the authors' code each example and channel has a field of its own,
each octave gradients and a shift of its own (so no place has always zero), and
the sum is scaled to unit variance: it stands where Gaussian noise would.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

Array = jax.Array
SKEW, UNSKEW = (math.sqrt(3) - 1) / 2, (3 - math.sqrt(3)) / 6
RADIUS = 0.5  # square of the distance at which a gradient is felt no more
# Mean square of one octave over all places: the integral of (1/2 - r^2)^8 r^2 / 2
# over the plane, per lattice point, of which there is one on 1 / sqrt(3).
POWER = math.pi / 2 * RADIUS**10 / 90 * math.sqrt(3)


def simplex(
  key: Array,
  shape: Sequence[int],
  octaves: int = 6,
  persistence: float = 0.8,
  frequency: float = 0.25,
) -> Array:
  """Keys [B] -> noise of mean zero and variance one, [B, *shape].

  Args:
    key: One for each example.
    shape: H, W, C; every channel by itself.
    octaves: Each twice as fine as the one before, down to one pixel.
    persistence: Amplitude of an octave over that of the one before.
    frequency: Wavelength of the first octave, as a share of the longer side:
      the authors' 64 pixels of 256.

  Raises:
    ValueError: These are no images.
  """
  if len(shape) != 3:
    raise ValueError(f"simplex noise is of images [H, W, C], not of {list(shape)}.")
  height, width, channels = shape
  index = jnp.arange(octaves)
  periods = jnp.maximum(frequency * max(height, width) / 2.0**index, 1.0)
  of_channels = jax.vmap(lambda k: jax.random.split(k, channels))(key)

  def add(total: Array, now: tuple) -> tuple[Array, None]:
    i, period = now
    draw = lambda k: octave(jax.random.fold_in(k, i), (height, width), period)
    return total + persistence**i * jax.vmap(jax.vmap(draw, out_axes=-1))(of_channels), None

  zero = jnp.zeros((len(key), *shape))
  total, _ = jax.lax.scan(add, zero, (index, periods))  # one body to compile
  return total * (POWER * sum(persistence ** (2 * i) for i in range(octaves))) ** -0.5


def octave(key: Array, shape: tuple[int, int], period: Array | float) -> Array:
  """One octave of one field: key [] -> [H, W], of mean square POWER.

  Args:
    key: Of the gradients and the shift.
    shape: H, W.
    period: Pixels in a unit of length, at least 1; lattice points are
      sqrt(2 / 3) units apart.
  """
  height, width = shape
  k_shift, k_angle = jax.random.split(key)
  # Gradients repeat only beyond the picture.
  nodes = math.ceil((1 + SKEW * 2) * max(shape)) + 4
  angle = jax.random.uniform(k_angle, (nodes, nodes), maxval=2 * math.pi)
  # Drawn once, not again wherever it is read.
  angle = jax.lax.optimization_barrier(angle)
  shift = jax.random.uniform(k_shift, (2, 1, 1), maxval=1.0)
  y, x = jnp.mgrid[:height, :width] / period + shift
  skew = (x + y) * SKEW
  i, j = jnp.floor(x + skew), jnp.floor(y + skew)
  corner = (i + j) * UNSKEW
  dx, dy = x - (i - corner), y - (j - corner)
  lower = dx > dy  # which of the two triangles of the cell
  total = jnp.zeros(shape)
  for a, b in ((0, 0), (lower, ~lower), (1, 1)):
    a, b = jnp.asarray(a, jnp.int32), jnp.asarray(b, jnp.int32)
    to_x, to_y = dx - a + (a + b) * UNSKEW, dy - b + (a + b) * UNSKEW
    turn = angle[(i.astype(jnp.int32) + a) % nodes, (j.astype(jnp.int32) + b) % nodes]
    fade = jnp.maximum(RADIUS - to_x**2 - to_y**2, 0) ** 4
    total += fade * (jnp.cos(turn) * to_x + jnp.sin(turn) * to_y)
  return total
