"""A vocoder of random weights, on disk, and a song to feed it."""

import numpy as np
import soundfile
from games import filled

from jaxgen import config, sharding
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.experiment import Experiment, describe, open_data

RATE = 8000


def song(n, seed=0):
  """A voice that glides and pulses, with a little noise: int16 [n] at RATE."""
  t = np.arange(n) / RATE
  wave = 0.4 * np.sin(2 * np.pi * (200 + 300 * t) * t) * np.sin(40 * t) ** 2
  return np.int16(2**15 * (wave + 0.01 * np.random.default_rng(seed).normal(size=n)))


def vocoder(top, splits=("",)):
  """A workdir in `top`, of two steps, beside three recordings of each split."""
  for split in splits:
    (top / "data" / split).mkdir(parents=True)
    for i in range(3):
      soundfile.write(top / "data" / split / f"{i}.wav", song(2000, i), RATE)
  c = config.load("configs/diffwave.py:digits-vocoder")
  with c.unlocked():
    c.data.update(source=f"folder:{top / 'data'}", size=1024)
    c.model.net.update(width=8, layers=2, cycle=2)
    c.model.steps = 2
  source = open_data(c)
  state = filled(Experiment.of(c).abstract(source, sharding.make_mesh()))
  with Checkpoints(str(top / "w"), every=1, keep=3) as checkpoints:
    checkpoints.save(0, state, describe(c, source), force=True)
  return top / "w"
