"""A small classifier, trained again and again by one program.

Of configs/judge.py, as the classification accuracy score has it. Data are an array
of a fixed length of which the first `count` rows are meant, so that few and many
examples, real ones and samples are all trained on by the program that was compiled
for the first.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.evaluation.features import shrunk
from jaxgen.evaluation.learned import LARGEST
from jaxgen.experiment import Experiment

PART = 256  # test images at a time


class Trials:
  """Trains and tests one classifier after the other.

  Args:
    settings: Of the classifier: its model, optimiser, averages, steps and batch.
    capacity: The most examples that any training has.
    test: Images uint8 [N, H, W, C] and labels [N].
  """

  def __init__(self, settings: ConfigDict, capacity: int, test: tuple[np.ndarray, np.ndarray]):
    self.settings, self.capacity = settings, capacity
    self.experiment = Experiment.of(settings)
    x, self.y = fitting(test[0]), np.asarray(test[1], np.int32)
    padded = np.concatenate([x, np.zeros((-len(x) % PART, *x.shape[1:]), x.dtype)])
    self.parts = padded.reshape(-1, PART, *x.shape[1:])

  def __call__(self, x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Trains on examples -> whether it is right about each test image, bool [N].

    Every training has as many steps of as many examples, drawn with replacement,
    however many there are.

    Args:
      x: uint8 [n, H, W, C], at most `capacity`.
      y: Labels [n].
      seed: Of the weights and of the draws.
    """
    count, x = len(x), fitting(x)
    rows = np.arange(self.capacity) % count
    predicted = self.program(
      x[rows], np.asarray(y, np.int32)[rows], jnp.int32(count), jax.random.key(seed), self.parts
    )
    return np.asarray(sharding.fetch(predicted)).reshape(-1)[: len(self.y)] == self.y

  @functools.cached_property
  def program(self) -> Any:
    """The one jitted function: data, their number, a key, test images -> labels."""
    experiment, c = self.experiment, self.settings
    model, profile = experiment.model, next(iter(c.ema))
    everywhere = sharding.replicated(sharding.make_mesh())

    def run(x, y, count, key, parts):
      k_init, k_rows, k_step = jax.random.split(key, 3)

      def step(i, state):
        rows = jax.random.randint(jax.random.fold_in(k_rows, i), (c.batch,), 0, count)
        return experiment.step((0,), state, {"x": x[rows], "y": y[rows]}, k_step)[0]

      state = experiment.init({"x": x[: c.batch], "y": y[: c.batch]}, k_init)
      state = jax.lax.fori_loop(0, c.steps, step, state).averaged(profile)
      logits = lambda part: model.logits(state, core.on_device({"x": part})).argmax(-1)
      return jax.lax.map(logits, parts)

    return jax.jit(run, in_shardings=everywhere, out_shardings=everywhere)


def fitting(x: np.ndarray) -> np.ndarray:
  """Images as large as the classifier takes them: LARGEST pixels at the most."""
  return shrunk(x, LARGEST) if max(x.shape[1:3]) > LARGEST else x
