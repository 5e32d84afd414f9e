"""What a training shows of itself on the way: samples, and what probes see."""

import functools
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core, keys, sharding
from jaxgen.data.arrays import Source
from jaxgen.monitor.log import Logger
from jaxgen.sampling.output import portrait
from jaxgen.sampling.sampler import draw

PLAYED = 4  # clips of a grid that can be heard, too
TRANSLATED = 27  # images of a grid that are translated: three in a row
PROBED = 128  # examples that a probe looks at, at most


def rebuild(
  model: core.Codec, profile: str | None, state: core.State, real: core.Batch
) -> jax.Array:
  """Images, and beside each what is decoded of its latents: uint8 [2B, ...]."""
  state = sharding.replicate(state.averaged(profile) if profile else state, sharding.make_mesh())
  batch = core.on_device(real)
  z = model.encode(state, batch["x"], y=batch.get("y"))
  x = core.as_data(model.decode(state, z, y=batch.get("y")), real["x"].dtype)
  return jnp.stack([real["x"], x], 1).reshape(-1, *x.shape[1:])


def sources(model: core.Model, real: core.Batch) -> np.ndarray:
  """What is translated of a batch, uint8 shaped like x: grey images in grey, holes too."""
  x = core.on_device(real)
  cond = core.trait(model, "cond")
  source = x["source"] if "source" in x else cond["source"](x["x"])
  if "keep" in cond:
    source = jnp.where(cond["keep"](x["x"]) > 0, source, 0.0)
  shape = x["x"].shape if source.shape[-1] == 1 else source.shape
  return np.asarray(core.as_data(jnp.broadcast_to(source, shape), np.uint8))


class Preview:
  """Samples drawn while training, always with the same key.

  Of a codec, also images of the data beside their reconstructions; of what
  translates images, what goes in and the images of the data on either side.
  """

  def __init__(
    self,
    model: core.Model,
    profile: str | None,
    source: Source,
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    mesh: jax.sharding.Mesh,
    logger: Logger,
    folder: pathlib.Path,
    histograms: bool = False,
  ):
    """Compiles nothing yet.

    Args:
      profile: The averaged weights that draw; None: the weights themselves.
      source: Labels come in turn from its classes.
      shapes: Of a batch as large as the picture, see `experiment.dummy`.
      folder: Where pictures go, STEP.png. Those of reconstructions go beside
        it.
      histograms: Whether weights are logged as well.
    """
    self.logger, self.folder, self.histograms = logger, folder, histograms
    self.rate = core.trait(source, "rate")
    # Whole everywhere, so that process 0 has all of what all have drawn.
    self.draw_from = jax.jit(
      functools.partial(draw, model, profile, shapes, source.classes),
      out_shardings=sharding.replicated(mesh),
    )
    # What is made from other images is shown made from real ones.
    rows = np.arange(len(shapes["x"])) % len(source)
    self.real = source.read(rows) if core.trait(model, "cond") else None
    self.sources = None
    if self.real is not None and "source" in core.trait(model, "cond"):
      self.sources = sources(model, self.real)
    self.pairs = self.rebuild = None
    if core.trait(model, "encode") and len(source.shape) == 3:
      self.pairs = source.read(rows[: (len(rows) + 1) // 2])
      self.rebuild = jax.jit(
        functools.partial(rebuild, model, profile), out_shardings=sharding.replicated(mesh)
      )

  def draw(self, done: int, state: core.State) -> None:
    """A grid of samples into the log and the folder."""
    x = jax.device_get(self.draw_from(state, jax.random.key(0), self.real))
    pairs = self.rebuild and jax.device_get(self.rebuild(state, self.pairs))
    if self.histograms:  # all processes fetch, though one of them writes
      params = jax.tree.map(sharding.fetch, state.params)
    if not self.logger.lead:
      return
    columns = None
    if self.sources is not None:
      x = np.stack([self.sources, x, self.real["x"]], 1)[:TRANSLATED].reshape(-1, *x.shape[1:])
      columns = 9
    image = portrait(x, self.folder / f"{done:08d}.png", {"step": done}, columns)
    self.logger.write_images(done, {"samples": image[None]})
    if self.rate:
      self.logger.write_audios(done, {"samples": x[:PLAYED]}, self.rate)
    if pairs is not None:
      place = self.folder.parent / "reconstructions" / f"{done:08d}.png"
      image = portrait(pairs, place, {"step": done})
      self.logger.write_images(done, {"reconstructions": image[None]})
    if self.histograms:
      self.logger.write_histograms(
        done, {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(params)}
      )


class Probe:
  """What a model says of itself beside data that it was not trained on.

  With pictures, as `probe/...`; see `models.gan` and `health`.
  """

  def __init__(
    self, model: core.Model, source: Source, held: Source, mesh: jax.sharding.Mesh, logger: Logger
  ):
    n = min(PROBED, len(source), len(held))
    some = lambda s: s.read(np.arange(n) * len(s) // n)
    self.batches, self.logger = (some(source), some(held)), logger

    def look(state, batches, key):
      batch, held = map(core.on_device, batches)
      return model.probe(sharding.replicate(state, mesh), batch, held, keys.example_keys(key, n))

    self.program = jax.jit(look, out_shardings=sharding.replicated(mesh))

  def look(self, done: int, state: core.State) -> None:
    """Into the log."""
    scalars = self.program(state, self.batches, jax.random.key(done))
    self.logger.write_scalars(
      done, {f"probe/{k}": float(v) for k, v in jax.device_get(scalars).items()}
    )
