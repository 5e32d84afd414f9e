"""A state before the first step, of weights that are there already."""

import collections
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.checkpoint import implied
from jaxgen.convert.published import Facts
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, complete, dummy
from jaxgen.interop import names
from jaxgen.models.latent import row_dtype


@dataclasses.dataclass(frozen=True)
class DataSpec:
  """In the place of a data source that need not be there."""

  name: str
  shape: tuple[int, ...]
  classes: int
  dtype: np.dtype = np.dtype(np.uint8)
  fingerprint: None = None  # any data will do to train on
  class_names: tuple[str, ...] = ()
  stored: dict[str, Any] | None = None  # of latents in x's place, see core.OPTIONAL
  rate: int = 0  # samples a second, of sound

  def __len__(self) -> int:
    return 0


def stored_dtype(config: ConfigDict, shape: tuple[int, ...]) -> np.dtype:
  """Of x of a data source that need not be there.

  Images are bytes. Points are not, nor latents, which bytes of images would cut
  off at [-1, 1]; but with a codec x are the images that they were written of.
  """
  are_images = "codec" in config.model or not config.data.source.startswith("latents:")
  return np.dtype(np.uint8 if len(shape) == 3 and are_images else np.float32)


def height_of(config: ConfigDict, size: int) -> int:
  """Of images that need not be there: config.data.size, or --size.

  UserError if both are said and differ, or neither is.
  """
  own = config.data.size
  if own and size not in (0, own):
    raise UserError(f"--size={size}, but config.data.size={own}: leave one")
  if not (own or size):
    raise UserError("neither the file nor the config says how large the images are: give --size=32")
  return own or size


def clips_of(config: ConfigDict, size: int) -> DataSpec:
  """Clips of sound that need not be there: config.data.size samples, or --size.

  UserError if both are said and differ, neither is, or there is no rate.
  """
  c = config.data
  if c.size and size not in (0, c.size):
    raise UserError(f"--size={size}, but config.data.size={c.size}: leave one")
  if not (c.size or size):
    raise UserError("the config does not say how many samples a clip has: give --size=16000")
  if not c.rate:
    raise UserError("config.data.rate=0: say how many samples a second has, such as 22050")
  return DataSpec(c.source, (c.size or size, 1), c.classes, np.dtype(np.int16), rate=c.rate)


def stored_latents(experiment: Experiment, data: DataSpec) -> dict[str, Any]:
  """Of a row that `jaxgen encode` writes of such data: {name: (shape, dtype)}."""
  batch = dummy(data, 1)
  state = jax.eval_shape(experiment.init, batch, jax.random.key(0))
  z = jax.eval_shape(lambda s, b: experiment.model.stored(s, core.on_device(b)), state, batch)
  return {k: (a.shape[1:], np.dtype(row_dtype(a))) for k, a in z.items()}


def seen_shape(experiment: Experiment, data: DataSpec) -> tuple[int, ...]:
  """Of what the net sees of such data: the shape of latents, or of x itself."""
  if core.trait(experiment.model, "codec") is None:
    return data.shape
  batch = dummy(data, 1)
  state = jax.eval_shape(experiment.init, batch, jax.random.key(0))
  blank = lambda s, b: experiment.model.blank(s, core.on_device(b))
  return jax.eval_shape(blank, state, batch)["x"].shape[1:]


class ForeignFile(NamedTuple):
  """Somebody's checkpoint and what the user says of it; see `import_weights`."""

  path: str
  source: str
  key: str | None
  size: int
  disc: str | None
  facts: Facts
  progress: Callable[[int, int], None]
  log: Callable[[str], None]
  bottom: str | None = None
  back: str | None = None


class Weights(NamedTuple):
  """Float32 arrays of a file; groups that it lacks are initialised as usual.

  Attributes:
    params: By group.
    stats: By group: some of its collections.
    ema: Averages by group, where they are not the weights themselves.
  """

  params: core.Groups
  stats: core.Groups = {}
  ema: core.Groups = {}


class Imported(NamedTuple):
  """A file that was read, and the experiment that it belongs to."""

  experiment: Experiment
  data: DataSpec
  abstract: core.State  # shapes of the whole state
  weights: Weights


class FixedInit(NamedTuple):
  """Stands for a model whose weights are there already."""

  players: tuple
  sampled: tuple
  params: core.Groups
  stats: core.Groups

  def init(self, batch: core.Batch, key: core.Key) -> tuple[core.Groups, core.Groups]:
    """The weights, whatever the batch and the key."""
    return self.params, self.stats


def initial_state(imported: Imported) -> core.State:
  """The state before the first step; its weights are emptied on the way.

  Of what optimisers and averages begin with no array is made, see `implied`.
  """
  experiment, data, abstract, weights = imported
  replicated = sharding.replicated(sharding.make_mesh())
  params, stats, ema = (place_leaves(tree, replicated) for tree in weights)
  batch = {k: jnp.zeros(s.shape, s.dtype) for k, s in dummy(data, 1).items()}
  model, seed = experiment.model, jax.random.key(experiment.config.seed)
  groups = [g for g in abstract.params if g not in params]
  missing_stats = {
    g: {k: shapes for k, shapes in tree.items() if k not in stats.get(g, {})}
    for g, tree in abstract.stats.items()
  }
  fresh_stats = {g: {} for g in abstract.stats}
  if groups or jax.tree.leaves(missing_stats):

    def init_missing(batch, key):
      params, stats = model.init(core.on_device(batch), key)
      return {g: params[g] for g in groups}, {
        g: {k: stats[g][k] for k in tree} for g, tree in missing_stats.items()
      }

    fresh, fresh_stats = jax.jit(init_missing)(batch, seed)
    params |= fresh
  stats = {g: fresh_stats[g] | stats.get(g, {}) for g in abstract.stats}
  c = experiment.config
  optimisers = complete("optim", c.optim, steps=c.steps)

  def begin(weights):
    model_of = FixedInit(model.players, model.sampled, *weights)
    return core.make_init(model_of, optimisers, tuple(c.ema))(batch, seed)

  state = implied.results(begin, (params, stats))
  averages = {p: tree | {g: ema[g] for g in tree if g in ema} for p, tree in state.ema.items()}
  state = state.replace(ema=averages)
  put = lambda leaf, s: (
    leaf if isinstance(leaf, implied.Implied) else jax.device_put(leaf, s.sharding)
  )
  return jax.tree.map(put, state, abstract)


def place_leaves(tree: Mapping[str, Any], where: jax.sharding.Sharding) -> dict[str, Any]:
  """On devices, one leaf at a time: no more is in memory twice."""
  leaves, placed = collections.deque(names.flat(tree).items()), {}
  empty(tree)
  while leaves:
    path, leaf = leaves.popleft()
    placed[path] = jax.device_put(leaf, where)
  return names.nested(placed)


def empty(tree: dict[str, Any]) -> None:
  """Lets go of all leaves."""
  for branch in tree.values():
    if isinstance(branch, dict):
      empty(branch)
  tree.clear()
