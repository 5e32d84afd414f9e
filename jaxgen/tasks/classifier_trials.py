"""A small classifier, trained again and again by the same programs.

Of configs/judge.py, as the classification accuracy score has it. Data are an array
of a fixed length of which the first `count` rows are meant, so that few and many
examples, real ones and samples are all trained on by what was compiled for the
first.
"""

import functools
from collections.abc import Callable

import jax
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
    data = jax.device_put((x[rows], np.asarray(y, np.int32)[rows], np.int32(count)), self.where)
    init, step, predict = self.programs
    k_init, k_rows, k_step = jax.random.split(jax.random.key(seed), 3)
    state = init(data, k_init)
    for i in range(self.settings.steps):
      state = step(state, data, jax.random.fold_in(k_rows, i), k_step)
    predicted = [np.asarray(sharding.fetch(predict(state, part))) for part in self.parts]
    return np.concatenate(predicted)[: len(self.y)] == self.y

  @functools.cached_property
  def where(self) -> jax.sharding.Sharding:
    """On all devices alike: batches are small."""
    return sharding.replicated(sharding.make_mesh())

  @functools.cached_property
  def programs(self) -> tuple[Callable, Callable, Callable]:
    """Jitted: (data, key) -> state; (state, data, key, key) -> state; (state, x) -> labels.

    Steps in a loop of the program's own would be ten times as slow on CPUs, where
    convolutions within loops have one thread.
    """
    experiment, c = self.experiment, self.settings
    model, profile = experiment.model, next(iter(c.ema))

    def init(data, key):
      x, y, _ = data
      return experiment.init({"x": x[: c.batch], "y": y[: c.batch]}, key)

    def step(state, data, k_rows, k_step):
      x, y, count = data
      rows = jax.random.randint(k_rows, (c.batch,), 0, count)
      return experiment.step((0,), state, {"x": x[rows], "y": y[rows]}, k_step)[0]

    def predict(state, x):
      return model.logits(state.averaged(profile), core.on_device({"x": x})).argmax(-1)

    jit = functools.partial(jax.jit, out_shardings=self.where)
    return jit(init), jit(step, donate_argnums=0), jit(predict)


def fitting(x: np.ndarray) -> np.ndarray:
  """Images as large as the classifier takes them: LARGEST pixels at the most."""
  return shrunk(x, LARGEST) if max(x.shape[1:3]) > LARGEST else x
