"""Images edited along directions of a GAN's latents: SeFa or GANSpace.

An image of one's own is first projected, see `sampling.projection`: what the
GAN cannot make is lost.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core
from jaxgen.adversarial.directions import Directions, moved, principal, sefa
from jaxgen.core import Array
from jaxgen.errors import UserError
from jaxgen.keys import fold, normal
from jaxgen.models.gan import GAN
from jaxgen.nets.equalised import Dense
from jaxgen.sampling.latents import gan_of, in_batches, style_shape
from jaxgen.sampling.projection import project
from jaxgen.sampling.sampler import Sampler, key_of

HOWS = ("sefa", "ganspace")
DRAWS = 10_000  # latents that GANSpace looks at


def directions_of(
  sampler: Sampler,
  how: str,
  layers: tuple[int, int] | None = None,
  labels: int | None = None,
  seed: int = 0,
) -> Directions:
  """Directions of a GAN's w or, of generators without `map`, of its z.

  Args:
    sampler: Of a GAN.
    how: "sefa", from weights; "ganspace", from DRAWS styles w.
    layers: First and last (exclusive) that take a style, for "sefa"; None: all.
    labels: The class whose styles "ganspace" looks at; None: of all classes.
    seed: Of its draws.

  Raises:
    UserError: There is no such way, or not for this generator.
  """
  gan = gan_of(sampler, "a style edit")
  if how not in HOWS:
    raise UserError(f"--how={how}: want {' or '.join(HOWS)}")
  if how == "sefa":
    return sefa([jnp.asarray(k) for k in kernels_of(gan, sampler.state, layers)])
  if not core.trait(gan.gen, "map"):
    raise UserError(
      f"--how=ganspace looks at styles, and a {type(gan.gen).__name__} has none: take sefa"
    )
  y = None
  if sampler.classes:
    y = np.arange(DRAWS) % sampler.classes if labels is None else np.full(DRAWS, labels)
    y = jnp.asarray(y, jnp.int32)
  return principal(_styles(gan, sampler.state, key_of(seed), y))


@functools.partial(jax.jit, static_argnums=0)
def _styles(gan, state, key, y):
  """DRAWS styles w."""
  i = jnp.arange(DRAWS)
  z = normal(fold(jnp.broadcast_to(key, i.shape), i), (gan.z_dim,))
  labels = {"y": y} if gan.classes else {}
  return gan.gen.apply(state.variables("gen"), z, method="map", **labels)[:, 0]


def kernels_of(gan: GAN, state: core.State, layers: tuple[int, int] | None) -> list[Array]:
  """What a generator does with its latents at first: kernels [W, outputs].

  Of a StyleGAN2 the affine layers of the convolutions that take those styles,
  but not those that make RGB, as in the published code; of others the linear
  layer that reads z.
  """
  params = state.params["gen"]
  if core.trait(gan.gen, "map"):
    first, last = layers or (0, style_shape(gan, state)[0])
    kernels = [params[block][conv]["affine"]["kernel"] for block, conv in convs_of(params)]
    chosen = kernels[first:last]
    if not chosen:
      raise UserError(
        f"--layers={first}:{last}: there are {len(kernels)} convolutions that take a style"
      )
    return chosen
  if layers is not None:
    raise UserError(f"--layers: a {type(gan.gen).__name__} takes its z in one layer")
  kernels = [np.asarray(k) for k in _readers(gan, state)]
  kernels = [k for k in kernels if np.any(k)]
  if not kernels:
    raise UserError(f"--how=sefa: a {type(gan.gen).__name__} has no linear layer that reads z")
  return kernels[:1]


@functools.partial(jax.jit, static_argnums=0)
def _readers(gan, state):
  """Slopes at z = 0 of what each linear layer makes of z, [Z, outputs], in their order.

  Of the first one that reads z they are its own weights, whatever else it reads.
  """

  def outputs(z):
    made = []

    def note(call, args, kwargs, context):
      y = call(*args, **kwargs)
      if isinstance(context.module, (nn.Dense, Dense)) and context.method_name == "__call__":
        made.append(y.ravel())
      return y

    y = {"y": jnp.zeros(1, jnp.int32)} if gan.classes else {}
    with nn.intercept_methods(note):
      gan.gen.apply(state.variables("gen"), z[None], **y)
    return made

  return [slope.T for slope in jax.jacfwd(outputs)(jnp.zeros(gan.z_dim))]


def convs_of(params: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Blocks and convolutions of a StyleGAN2's generator, in the order of their styles."""
  blocks = [name for name in params if name.startswith("synthesis_b")]
  blocks.sort(key=lambda name: int(name.removeprefix("synthesis_b")))
  return [(b, conv) for b in blocks for conv in ("conv0", "conv1") if conv in params[b]]


def edited(
  sampler: Sampler,
  latents: np.ndarray,
  directions: Directions,
  direction: int,
  strengths: Sequence[float],
  layers: tuple[int, int] | None = None,
  labels: Sequence[int] | None = None,
  batch: int = 64,
) -> np.ndarray:
  """Latents [N, W], w or z -> images [N, len(strengths), H, W, C], as the data.

  Args:
    sampler: Of a GAN.
    latents: As `project` gives them.
    directions: See `directions_of`.
    direction: Which, 0 the strongest.
    strengths: In units of the directions; 0 is the image as it was.
    layers: First and last (exclusive) whose styles move; None: all.
    labels: [N], for a z of a class.
    batch: Images at once.

  Raises:
    UserError: There is no such direction, or these layers are none.
  """
  gan = gan_of(sampler, "a style edit")
  if not 0 <= direction < len(directions.vectors):
    raise UserError(f"--direction={direction}: want 0 to {len(directions.vectors) - 1}")
  count = style_shape(gan, sampler.state)[0] if core.trait(gan.gen, "map") else 1
  first, last = layers or (0, count)
  if not 0 <= first < last <= count:
    raise UserError(f"--layers={first}:{last}: want two of 0 to {count}, the first below the other")
  n, k = len(latents), len(strengths)
  rows = {
    "latent": np.repeat(np.float32(latents), k, 0),
    "strength": np.tile(np.float32(strengths), n),
  }
  if sampler.classes and not core.trait(gan.gen, "map"):
    rows["y"] = np.repeat(np.int32(labels), k, 0)
  span = jnp.asarray([first, last], jnp.int32)
  run = functools.partial(
    _move, gan, sampler.dtype, sampler.state, directions, jnp.int32(direction), span
  )
  return in_batches(run, rows, batch, sampler.mesh).reshape(n, k, *sampler.shape)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _move(gan, dtype, state, directions, direction, span, rows):
  """The one program: no direction, strength or layer makes another."""
  latent, strength = rows["latent"], rows["strength"][:, None]
  there = moved(latent, directions, direction, strength)
  apply = functools.partial(gan.gen.apply, state.variables("gen"))
  if not core.trait(gan.gen, "map"):
    return core.as_data(apply(there, **{k: rows[k] for k in ("y",) if k in rows}), dtype)
  layers = jnp.arange(style_shape(gan, state)[0])
  moves = (layers >= span[0]) & (layers < span[1])
  ws = jnp.where(moves[:, None], there[:, None], latent[:, None])
  return core.as_data(apply(ws, method="synthesize"), dtype)


def style_edit(
  sampler: Sampler,
  images: np.ndarray,
  how: str,
  direction: int,
  strengths: Sequence[float],
  *,
  layers: tuple[int, int] | None = None,
  labels: int | Sequence[int] | None = None,
  steps: int = 500,
  seed: int = 0,
  batch: int = 16,
) -> tuple[np.ndarray, np.ndarray]:
  """Images of one's own -> projections, and these along a direction.

  Args:
    sampler: Of a GAN.
    images: uint8 [N, H, W, C] of its size.
    how: "sefa" or "ganspace".
    direction: Which, 0 the strongest.
    strengths: Of the edit; the step between them is a unit of `directions_of`.
    layers: First and last (exclusive) that take the edit; None: all. Of a
      StyleGAN2 the first decide what is coarse, and the last colours.
    labels: The images' classes, for a generator that has some.
    steps: Of the projection.
    seed: Of its draws.
    batch: Images at once.

  Returns:
    Projections uint8 [N, H, W, C], and edits [N, len(strengths), H, W, C].
  """
  directions = directions_of(sampler, how, layers, seed=seed)
  latents, projections, _ = project(sampler, images, steps, seed=seed, labels=labels, batch=batch)
  y = None
  if sampler.classes and labels is not None:
    y = sampler.labels(len(images), labels)
  return projections, edited(sampler, latents, directions, direction, strengths, layers, y, batch)
