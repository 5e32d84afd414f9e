"""What BigGAN and BigGAN-deep have in common (Brock et al. 2019, App. B)."""
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from jaxgen.nets.attention import attend

Array = jax.Array
ORTHOGONAL = nn.initializers.orthogonal()
Layer = Callable[..., nn.Module]


class NonLocal(nn.Module):
  """Self-attention to a grid of half the height (Zhang et al. 2019, SAGAN)."""
  conv: Layer

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, h, w, c = x.shape
    part = lambda n, name: self.conv(n, 1, use_bias=False, name=name)
    rows = lambda x: x.reshape(b, -1, x.shape[-1])
    pool = lambda x: rows(nn.max_pool(x, (2, 2), (2, 2)))
    narrow = max(c // 8, 1)
    theta = rows(part(narrow, "theta")(x))
    phi = pool(part(narrow, "phi")(x))
    g = pool(part(c // 2, "g")(x))
    y = attend(theta[:, :, None], phi[:, :, None], g[:, :, None], scale=1.)
    y = part(c, "o")(y.reshape(b, h, w, -1))
    gamma = self.param("gamma", nn.initializers.zeros, ())
    return x + gamma.astype(y.dtype) * y


def convolve(width: int, size: int = 3, *, norm: Callable, dtype: Any, **kw
             ) -> nn.Module:
  """A convolution of `size` squared pixels within its norm."""
  return norm(nn.Conv(
      width, (size, size), dtype=dtype, kernel_init=ORTHOGONAL, **kw))


def linear(width: int, *, norm: Callable, name: str) -> nn.Module:
  """What reads a norm's condition, within its norm."""
  return norm(nn.Dense(width, use_bias=False, kernel_init=ORTHOGONAL,
                       name=name))


def begin(z: Array, width: int, bottom: int, norm: Callable, dtype: Any
          ) -> Array:
  """z [B, Z] -> the bottom, [B, bottom, bottom, width]."""
  layer = norm(nn.Dense(width * bottom ** 2, dtype=dtype,
                        kernel_init=ORTHOGONAL, name="linear"))
  return layer(z).reshape(-1, bottom, bottom, width)


def halve(x: Array) -> Array:
  """Means of 2 x 2 pixels, [B, 2H, 2W, C] -> [B, H, W, C]."""
  return nn.avg_pool(x, (2, 2), (2, 2))


def levels(size: int) -> int:
  """How often 4 pixels are doubled."""
  return (size // 4).bit_length() - 1


def nominal(height: int) -> int:
  """The 4 * 2^k whose blocks images have: 128's if they grew from 6 to 192."""
  return 4 << levels(height)


def up_mults(size: int) -> tuple[int, ...]:
  """Multiples of `width` that a generator's resolutions have, 8 x 8 first.

  Brock et al. 2019, Tables 4 to 6; for 32 and 64 their PyTorch code's.
  """
  n = levels(size)
  if n <= 3:
    return (4,) * n
  if n <= 5:
    return (16, 8, 4, 2, 1)[:n]
  return (16, 8, 8, 4, 2) + (1,) * (n - 5)


def down_mults(size: int) -> tuple[int, ...]:
  """Likewise of a discriminator's blocks; the last does not halve."""
  n = levels(size)
  if n <= 3:
    return (4,) * (n + 1)
  if n <= 5:
    return (1, 2, 4, 8, 16, 16)[:n + 1]
  return (1,) * (n - 5) + (2, 4, 8, 8, 16, 16)


def halves(size: int, i: int) -> bool:
  """Whether block i of a discriminator does; at 32 pixels only two do."""
  return i < (2 if size == 32 else levels(size))


def resolution(size: int, i: int) -> int:
  """Of block i's output, by which attention is placed.

  At 32 pixels the PyTorch code calls it 16 for every block.
  """
  return 16 if size == 32 else max(size >> i + 1, 4)
