"""Given images, found among those that a GAN can make.

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
from jaxgen.sampling.latents import gan_of, in_batches
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
  """The latents of images -> latents [N, D], images made of them, losses.

  A generator with `map` is given one w for all layers, first w_avg; others a
  z, first the best of some draws. Adam's steps begin and end small. The loss is
  the mean square of pixels' errors, in [-1, 1], and, for each array of
  features, the square of its error over that of the image's own.

  Args:
    sampler: Of a GAN.
    images: uint8 [N, H, W, C], or points.
    steps: Of Adam; with the size of a batch, what makes another program.
    lr: Largest step.
    seed: Of the draws.
    labels: One for all, or one each: which class each is of. Only for a z: a w
      comes from no label.
    features: Of a discriminator or classifier, [B, ...] or several of these.
    starts: Draws to begin at, for a z.
    batch: Images at a time.

  Returns:
    latents, float32 [N, D]: z, or w. Images, shaped and typed as given. Losses,
    float32 [N, 1 + steps]: before each step and after the last.
  """
  gan = gan_of(sampler, "project")
  images = checked(sampler, images)
  key = key_of(seed)
  if not 1 <= steps <= MOST or starts < 1 or not 0 < lr <= MOST:
    raise UserError(
      f"project for steps={steps} of lr={lr:g} from "
      f"starts={starts}: want 1 to {MOST}, more than 0 to "
      f"{MOST}, and at least 1"
    )
  maps = hasattr(gan.gen, "map")
  if maps and "average" not in sampler.state.stats["gen"]:
    raise UserError(f"project begins at the mean style, and {type(gan.gen).__name__} keeps none")
  given = {"x": images, "i": np.arange(len(images), dtype=np.int32)}
  if not maps and sampler.classes:
    if labels is None:
      raise UserError("this model has classes: give the images' labels")
    given["y"] = sampler.labels(len(images), labels)
  done = np.arange(steps) / steps
  fade = np.minimum(np.minimum(1, done / 0.05 + 1 / steps), (1 - done) / 0.25)
  rates = np.float32(
    lr
    * np.where(  # warm up, then a half cosine down
      done < 0.75, fade, 0.5 - 0.5 * np.cos(np.pi * np.minimum(fade, 1))
    )
  )
  run = functools.partial(_descend, gan, features, starts, sampler.dtype, sampler.state, key, rates)
  return in_batches(run, given, batch, sampler.mesh)


def checked(sampler: Sampler, images: np.ndarray) -> np.ndarray:
  """Images that the model could have made; UserError for others."""
  images = np.asarray(images)
  if images.shape[1:] != sampler.shape or images.dtype != sampler.dtype or not len(images):
    raise UserError(
      f"images to project are {images.dtype} {list(images.shape)}: want "
      f"{sampler.dtype} [n, {', '.join(map(str, sampler.shape))}]"
    )
  return images


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _descend(gan, features, starts, dtype, state, key, rates, given):
  """-> latents, images, losses of one batch."""
  x = core.on_device({"x": given["x"]})["x"]
  make, begin = _maker(gan, state, {k: given[k] for k in ("y",) if k in given})
  distance = _distance(x, features)
  if begin is None:
    begin = _best(
      lambda z: distance(make(z)),
      starts,
      gan.z_dim,
      fold(jnp.broadcast_to(key, given["i"].shape), given["i"]),
    )
  else:
    begin = jnp.broadcast_to(begin, (len(x), *begin.shape))
  adam = optax.scale_by_adam()

  def far(latent):  # each example has its own: gradients do not meet
    d = distance(make(latent))
    return jnp.sum(d), d

  def step(carry, rate):
    latent, opt = carry
    grads, d = jax.grad(far, has_aux=True)(latent)
    update, opt = adam.update(grads, opt)
    return (latent - rate * update, opt), d

  (latent, _), losses = jax.lax.scan(step, (begin, adam.init(begin)), rates)
  made = make(latent)
  losses = jnp.concatenate([losses, distance(made)[None]])
  return latent, core.as_data(made, dtype), losses.T


def _maker(gan, state, y):
  """latents -> x, and where w begins (None: it is z)."""
  apply = functools.partial(gan.gen.apply, state.variables("gen"))
  if not hasattr(gan.gen, "map"):
    return lambda z: apply(z, **y), None
  label = {"y": jnp.zeros(1, jnp.int32)} if gan.classes else {}
  ws = jax.eval_shape(lambda z: apply(z, method="map", **label), jnp.zeros((1, gan.z_dim)))

  def make(w):
    return apply(jnp.repeat(w[:, None], ws.shape[1], 1), method="synthesize")

  return make, state.stats["gen"]["average"]["w_avg"]


def _distance(x, features):
  """x -> distances from the target, [B]."""
  rest = lambda a: tuple(range(1, a.ndim))
  target = features and features(x)

  def distance(made):
    total = jnp.mean((made - x) ** 2, rest(x))
    if features:
      pairs = zip(jax.tree.leaves(features(made)), jax.tree.leaves(target), strict=True)
      for a, b in pairs:
        total += jnp.sum((a - b) ** 2, rest(b)) / (jnp.sum(b**2, rest(b)) + 1e-8)
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
