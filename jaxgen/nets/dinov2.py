"""DINOv2's vision transformer (Oquab et al. 2023), as metrics look through it.

Float32, and matrix products keep all of its digits.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
MEAN = (0.485, 0.456, 0.406)  # of ImageNet's channels, in [0, 1]
STD = (0.229, 0.224, 0.225)
SIZE = 224  # pixels, of images in FD-DINOv2
OFFSET = 0.1  # see `enlarge`

Dense = functools.partial(nn.Dense, precision="highest")
Norm = functools.partial(nn.LayerNorm, epsilon=1e-6)


class DINOv2(nn.Module):
  """Normalised images [B, H, W, 3] -> the class token's features [B, width].

  H and W are multiples of `patch`. The defaults are those of ViT-L/14.

  Attributes:
    width: Of tokens.
    depth: Number of blocks.
    heads: Of attention.
    patch: Pixels along a patch's side.
    grid: Patches along the side of the images that it was trained on last,
      whose positions are known; those of others lie between.
  """

  width: int = 1024
  depth: int = 24
  heads: int = 16
  patch: int = 14
  grid: int = 37

  @nn.compact
  def __call__(self, x: Array) -> Array:
    zeros = nn.initializers.zeros
    x = nn.Conv(
      self.width, (self.patch,) * 2, self.patch, "VALID", precision="highest", name="patch_embed"
    )(x)
    b, h, w, _ = x.shape
    first = self.param("cls_token", zeros, (1, 1, self.width))
    where = self.param("pos_embed", zeros, (1, 1 + self.grid**2, self.width))
    grid = where[0, 1:].reshape(self.grid, self.grid, self.width)
    grid = enlarge(enlarge(grid, h).swapaxes(0, 1), w).swapaxes(0, 1)
    x = (x + grid).reshape(b, h * w, self.width)
    first = jnp.broadcast_to(first + where[:, :1], (b, 1, self.width))
    x = jnp.concatenate([first, x], 1)
    for i in range(self.depth):
      x = Block(self.heads, name=f"blocks_{i}")(x)
    return Norm(name="norm")(x)[:, 0]


class Block(nn.Module):
  """Attention, then a perceptron, each scaled and added: [B, T, D]."""

  heads: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    h = attention(Dense(3 * width, name="qkv")(Norm(name="norm1")(x)), self.heads)
    x = x + Dense(width, name="proj")(h) * self.param("ls1", nn.initializers.ones, (width,))
    h = Dense(4 * width, name="fc1")(Norm(name="norm2")(x))
    h = Dense(width, name="fc2")(nn.gelu(h, approximate=False))
    return x + h * self.param("ls2", nn.initializers.ones, (width,))


def attention(qkv: Array, heads: int) -> Array:
  """[B, T, 3 D], all of q, then k, then v, by heads -> [B, T, D]."""
  b, t, _ = qkv.shape
  q, k, v = jnp.moveaxis(qkv.reshape(b, t, 3, heads, -1), 2, 0)
  logits = jnp.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k, precision="highest")
  return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v, precision="highest").reshape(
    b, t, -1
  )


def enlarge(x: Array, size: int) -> Array:
  """Positions [n, ...] -> [size, ...] by cubic interpolation, as they do it.

  PyTorch's bicubic (a = -0.75, not smoothed) with the scale (size + 0.1) / n
  instead of size / n, which keeps it from losing a pixel: published features
  are made so.
  """
  n = len(x)
  if size == n:
    return x
  source = (np.arange(size) + 0.5) * n / (size + OFFSET) - 0.5
  lo = np.floor(source).astype(int)
  matrix = np.zeros((size, n))
  for tap in range(-1, 3):
    weight = cubic(np.abs(source - (lo + tap)))
    np.add.at(matrix, (np.arange(size), np.clip(lo + tap, 0, n - 1)), weight)
  return jnp.einsum("on,n...->o...", matrix.astype(np.float32), x, precision="highest")


def cubic(d: np.ndarray, a: float = -0.75) -> np.ndarray:
  """Keys' kernel at distances d >= 0."""
  near = ((a + 2) * d - (a + 3)) * d * d + 1
  far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
  return np.where(d <= 1, near, np.where(d < 2, far, 0))


def converted(weights: Mapping[str, np.ndarray], net: DINOv2 | None = None) -> dict[str, dict]:
  """PyTorch's weights by name -> parameters of `net`, by default ViT-L/14.

  The mask token, of training alone, is left.

  Raises:
    KeyError: A tensor is missing.
    ValueError: One has the wrong shape.
  """
  net = net or DINOv2()
  image = jax.ShapeDtypeStruct((1, net.patch, net.patch, 3), np.float32)
  shapes = jax.eval_shape(net.init, jax.random.key(0), image)["params"]

  def of(path, leaf):
    name = torch_name(".".join(p.key for p in path))
    value = np.asarray(weights[name], np.float32)
    if value.ndim == 4:
      value = value.transpose(2, 3, 1, 0)
    elif name.endswith("weight"):
      value = value.T  # of one dimension: as it is
    if value.shape != leaf.shape:
      raise ValueError(f"{name} has shape {list(value.shape)}")
    return np.asarray(value, order="C")

  return jax.tree_util.tree_map_with_path(of, shapes)


def torch_name(name: str) -> str:
  """A parameter's name in PyTorch's file."""
  for ours, other in (
    ("blocks_", "blocks."),
    ("patch_embed.", "patch_embed.proj."),
    (".qkv", ".attn.qkv"),
    (".proj.", ".attn.proj."),
    (".fc", ".mlp.fc"),
    (".ls1", ".ls1.gamma"),
    (".ls2", ".ls2.gamma"),
    ("kernel", "weight"),
    ("scale", "weight"),
    ("patch_embed.attn", "patch_embed"),
  ):
    name = name.replace(ours, other)
  return name
