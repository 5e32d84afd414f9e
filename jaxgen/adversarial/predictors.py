"""Attributes of images that need no network: differentiable statistics.

Images [B, H, W, C] in [-1, 1] or a little beyond -> values [B, K].
"""

import jax
import jax.numpy as jnp

Array = jax.Array
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
TINY = 1e-6


def grey(x: Array) -> Array:
  """Brightness in [0, 1], [B, H, W]: what is light is ink."""
  x = jnp.clip((x + 1) / 2, 0, 1)
  return x[..., 0] if x.shape[-1] == 1 else x @ jnp.asarray(LUMA)


def slant(x: Array) -> Array:
  """Tangent of the angle from upright, positive to the right, [B, 1].

  The shear that second moments of ink show, -mu_xy / mu_yy with y downwards:
  a stroke (or a digit) sheared by it is upright.
  """
  ink = grey(x)
  height, width = ink.shape[1:]
  rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
  mass = jnp.sum(ink, (1, 2)) + TINY
  mean = lambda v: jnp.sum(ink * v, (1, 2)) / mass
  dy = rows - mean(rows)[:, None, None]
  dx = columns - mean(columns)[:, None, None]
  return (-mean(dx * dy) / (mean(dy**2) + TINY))[:, None]


def thickness(x: Array) -> Array:
  """Width of strokes in pixels, [B, 1]: twice the ink over its total variation.

  Ink of an area w l has a border of 2 (w + l), which is the total variation: a
  bar has w l / (w + l), and a long one its width w. Beyond the image there is
  none.
  """
  ink = jnp.pad(grey(x), ((0, 0), (1, 1), (1, 1)))
  dy, dx = ink[:, 1:, :-1] - ink[:, :-1, :-1], ink[:, :-1, 1:] - ink[:, :-1, :-1]
  border = jnp.sum(jnp.sqrt(dx**2 + dy**2 + TINY**2), (1, 2))
  return (2 * jnp.sum(ink, (1, 2)) / (border + TINY))[:, None]


def contrast(x: Array) -> Array:
  """Standard deviation of brightness, [B, 1]: at most 0.5."""
  return jnp.sqrt(jnp.var(grey(x), (1, 2)) + TINY**2)[:, None]


def colour(x: Array) -> Array:
  """The mean of every channel, in [-1, 1], [B, C]."""
  return jnp.mean(jnp.clip(x, -1, 1), (1, 2))


STATISTICS = {"slant": slant, "thickness": thickness, "contrast": contrast, "colour": colour}
