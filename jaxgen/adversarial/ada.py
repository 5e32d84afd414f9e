"""Adaptive discriminator augmentation (Karras et al. 2020b, Sec. 3, App. B).

The pipeline "bgc": pixel blitting, general geometry, colour. The paper's image
filters and corruptions, which its final runs leave out, are not here.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxgen.adversarial import color, warp

Array = jax.Array
Stats = dict[str, Array]
ALL = (*warp.BLIT, *warp.GEOMETRY, *color.NAMES)


@dataclasses.dataclass(frozen=True)
class ADA:
  """Each transform of each image comes with probability p, which adapts to D.

  The transforms' fields multiply p: 0 turns one off. See `warp` and `color`
  for what they do, and in what this differs from the reference.

  Attributes:
    target: Of E sign(D(real)), which p is led by: more is overfitting.
    every: Batches per move of p.
    kimg: Thousand images in which p can go from 0 to 1.
    p: At the start.
  """

  target: float = 0.6
  every: int = 4
  kimg: float = 500.0
  p: float = 0.0
  xflip: float = 1.0
  rotate90: float = 1.0
  xint: float = 1.0
  scale: float = 1.0
  rotate: float = 1.0
  aniso: float = 1.0
  xfrac: float = 1.0
  brightness: float = 1.0
  contrast: float = 1.0
  lumaflip: float = 1.0
  hue: float = 1.0
  saturation: float = 1.0

  def init(self) -> Stats:
    """p, and what was seen since it moved: sum of signs, examples; all []."""
    return {"p": jnp.float32(self.p), "signs": jnp.float32(0), "seen": jnp.float32(0)}

  def __call__(self, x: Array, key: Array, stats: Stats) -> Array:
    """Images [B, H, W, C] of 1 or 3 channels, keys [B] -> images.

    What draws no transform passes bit for bit.
    """
    if x.ndim != 4 or x.shape[3] not in (1, 3):
      raise ValueError(f"ADA is for images [B, H, W, 1 or 3], not {x.shape}")
    if x.shape[1] != x.shape[2] and self.rotate90:
      raise ValueError(f"images of {x.shape[1:3]} are not square: set augment.rotate90=0")
    chance = {n: stats["p"] * v for n, v in dataclasses.asdict(self).items() if n in ALL}
    bend = any(getattr(self, n) for n in warp.GEOMETRY)
    return jax.vmap(lambda x, k: pipeline(x, k, chance, bend))(x, key)

  def update(self, stats: Stats, real_logits: Array, step: Array, batch: int) -> Stats:
    """Counts D's signs on `batch` real examples; moves p on every 4th step.

    By as much as the examples seen allow, so that it comes to the same where a
    batch is differentiated in parts. As p > 1 means no more than 1, it stops
    there; the reference's goes on.
    """
    signs = stats["signs"] + jnp.sum(jnp.sign(real_logits))
    seen = stats["seen"] + batch
    now = (step + 1) % self.every == 0
    move = jnp.sign(signs / seen - self.target) * seen / (1000 * self.kimg)
    p = jnp.clip(stats["p"] + jnp.where(now, move, 0), 0, 1)
    keep = 1 - now.astype(jnp.float32)
    return {"p": p, "signs": keep * signs, "seen": keep * seen}


def pipeline(x: Array, key: Array, chance: dict[str, Array], bend: bool = True) -> Array:
  """One image [H, W, C], key [], chances [] of each transform -> image.

  Without `bend` there is no program for what resamples: it is the costly part.
  """
  k_blit, k_geometry, k_color = jax.random.split(key, 3)
  blit = warp.blit(k_blit, chance, x.shape)
  y = warp.gather(x, blit)
  if bend:
    geometry, bent = warp.geometry(k_geometry, chance, x.shape)
    y = jnp.where(bent, warp.resample(x, warp.dot(blit, geometry)), y)
  C, coloured = color.matrix(k_color, chance, x.shape[-1])
  return jnp.where(coloured, color.apply(C, y), y)
