"""Palette: diffusion of images from images (Saharia et al. 2022)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, State
from jaxgen.diffusion import degrade
from jaxgen.diffusion.denoiser import Denoise, mean, with_x_0
from jaxgen.diffusion.process import Noise
from jaxgen.errors import UserError
from jaxgen.keys import fold, normal
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.translation import source_of, wants_of


@dataclasses.dataclass(frozen=True)
class Palette(Diffusion):
  """A diffusion model whose net reads a `source` beside x_t: see `nets.source_unet`.

  Of the tasks of the paper, colourisation and JPEG restoration take a source that
  `cond` makes. Inpainting and uncropping have a `hole`: the source is the image with
  noise N(0, 1) in the hole; outside of it the net sees the image itself in the place
  of x_t, errors count for nothing (the mean is over all pixels), and samples are the
  source.

  Attributes:
    hole: (keys [B], height, width) -> what to `keep`, 1 or 0, [B, H, W, 1]; such as
      `diffusion.degrade.boxes`. `cond` then has "keep", f(x), for samples of a batch
      without one: bytes of 255 are kept, those of 0 are filled.
    draw_source: (keys [B], x) -> sources, where those of training are drawn, such
      as `diffusion.degrade.jpegs`; `cond` then makes those of samples alone.
  """

  hole: Callable | None = None
  draw_source: Callable | None = None

  def __post_init__(self):
    if self.hole is not None and self.around is not None:
      raise UserError("model.around and model.hole: a source with a hole is no mean of x")
    if self.hole is not None and self.draw_source is not None:
      raise UserError("model.hole and model.draw_source: leave one, both make the source")

  @property
  def wants(self) -> tuple[str, ...]:
    """Conditions that the data must bring."""
    return wants_of(self.cond)

  def conditions(self, batch: Batch) -> dict[str, Any]:
    """What the net takes of a batch; what to keep is none of it."""
    conditions = super().conditions(batch)
    conditions.pop("keep", None)
    return conditions

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """A diffusion model's, or in the hole alone."""
    x = batch["x"]
    if self.draw_source is not None and "source" not in batch:
      batch = batch | {"source": self.draw_source(fold(key, 7), x)}
    if self.hole is None:
      return super().loss(state, batch, key)
    keep = self.hole(fold(key, 5), *x.shape[1:3])
    noise = [normal(fold(key, i), x.shape[1:]) for i in (1, 6)]
    t = self.process(self.draw_t(fold(key, 0), x.ndim))
    batch = batch | {"source": degrade.mask(x, keep, noise[1])}
    return self.hole_loss(state, batch, keep, t, noise[0], fold(key, 3))

  def hole_loss(
    self, state: State, batch: Batch, keep: Array, t: Noise, noise: Array, key: Key | None
  ) -> tuple[Array, tuple[Groups, Metrics]]:
    """The error of F in the hole, its mean over all pixels.

    Args:
      state: Weights.
      batch: "x", and "source" whose hole is full of noise.
      keep: [B, H, W, 1].
      t: Level of each example, [B, 1, 1, 1].
      noise: N(0, 1), shaped like x.
      key: [B], of dropout; None: none.
    """
    x, conditions = batch["x"], self.conditions(batch)
    x_t = t.alpha * x + t.sigma * noise
    c_skip, c_out, c_in, c_noise = self.precond(t)
    F, _ = self.F(state, c_in * degrade.mask(x, keep, x_t), c_noise, conditions, key)
    # (Not from x_t: where there is little noise, that would lose all digits.)
    target = ((1 - c_skip * t.alpha) * x - c_skip * t.sigma * noise) / c_out
    gap = (1 - keep) * (F - target)
    errors = jnp.mean(self.error(gap), range(1, x.ndim))
    return jnp.mean(errors), (state.stats, {"mse": jnp.mean(gap**2)})

  def sample(
    self,
    state: State,
    batch: Batch,
    key: Key,
    *,
    denoise: Denoise | None = None,
    stop: Array | None = None,
    **knobs,
  ) -> Array:
    """Keys [B] -> x_0, see `Diffusion.sample`; of holes, all else is the source.

    A batch has "source" and "keep", or they are made of its x.
    """
    if self.hole is None:
      return super().sample(state, batch, key, denoise=denoise, stop=stop, **knobs)
    image = source_of(batch, self.cond)
    keep = batch["keep"] if "keep" in batch else self.cond["keep"](batch["x"])
    keep = (keep > 0).astype(image.dtype)
    path, _ = self.path_points(self.knobs | knobs)
    source = degrade.mask(image, keep, normal(fold(key, 2), image.shape[1:]))
    batch = batch | {"source": source}
    if "noise" not in batch:  # it begins with the known part in its place
      start = degrade.mask(image, keep, normal(fold(key, 0), image.shape[1:]))
      batch["noise"] = start / path.sigma[0]
    D = denoise or self.guided(state, batch, self.knobs | knobs)
    D = self.within(D, image, keep, path.sigma[0])
    return super().sample(state, batch, key, denoise=D, stop=stop, **knobs)

  def within(self, D: Denoise, image: Array, keep: Array, first: Array) -> Denoise:
    """D for the hole alone: what is known is put back after every step, without noise.

    Not before the first, at the level sigma = `first`, where x_t is taken as it is.
    """

    def denoise(x_t: Array, t: Noise) -> Any:
      x_t = jnp.where(t.sigma >= first, x_t, degrade.mask(image, keep, x_t))
      estimate = D(x_t, t)
      return with_x_0(estimate, degrade.mask(image, keep, mean(estimate)))

    return denoise


def centre_kept(x: Array, share: float = 0.5) -> Array:
  """For `cond`: keep all but a box in the middle; x [B, H, W, C] -> [B, H, W, 1] of -1, 1."""
  keep = 2 * degrade.centre(*x.shape[1:3], share) - 1
  return jnp.broadcast_to(jnp.asarray(keep), (*x.shape[:3], 1))


def border_kept(x: Array, share: float = 0.5) -> Array:
  """The reverse, for uncropping: keep a box in the middle, as -1, 1."""
  return -centre_kept(x, share)


def borders(key: Key, height: int, width: int, lo: float = 0.4, hi: float = 0.6) -> Array:
  """For `hole`: keep a random box; keys [B] -> [B, H, W, 1] (uncropping: Sec. 4.3)."""
  return 1 - degrade.boxes(key, height, width, lo, hi)


def whole(x: Array) -> Array:
  """For `cond`: x itself, of which a hole takes its part."""
  return x


def source_as_mean(conditions: Mapping[str, Any], shape: tuple[int, ...]) -> Array:
  """For `around`: the source [B, H, W, 1 or C] as the mean of x, of `shape`.

  A net then sees and predicts what x has beside it: of grey sources, the colours.
  """
  return jnp.broadcast_to(conditions["source"], shape)
