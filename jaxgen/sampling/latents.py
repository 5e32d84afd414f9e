"""What a trained GAN does beyond samples: walks, mixed styles.

Functions of a `Sampler`. Knobs, labels, crossovers and truncations are traced:
turning them compiles nothing. Models that cannot are UserErrors, by name.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core, sharding
from jaxgen.adversarial.prior import truncated_normal
from jaxgen.core import Array, Key
from jaxgen.errors import UserError
from jaxgen.keys import fold
from jaxgen.models.gan import GAN, noise_keys
from jaxgen.sampling.sampler import Sampler, key_of

WAYS = ("z", "class", "both")


def gan_of(sampler: Sampler, what: str) -> GAN:
  """The model; UserError if it is no GAN."""
  if not isinstance(sampler.model, GAN):
    raise UserError(f"{what} takes a GAN, and this is a {type(sampler.model).__name__}")
  return sampler.model


def settle(
  sampler: Sampler, truncation: float, batches: int = 16, batch: int = 256, seed: int = 0
) -> Sampler:
  """The sampler with batch norm's statistics anew, for this truncation.

  Standing statistics (Brock et al. 2019, App. B) over `batches` of `batch`
  samples, which batch norm sees together, of all classes in turn. What was
  settled once is remembered.
  """
  gan, truncation = gan_of(sampler, "standing"), float(truncation)
  if not sampler.state.stats["gen"].get("batch_stats"):
    raise UserError(
      f"a {type(gan.gen).__name__} without batch norm has no statistics to settle: leave standing"
    )
  if batches < 1 or batch < 2:
    raise UserError(f"standing={batches} batches of {batch}: want at least 1, of at least 2")
  if not truncation > 0:
    raise UserError(f"truncation={truncation:g}: want more than 0")
  sampler.check_count(batches * batch, f"standing={batches}")
  # Beside the cached properties of the sampler, and as long-lived.
  cache = vars(sampler).setdefault("settled", {})
  bound = truncation if np.isfinite(truncation) else None
  standing = {"truncation": bound, "batches": batches, "batch": batch, "seed": seed}
  entry = tuple(standing.values())
  if entry not in cache:
    y = np.arange(batches * batch, dtype=np.int32) % max(sampler.classes, 1)
    keys = jax.random.split(jax.random.key(seed), batches)
    stats = _settle(gan, sampler.state, keys, y.reshape(batches, batch), jnp.float32(truncation))
    state = sampler.state.replace(stats=sampler.state.stats | {"gen": stats})
    card = sampler.card | {"standing": standing}
    cache[entry] = dataclasses.replace(sampler, state=state, card=card)
    vars(cache[entry])["program"] = sampler.program  # other numbers, the same program
  return cache[entry]


@functools.partial(jax.jit, static_argnums=0)
def _settle(gan, state, key, y, truncation):
  return gan.settle(state, key, y, truncation).stats["gen"]


def interpolate(
  sampler: Sampler,
  key: int | Key,
  rows: int,
  frames: int,
  labels: int | Sequence[int] | None = None,
  between: str = "z",
  *,
  batch: int = 256,
  **knobs: float,
) -> np.ndarray:
  """Walks from sample to sample: uint8 [rows, frames, H, W, C], or points.

  Latents go along a great circle (White 2016), labels in a straight line of
  their weights; with a generator that has `map` both are styles and go in a
  straight line. Noise is that of a row's first sample.

  Args:
    sampler: Of a GAN.
    key: A seed, or a key [].
    rows: Row r begins at `sampler.sample`'s 2r-th sample of this key; it ends
      at the next latent, but for "class".
    frames: In a row, both ends among them.
    labels: One for all, or in turn: for each row, or, unless between is "z",
      for both of its ends. None: every class in turn.
    between: What changes: "z", "class" or "both".
    batch: How many to make at once.
    **knobs: As in `sampler.sample`.
  """
  gan_of(sampler, "interpolate")
  if between not in WAYS:
    raise UserError(f"between={between}: want {', '.join(WAYS)}")
  if between != "z" and not sampler.classes:
    raise UserError(f"between={between}: this model was trained without labels")
  if rows < 1 or frames < 2:
    raise UserError(f"{rows} rows of {frames} frames: want at least 1 of 2")
  sampler.check_count(rows * frames, f"{rows} rows of {frames} frames")
  first = 2 * np.arange(rows)
  i = np.stack([first, first + (between != "class")], 1)
  ends = 1 if between == "z" else 2
  y = sampler.labels(ends * rows, labels)
  if y is not None:
    y = np.broadcast_to(y.reshape(rows, ends), (rows, 2))
    y = np.repeat(y, frames, 0)
  t = np.tile(np.linspace(0, 1, frames), rows)[:, None]
  x = _walk(sampler, key, np.repeat(i, frames, 0), y, t, np.repeat(first, frames), batch, knobs)
  return x.reshape(rows, frames, *sampler.shape)


def mix(
  sampler: Sampler,
  key: int | Key,
  rows: int,
  columns: int,
  crossover: int,
  labels: int | Sequence[int] | None = None,
  *,
  batch: int = 256,
  **knobs: float,
) -> np.ndarray:
  """Mixed styles: uint8 [1 + rows, 1 + columns, H, W, C].

  Karras et al. 2019, Fig. 3: the first `crossover` layers of [1 + r, 1 + c]
  take the styles of the sample [1 + r, 0], the others those of [0, 1 + c]. The
  corner [0, 0] is white. All have the same noise.

  Args:
    sampler: Of a GAN whose generator has `map` and `synthesize`.
    key: A seed, or a key [].
    rows: Samples 0 .. rows - 1 of this key ...
    columns: ... and as many that follow.
    crossover: 0: all is the columns'; the number of layers: all is the rows'.
    labels: As in `sampler.sample`, of rows + columns samples.
    batch: How many to make at once.
    **knobs: As in `sampler.sample`.
  """
  layers = layers_of(sampler, "mix")
  if not 0 <= crossover <= layers:
    raise UserError(f"mix={crossover}: want 0 to {layers}, the layers that take a style")
  if rows < 1 or columns < 1:
    raise UserError(f"mix of {rows} rows and {columns} columns: want at least 1 of each")
  sampler.check_count((1 + rows) * (1 + columns), f"mix of {rows} rows and {columns} columns")
  # A place of the grid: what its first layers are of, and what its others.
  r, c = np.mgrid[: 1 + rows, : 1 + columns].reshape(2, -1)
  row, column = r - 1, rows + c - 1
  i = np.stack([np.where(r, row, column), np.where(c, column, row)], 1)
  i[0] = 0  # the corner
  y = sampler.labels(rows + columns, labels)
  t = np.broadcast_to(np.arange(layers) >= crossover, (len(i), layers))
  x = _walk(sampler, key, i, None if y is None else y[i], t, 0 * row, batch, knobs)
  x[0] = 255
  return x.reshape(1 + rows, 1 + columns, *sampler.shape)


def layers_of(sampler: Sampler, what: str) -> int:
  """How many layers take a style; UserError for generators without `map`."""
  gan = gan_of(sampler, what)
  if not core.trait(gan.gen, "map"):
    raise UserError(
      f"{what} takes a generator that maps z to styles; {type(gan.gen).__name__} has no `map`"
    )
  return style_shape(gan, sampler.state)[0]


def style_shape(gan: GAN, state: core.State) -> tuple[int, int]:
  """Layers that take a style, and the length of each."""
  label = gan.conditions({"y": jnp.zeros(1, jnp.int32)})
  styles = lambda state, z: gan.gen.apply(state.variables("gen"), z, method="map", **label)
  z = jax.ShapeDtypeStruct((1, gan.z_dim), jnp.float32)
  return jax.eval_shape(styles, state, z).shape[1:]


def linear(a: Array, b: Array, t: Array) -> Array:
  """From a to b, both ends to the bit."""
  return (1 - t) * a + t * b


def spherical(a: Array, b: Array, t: Array) -> Array:
  """Latents [B, Z] from a to b along a great circle, both ends to the bit."""
  unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
  dot = jnp.sum(unit(a) * unit(b), -1, keepdims=True)
  omega = jnp.arccos(jnp.clip(dot, -1, 1))
  sine = jnp.sin(omega)
  straight = sine < 1e-3  # no plane, or an ill-conditioned one
  arc = [jnp.sin(s * omega) / jnp.where(straight, 1, sine) for s in (1 - t, t)]
  return jnp.where(straight, linear(a, b, t), arc[0] * a + arc[1] * b)


def _walk(sampler, key, i, y, t, noise, batch, knobs):
  """Images between samples i [N, 2] with labels y [N, 2], at t [N, 1 or L]."""
  settings = {k: jnp.float32(v) for k, v in sampler.settings(knobs).items()}
  rows = {"i": np.int32(i), "t": np.float32(t), "noise": np.int32(noise)}
  if y is not None:
    rows["y"] = np.eye(sampler.classes, dtype=np.float32)[y]
  run = functools.partial(
    _between, sampler.model, sampler.dtype, sampler.state, key_of(key), settings
  )
  return in_batches(run, rows, batch, sampler.mesh)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _between(gan, dtype, state, key, knobs, rows):
  """The one program of walks and mixtures."""
  keys = lambda i: fold(jnp.broadcast_to(key, i.shape), i)
  own = {k: v for k, v in knobs.items() if k not in ("temperature", "truncation")}
  scale = knobs.get("temperature", 1.0)
  z = [scale * truncated_normal(keys(i), gan.z_dim, knobs["truncation"]) for i in rows["i"].T]
  y = [{"y": y} for y in rows["y"].swapaxes(0, 1)] if gan.classes else [{}, {}]
  noise = noise_keys(gan.gen, fold(keys(rows["noise"]), 1))
  apply = functools.partial(gan.gen.apply, state.variables("gen"))
  t = rows["t"]
  if core.trait(gan.gen, "map"):
    a, b = (apply(z, method="map", **y, **own) for z, y in zip(z, y, strict=True))
    x = apply(linear(a, b, t[..., None]), method="synthesize", **noise)
  else:
    y = {k: linear(y[0][k], y[1][k], t) for k in y[0]}
    x = apply(spherical(*z, t), **y, **noise, **own)
  return core.as_data(x, dtype)


def in_batches(
  run: Callable[[dict[str, Array]], Any],
  rows: dict[str, np.ndarray],
  batch: int,
  mesh: jax.sharding.Mesh,
) -> Any:
  """run(rows) for `batch` at a time, all of one size, over all devices."""
  if batch < 1:
    raise UserError(f"batch={batch}: want at least 1")
  n = len(next(iter(rows.values())))
  batch = min(batch, n)
  batch += -batch % mesh.size
  parts = []
  for first in range(0, n, batch):
    i = np.minimum(np.arange(first, first + batch), n - 1)
    part = sharding.shard_batch({k: v[i] for k, v in rows.items()}, mesh)
    parts.append(jax.device_get(run(part)))
  return jax.tree.map(lambda *x: np.concatenate(x)[:n], *parts)


def with_standing_stats(model: Sampler, batches: int | None, knobs: Mapping[str, float]) -> Sampler:
  """With standing statistics over so many batches, if any, for these knobs."""
  return settle(model, knobs.get("truncation", np.inf), batches) if batches else model
