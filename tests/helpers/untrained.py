"""Models ready to sample whose weights nobody trained."""

import jax
import numpy as np
from games import filled

from jaxgen import config, core
from jaxgen.config import build
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.trained import sampling_state


def sampler_of(model, shape=(2,), classes=0, dtype="float32", card=None) -> Sampler:
  """Of a model, or of its specification, all of whose groups are there."""
  model = build(model) if isinstance(model, dict) else model
  batch = {"x": np.zeros((1, *shape), np.float32), "y": np.zeros(1, np.int32)}
  params, stats = jax.eval_shape(model.init, batch, jax.random.key(0))
  state = filled(core.State(0, params, stats, {}, {}, None))
  state = sampling_state(0, state.params, state.stats)
  return Sampler(model, state, shape, np.dtype(dtype), classes, card or {"workdir": "W", "step": 0})


def digits(name: str, **net) -> Sampler:
  """Of a config's model of 8x8 digits, some fields of whose net are others."""
  c = config.load(name)
  if net:
    c.model.net.update(net)
  return sampler_of(config.build(c.model), (8, 8, 1), c.data.classes, "uint8")
