"""A state before the first step, of weights that are there already."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core, sharding
from jaxgen.experiment import Experiment, complete, dummy
from jaxgen.interop import names


@dataclasses.dataclass(frozen=True)
class DataSpec:
  """In the place of a data source that need not be there."""

  name: str
  shape: tuple[int, ...]
  classes: int
  dtype: np.dtype = np.dtype(np.uint8)
  fingerprint: None = None  # any data will do to train on
  class_names: tuple[str, ...] = ()

  def __len__(self) -> int:
    return 0


class Weights(NamedTuple):
  """What a file gave, as float32 arrays; what is not here begins as ever.

  Attributes:
    params: By group.
    stats: By group: some of its collections.
    ema: Averages by group, where they are not the weights themselves.
  """

  params: core.Groups
  stats: core.Groups = {}
  ema: core.Groups = {}


class FixedInit(NamedTuple):
  """In the place of a model whose weights are there already."""

  players: tuple
  sampled: tuple
  params: core.Groups
  stats: core.Groups

  def init(self, batch: core.Batch, key: core.Key) -> tuple[core.Groups, core.Groups]:
    """What was given."""
    return self.params, self.stats


def initial_state(
  experiment: Experiment, data: DataSpec, abstract: core.State, weights: Weights
) -> core.State:
  """The state before the first step; `weights` is emptied on the way."""
  whole = sharding.replicated(sharding.make_mesh())
  params, stats, ema = (place_leaves(tree, whole) for tree in weights)
  batch = {k: jnp.zeros(s.shape, s.dtype) for k, s in dummy(data, 1).items()}
  model, seed = experiment.model, jax.random.key(experiment.config.seed)
  lacking = [g for g in abstract.params if g not in params]
  apart = {g: [k for k in tree if k not in stats.get(g, {})] for g, tree in abstract.stats.items()}
  if lacking or any(
    jax.tree.leaves({k: abstract.stats[g][k] for k in keys}) for g, keys in apart.items()
  ):

    def rest(batch, key):
      fresh, carried = model.init(core.on_device(batch), key)
      return {g: fresh[g] for g in lacking}, {
        g: {k: carried[g][k] for k in keys} for g, keys in apart.items()
      }

    fresh, carried = jax.jit(rest)(batch, seed)
    params |= fresh
    stats = {g: carried[g] | stats.get(g, {}) for g in apart}
  else:
    stats = {g: stats.get(g, {}) for g in apart}
  given = FixedInit(model.players, model.sampled, params, stats)
  c = experiment.config
  state = core.make_init(given, complete("optim", c.optim, steps=c.steps), tuple(c.ema))(
    batch, seed
  )
  state = state.replace(
    ema={
      p: averages | {g: ema[g] for g in averages if g in ema} for p, averages in state.ema.items()
    }
  )
  return jax.device_put(state, jax.tree.map(lambda s: s.sharding, abstract))


def place_leaves(tree: Mapping[str, Any], where: jax.sharding.Sharding) -> dict[str, Any]:
  """On devices, one leaf at a time: no more is in memory twice."""
  leaves, made = collections.deque(names.flat(tree).items()), {}
  empty(tree)
  while leaves:
    path, leaf = leaves.popleft()
    made[path] = jax.device_put(leaf, where)
  return names.nested(made)


def empty(tree: dict[str, Any]) -> None:
  """Lets go of all leaves."""
  for branch in tree.values():
    if isinstance(branch, dict):
      empty(branch)
  tree.clear()
