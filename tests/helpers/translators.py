"""Reference weights of translators, as `golden/README.md` says."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from games import filled
from golden import GOLDEN, draws, scaled

from jaxgen import config, core, sharding
from jaxgen.convert.workdir import save_first
from jaxgen.experiment import Experiment, describe, open_data
from jaxgen.interop import names, translator_names


def opened(name):
  """A golden file, and its manifest."""
  d = np.load(GOLDEN / f"{name}.npz")
  return d, json.loads(str(d["manifest"]))


def nhwc(x):
  return jnp.asarray(np.moveaxis(x, 1, -1))


def nchw(x):
  return np.moveaxis(np.asarray(x), -1, 1)


def tensors(seed, state_dict):
  """{name: values} of a net, without counters."""
  values = {}
  for name, z, counter in draws(seed, state_dict):
    if counter:
      continue
    if name.endswith("running_var"):
      values[name] = np.exp(0.2 * z)
    elif z.ndim > 1:
      values[name] = scaled(z)
    else:
      values[name] = 1 + 0.1 * z if name.endswith(".weight") else 0.1 * z
  return values


def gen_weights(variables, seed, state_dict, averages=False):
  """Collections of a generator, whose shapes are `variables`."""
  values = translator_names.incoming(tensors(seed, state_dict), averages)
  return names.fill(translator_names.gen_entries(variables), values)


def disc_weights(params, seed, state_dict):
  """Parameters of a discriminator."""
  values = translator_names.incoming(tensors(seed, state_dict), False)
  return names.fill(translator_names.disc_entries(params), values)


def state_of(params, stats):
  """A state of weights alone."""
  return core.State(jnp.int32(0), params, stats, {}, {}, jnp.zeros(2, jnp.int32))


def shapes(model, batch):
  """Of params and stats."""
  return jax.eval_shape(model.init, batch, jax.random.key(0))


def workdir(path, name, seed=0, **changes):
  """Step 0 of a config's debug form at 8 pixels, whose weights are made up."""
  c = config.load(f"configs/{name}.py:debug").unlock()
  c.data.size, c.data.flip, c.seed = 8, False, seed
  for key, value in changes.items():  # `update` would mix nets
    c.model[key] = value
  experiment, source = Experiment.of(c), open_data(c)
  state = filled(experiment.abstract(source, sharding.make_mesh(c.mesh)))
  save_first(str(path), state, describe(c, source), c.checkpoint, print)
  return path


UNET = dict(name="nets.pix2pix_unet.TranslatorUNet", width=2, downs=2, norm="batch")
DISC = dict(name="nets.patchgan.PixelGAN", width=2)
RESNET = dict(
  name="nets.resnet_translator.TranslatorResNet", width=2, blocks=1, downs=1, channels=1
)
