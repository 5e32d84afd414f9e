"""Diffusion transformers of other people's files, and ours for them; see `workdir`."""

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen import sharding
from jaxgen.checkpoint import pretrained
from jaxgen.convert.initial_state import (
  DataSpec,
  ForeignFile,
  Imported,
  Weights,
  height_of,
  seen_shape,
  stored_dtype,
)
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import dit_diffusers, dit_names, names, tensor_files
from jaxgen.interop.dit_names import TRANSFORMERS
from jaxgen.interop.tensors import Tensor, lazy
from jaxgen.nets.dit import sin_cos
from jaxgen.sampling import trained as sampling_trained

DIFFUSERS = "diffusers"  # has the same nets by other names
AVERAGE = "ema"  # of what training saves, the set that is sampled from


def open_file(file: ForeignFile, config: ConfigDict | None) -> Imported:
  """Reads a checkpoint; of a training's, the averaged weights."""
  if file.disc:
    raise UserError("--disc is a GAN's, and wants its --config")
  if config is None:
    raise UserError(
      f"import from {file.source} needs a --config, such as configs/{file.source}.py:XL-2"
    )
  check_net(config, file.source)
  sets = tensor_files.sets(file.path)
  key = file.key or (AVERAGE if AVERAGE in sets else None)
  tensors = tensor_files.select(pathlib.Path(file.path), sets, key)
  if file.source == DIFFUSERS:
    tensors = dit_diffusers.published(tensors)
  places, tensors = dit_names.places(tensors)
  if "codec" in config.model and not config.model.get("codec_workdir"):
    file.log(
      "samples will be latents; images with --config.model.codec_workdir=W, of its autoencoder"
    )
    config = without_codec(config)
  experiment = Experiment.of(config)
  data = data_spec(experiment, tensors, file.size)
  check_places(places, fixed_places(config, seen_shape(experiment, data)[0]))
  abstract = experiment.abstract(data, sharding.make_mesh())
  net = names.fill(dit_names.entries(abstract.params["net"]), tensors, file.progress)
  params, stats = pretrained.read(experiment.model, data)
  return Imported(experiment, data, abstract, Weights(params | {"net": net}, stats))


def without_codec(config: ConfigDict) -> ConfigDict:
  """The config of the model of latents alone, whose x are latents."""
  experiment = Experiment.of(config)
  size, *_ = seen_shape(experiment, data_spec(experiment, {}, 0))
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.model = config.model.model
    config.data.update(size=size, channels=0, flip=False)
    config.log.pictures = 0  # latents are none
  return config


def is_transformer(config: ConfigDict) -> bool:
  """Whether a config's net is one of theirs."""
  return model_of_net(config).get("net", {}).get("name") in TRANSFORMERS.values()


def check_net(config: ConfigDict, source: str) -> None:
  """UserError if the source has no such nets."""
  model, known = model_of_net(config), TRANSFORMERS | {DIFFUSERS: TRANSFORMERS["dit"]}
  net = model.get("net", {}).get("name", model.name)
  if net != known.get(source):
    fit = [k for k, name in known.items() if name == net]
    raise UserError(
      f"{source} has no checkpoints of {net}" + (f": try {' or '.join(fit)}" if fit else "")
    )


def data_spec(experiment: Experiment, tensors: dict[str, Tensor], size: int) -> DataSpec:
  """Shape of the data, none of which needs to be there."""
  c = experiment.config.data
  size = height_of(experiment.config, size)
  first = tensors.get(dit_names.FIRST)
  channels = c.channels or (first.shape[1] if first and len(first.shape) == 4 else 3)
  shape = (size, size, channels)
  return DataSpec(c.source, shape, c.classes, stored_dtype(experiment.config, shape))


def model_of_net(config: ConfigDict) -> ConfigDict:
  """The part of a config that has the net: of a model of latents, what learns them."""
  return config.model.get("model", config.model)


def fixed_places(config: ConfigDict, size: int) -> np.ndarray:
  """What their files hold of places, [1, T, D]."""
  net = model_of_net(config).net
  return sin_cos((size // net.patch,) * 2, net.width).reshape(1, -1, net.width)


def check_places(theirs: Tensor | None, ours: np.ndarray) -> None:
  """UserError for a file whose places are not the fixed ones that our net has."""
  if theirs is None:
    return
  if tuple(theirs.shape) != ours.shape:
    raise UserError(
      f"file and config do not match: {dit_names.PLACES} is {list(theirs.shape)} in the file and "
      f"{list(ours.shape)} for the config's size, patch and width"
    )
  if np.abs(names.floats(dit_names.PLACES, theirs.read()) - ours).max() > 1e-5:
    raise UserError(
      f"the file's {dit_names.PLACES} is not the sines and cosines that our net adds: "
      "they were trained, and cannot be taken along"
    )


def tensors(
  workdir: str, source: str, config: ConfigDict, ema: str | None, step: int | None
) -> tuple[sampling_trained.Trained, dict[str, Any]]:
  """A workdir's network, and its tensors as the source names them."""
  check_net(config, source)
  trained = sampling_trained.load_trained(workdir, ema, step)
  net = trained.params["net"]
  data = DataSpec(trained.data["name"], tuple(trained.data["shape"]), trained.data["classes"])
  places = lazy(fixed_places(config, seen_shape(Experiment.of(config), data)[0]))
  tensors = {dit_names.PLACES: places} | names.spell(dit_names.entries(net), net)
  return trained, dit_diffusers.renamed(tensors) if source == DIFFUSERS else tensors
