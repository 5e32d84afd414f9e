"""Programs made of shapes alone: train steps and samplers, for any mesh."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.bench import device
from jaxgen.bench.sampling import conditions
from jaxgen.bench.training import cycle, step_flops
from jaxgen.convert.initial_state import DataSpec, stored_dtype, stored_latents
from jaxgen.errors import UserError
from jaxgen.experiment import Compiled, Experiment, check_attention, training_batch
from jaxgen.sampling.sampler import Sampler


class Program(NamedTuple):
  """Something that can be compiled."""

  name: str  # the players that move, or "sampling"
  share: float  # of all steps, those that take this program
  lower: Callable[[], jax.stages.Lowered]
  flops: float  # operations of one run, on all devices together
  arguments: dict[str, int]  # bytes per device of what goes in, by kind
  turns: int = 1  # of loops whose length is known only when it runs


def train(config: ConfigDict, data: DataSpec, mesh: Mesh) -> list[Program]:
  """The train step, for every turn that players take."""
  experiment = Experiment.of(config)
  check_attention(experiment.model, data)
  state = experiment.abstract(data, mesh)
  if data.name.startswith("latents:") and core.trait(experiment.model, "codec"):
    data = dataclasses.replace(data, stored=stored_latents(experiment, data))
  batch = place(sharding.batched(mesh), training_batch(data, config.batch))
  seed = place(sharding.replicated(mesh), key())
  step = Compiled(experiment, mesh)
  turns = cycle(experiment.model)
  return [
    Program(
      " + ".join(experiment.model.players[i].name for i in turn) or "nobody",
      turns.count(turn) / len(turns),
      functools.partial(step.lower, turn, state, batch, seed),
      flops,
      by_kind(state, batch),
    )
    for turn, flops in step_flops(experiment, data, config.batch).items()
  ]


def sample(
  config: ConfigDict, data: DataSpec, mesh: Mesh, batch: int, knobs: Mapping[str, float]
) -> list[Program]:
  """The sampler, as `jaxgen sample` would run it with averaged weights."""
  experiment = Experiment.of(config)
  state = experiment.abstract(data, mesh).replace(opt={}, ema={})
  sampler = Sampler(experiment.model, state, data.shape, data.dtype, config.data.classes, {})
  vars(sampler)["mesh"] = mesh  # in place of our own devices'
  settings = sampler.settings(dict(knobs))
  rows = place(sharding.batched(mesh), conditions(sampler, batch))
  knob = jax.ShapeDtypeStruct((), jnp.float32)
  args = (state, rows, *place(sharding.replicated(mesh), (key(), dict.fromkeys(settings, knob))))
  turns = int(settings.get("steps", 1))
  return [
    Program(
      "sampling",
      1.0,
      functools.partial(sampler.program.lower, *args),
      device.flops(jax.jit(sampler.program.__wrapped__), *args, turns=turns),
      by_kind(state, rows),
      turns,
    )
  ]


def key() -> jax.ShapeDtypeStruct:
  """The shape of a seed."""
  return jax.eval_shape(lambda: jax.random.key(0))


def place(where: jax.sharding.Sharding, shapes: Any) -> Any:
  """The same shapes, on devices."""
  return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes)


def by_kind(state: core.State, batch: core.Batch) -> dict[str, int]:
  """Bytes of a device's part of all arrays, without padding."""
  trees = {
    "parameters": state.params,
    "optimiser": state.opt,
    "averages": state.ema,
    "statistics": state.stats,
    "batch": batch,
  }
  size = lambda s: math.prod(s.sharding.shard_shape(s.shape)) * s.dtype.itemsize
  return {kind: sum(map(size, jax.tree.leaves(tree))) for kind, tree in trees.items()}


def with_batch(config: ConfigDict, batch: int) -> ConfigDict:
  """The same config, of another batch."""
  config = config.copy_and_resolve_references()
  config.batch = batch
  return config


# As they are stored; what has a size is resized to it.
STORED = {
  "digits": (8, 8, 1),
  "stacked_digits": (8, 8, 3),
  "photos": (64, 64, 3),
  "points": (2,),
  "tfds:cifar10": (32, 32, 3),
  "tfds:cifar100": (32, 32, 3),
  "tfds:mnist": (28, 28, 1),
  "tfds:fashion_mnist": (28, 28, 1),
  "tfds:svhn_cropped": (32, 32, 3),
  "tfds:stl10": (96, 96, 3),
}


def data_spec(config: ConfigDict, shape: Sequence[int] | None = None) -> DataSpec:
  """The data of a config as it describes them, without a look at them.

  Args:
    config: Of an experiment.
    shape: Of an example, in place of what the config's data tells.

  Raises:
    UserError: The config does not tell the shape.
  """
  name, size = config.data.source, config.data.size
  stored = STORED.get(name) or STORED.get(name.partition(":")[0])
  if shape is None and (size or stored):
    # An image of no known channels has those that a generator makes, or three.
    channels = config.model.get("gen", {}).get("channels", 3)
    shape = stored if not size else (size, size, stored[-1] if stored else channels)
    if len(shape) == 3 and config.data.channels:
      shape = (*shape[:2], config.data.channels)
  if shape is None:
    raise UserError(
      f"the config does not say how large the images of {name} "
      "are: say --shape=32,32,3 or --config.data.size=32"
    )
  return DataSpec(name, tuple(shape), config.data.classes, stored_dtype(config, tuple(shape)))


def parse_shape(text: str | None) -> tuple[int, ...] | None:
  """ "32,32,3" -> (32, 32, 3)."""
  try:
    shape = tuple(int(n) for n in text.split(",")) if text else None
  except ValueError:
    shape = (0,)
  if shape is not None and (min(shape) < 1 or len(shape) not in (1, 3)):
    raise UserError(
      f"shape={text}: want height, width and channels, such as 32,32,3, or the length of a point"
    )
  return shape
