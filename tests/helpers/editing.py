"""Small diffusion models with random weights, and images to edit by them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion import precond, process, samplers, times
from jaxgen.models.diffusion import Diffusion
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.trained import sampling_state

SHAPE = (8, 8, 3)


class Net(nn.Module):
  """A net of two convolutions that looks at noise and label."""

  classes: int = 0

  @nn.compact
  def __call__(self, x, c_noise, y=None, key=None):
    h = nn.Conv(8, (3, 3))(x) + 0.1 * c_noise[:, None, None, None]
    if self.classes:
      h += nn.Embed(self.classes + 1, 8)(y)[:, None, None]
    return nn.Conv(x.shape[-1], (3, 3))(jnp.tanh(h))


@functools.cache
def game(classes=0, label_drop=0.1, steps=5, sampler=samplers.ancestral):
  edm = functools.partial(precond.edm, sigma_data=0.5)
  path = functools.partial(times.karras, lo=0.02, hi=10.0)
  return Diffusion(
    Net(classes), process.EDM(), edm, times.lognormal, path, sampler, steps, classes=classes,
    label_drop=label_drop, bound=1.0,
  )  # fmt: skip


def loaded(model, classes=0, shape=SHAPE):
  """A model with random weights, as `load` gives it."""
  batch = {"x": jnp.zeros((2, *shape))} | ({"y": jnp.zeros(2, jnp.int32)} if classes else {})
  state = sampling_state(1, *model.init(batch, jax.random.key(0)))
  card = {"workdir": "W", "step": 1, "dataset": "noise"}
  return Sampler(model, state, shape, np.dtype(np.uint8), classes, card)


@functools.cache
def sampler(classes=0, **kw):
  return loaded(game(classes, **kw), classes)


def images(n=4, seed=0, shape=SHAPE):
  return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)
