"""EDM2's pickles; see `workdir`. They are read, and never written.

A snapshot holds one average of the weights, of one width: all averages of the
workdir begin with it, and so do the weights.
"""

from typing import NoReturn

from ml_collections import ConfigDict

from jaxgen import sharding
from jaxgen.checkpoint import pretrained
from jaxgen.convert.dit_workdir import model_of_net, without_codec
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
from jaxgen.interop import edm2_names, names, tensor_files

SOURCE = "edm2"
FILES = {SOURCE: edm2_names.NET}


def open_file(file: ForeignFile, config: ConfigDict | None) -> Imported:
  """Reads a snapshot's network, and its Fourier features."""
  if file.disc:
    raise UserError("--disc is a GAN's, and wants its --config")
  if config is None:
    raise UserError(f"import from {SOURCE} needs a --config, such as configs/edm2.py:img512-xs")
  check_net(config, file.source)
  tensors = tensor_files.read(file.path, file.key)
  if "codec" in config.model and not config.model.get("codec_workdir"):
    file.log(
      "samples will be latents; images with --config.model.codec_workdir=W, of its autoencoder"
    )
    config = without_codec(config)
  experiment = Experiment.of(config)
  size, c = height_of(config, file.size), config.data
  first = tensors.get(f"unet.enc.{size}x{size}_conv.weight")
  channels = c.channels or (first.shape[1] - 1 if first and len(first.shape) == 4 else 3)
  shape = (size, size, channels)
  data = DataSpec(c.source, shape, c.classes, stored_dtype(config, shape))
  abstract = experiment.abstract(data, sharding.make_mesh())
  tree = {"params": abstract.params["net"]} | abstract.stats["net"]
  table = edm2_names.entries(tree, seen_shape(experiment, data)[0])
  net = names.fill(table, tensors, file.progress)
  params, stats = pretrained.read(experiment.model, data)
  params |= {"net": net.pop("params")}
  return Imported(experiment, data, abstract, Weights(params, stats | {"net": net}))


def is_edm2(config: ConfigDict) -> bool:
  """Whether a config's net is theirs."""
  return model_of_net(config).get("net", {}).get("name") == edm2_names.NET


def check_net(config: ConfigDict, source: str) -> None:
  """UserError if the source has no such nets."""
  model = model_of_net(config)
  net = model.get("net", {})
  if source != SOURCE or not is_edm2(config):
    raise UserError(
      f"{source} has no checkpoints of {net.get('name', model.name)}"
      + (f": try {SOURCE}" if is_edm2(config) else "")
    )
  if net.get("patch", 1) > 1:
    raise UserError(f"{SOURCE} has no networks of patches: config.model.net.patch is {net.patch}")


def tensors(
  workdir: str, source: str, config: ConfigDict, ema: str | None, step: int | None
) -> NoReturn:
  """UserError: nothing is exported."""
  check_net(config, source)
  raise UserError(f"{SOURCE} keeps its code in its files: none are written")
