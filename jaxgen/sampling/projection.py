"""The nearest images to given ones that a GAN can make.

Latents by gradient descent (Karras et al. 2020a, Sec. 5.1 and App. D), but
without noise on them and without regularised noise inputs: the layers' noise
is what was drawn once.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen import core
from jaxgen.core import Array
from jaxgen.errors import UserError
from jaxgen.keys import fold, normal
from jaxgen.sampling.latents import gan_of, in_batches, style_shape
from jaxgen.sampling.sampler import Sampler, key_of

MOST = 1_000_000  # steps; and far more than any step's length
Features = Callable[[Array], Any]  # x [B, H, W, C] in [-1, 1] -> [B, ...], many


def project(
  sampler: Sampler,
  images: np.ndarray,
  steps: int = 500,
  lr: float = 0.1,
  seed: int = 0,
  labels: int | Sequence[int] | None = None,
  features: Features | None = None,
  *,
  starts: int = 16,
  batch: int = 16,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The nearest images that a GAN can make -> latents, images, losses.

  A generator with `map` is given one w for all layers, at first w_avg; others a
  z, at first the best of some draws. The loss is the mean square of pixels'
  errors, in [-1, 1], and for each array of features the square of its error
  over that of the image's own.

  Args:
    images: uint8 [N, H, W, C], or points.
    steps: Of Adam; with the size of a batch, what makes another program.
    lr: Largest learning rate.
    seed: Of the draws.
    labels: One for all, or one each; for a z alone.
    features: Of a discriminator or classifier, [B, ...] or several of these.
    starts: Number of draws to begin at, for a z.

  Returns:
    latents float32 [N, D], z or w; images, as given; losses float32
    [N, 1 + steps], before each step and after the last.
  """
  gan = gan_of(sampler, "project")
  check_images(sampler, images)
  maps = bool(core.trait(gan.gen, "map"))
  if not 1 <= steps <= MOST or starts < 1 or not 0 < lr <= MOST:
    raise UserError(
      f"project for steps={steps} of lr={lr:g} from starts={starts}: "
      f"want 1 to {MOST}, more than 0 to {MOST}, and at least 1"
    )
  if maps and "average" not in sampler.state.stats["gen"]:
    raise UserError(f"project begins at the mean style, and {type(gan.gen).__name__} keeps none")
  rows = {"x": images, "i": np.arange(len(images), dtype=np.int32)}
  if sampler.classes and not maps:
    if labels is None:
      raise UserError("this model has classes: give the images' labels")
    rows["y"] = sampler.labels(len(images), labels)
  key, rates = key_of(seed), learning_rates(lr, steps)
  run = functools.partial(_descend, gan, features, starts, sampler.dtype, sampler.state, key, rates)
  return in_batches(run, rows, batch, sampler.mesh)


def learning_rates(lr: float, steps: int) -> np.ndarray:
  """Rates float32 [steps]: a short rise, and at the end half a cosine down."""
  part = np.arange(steps) / steps
  fade = np.minimum(np.minimum(1, part / 0.05 + 1 / steps), (1 - part) / 0.25)
  cosine = 0.5 - 0.5 * np.cos(np.pi * np.minimum(fade, 1))
  return np.float32(lr * np.where(part < 0.75, fade, cosine))


def check_images(sampler: Sampler, images: np.ndarray) -> None:
  """UserError for images that the model cannot make."""
  if images.shape[1:] != sampler.shape or images.dtype != sampler.dtype or not len(images):
    raise UserError(
      f"images to project are {images.dtype} {list(images.shape)}: want "
      f"{sampler.dtype} [n, {', '.join(map(str, sampler.shape))}]"
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _descend(gan, features, starts, dtype, state, key, rates, rows):
  """-> latents, images, losses of one batch."""
  x = core.on_device({"x": rows["x"]})["x"]
  make, first = _maker(gan, state, {k: rows[k] for k in ("y",) if k in rows})
  distance = _distance(x, features)
  if first is None:
    keys = fold(jnp.broadcast_to(key, rows["i"].shape), rows["i"])
    first = _best(lambda z: distance(make(z)), starts, gan.z_dim, keys)
  else:
    first = jnp.broadcast_to(first, (len(x), *first.shape))
  adam = optax.scale_by_adam()

  def total(latent):  # each example has its own: gradients do not meet
    d = distance(make(latent))
    return jnp.sum(d), d

  def step(carry, rate):
    latent, opt = carry
    grads, d = jax.grad(total, has_aux=True)(latent)
    update, opt = adam.update(grads, opt)
    return (latent - rate * update, opt), d

  (latent, _), losses = jax.lax.scan(step, (first, adam.init(first)), rates)
  image = make(latent)
  losses = jnp.concatenate([losses, distance(image)[None]])
  return latent, core.as_data(image, dtype), losses.T


def _maker(gan, state, y):
  """latents -> x, and where w begins (None: it is z)."""
  apply = functools.partial(gan.gen.apply, state.variables("gen"))
  if not core.trait(gan.gen, "map"):
    return lambda z: apply(z, **y), None
  layers, _ = style_shape(gan, state)
  make = lambda w: apply(jnp.repeat(w[:, None], layers, 1), method="synthesize")
  return make, state.stats["gen"]["average"]["w_avg"]


def _distance(x, features):
  """x -> distances from the target, [B]."""
  axes = lambda a: tuple(range(1, a.ndim))
  target = jax.tree.leaves(features(x)) if features else []

  def distance(image):
    total = jnp.mean((image - x) ** 2, axes(x))
    ours = jax.tree.leaves(features(image)) if features else []
    for a, b in zip(ours, target, strict=True):
      total += jnp.sum((a - b) ** 2, axes(b)) / (jnp.sum(b**2, axes(b)) + 1e-8)
    return total

  return distance


def _best(distance, starts, z_dim, keys):
  """Of some draws, the nearest: z [B, z_dim]."""

  def closer(best, i):
    z = normal(fold(keys, i), (z_dim,))
    d = distance(z)
    better = d < best[1]
    return (jnp.where(better[:, None], z, best[0]), jnp.where(better, d, best[1])), None

  none = jnp.zeros((len(keys), z_dim)), jnp.full(len(keys), jnp.inf)
  return jax.lax.scan(closer, none, jnp.arange(starts))[0][0]
