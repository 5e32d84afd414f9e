"""Numbers of reference codes, and weights by the rule of golden/README.md."""

import pathlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def draws(seed, state_dict):
  """(name, normal numbers, whether the case lists it as a buffer) of each tensor."""
  for i, (name, shape, *buffer) in enumerate(state_dict):
    rng = np.random.Generator(np.random.PCG64([seed, i]))
    yield name, rng.standard_normal(shape).astype(np.float32), bool(buffer)


def scaled(z):
  """By the root of the fan-in: outputs are as large as inputs."""
  return z / np.float32(np.sqrt(np.prod(z.shape[1:])))


def near(ours, theirs, tolerance=1e-5):
  """Within a share of the largest value."""
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  assert ours.shape == theirs.shape
  assert np.abs(ours - theirs).max() < tolerance * np.abs(theirs).max()
