"""Networks of other people's files, and ours for them; see `workdir`."""

from typing import Any

from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.convert import published
from jaxgen.convert.initial_state import DataSpec, ForeignFile, Imported, Weights, height_of
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import diffusers, edm, names, tensor_files
from jaxgen.interop.gans import GANS
from jaxgen.interop.tensors import Tensor, lazy
from jaxgen.interop.unet_names import SOURCES, Block, sr3_buffers
from jaxgen.sampling import trained as sampling_trained

HEAD, FIRST = Block("head", "conv", ""), Block("in", "0", "")


def open_file(file: ForeignFile, config: ConfigDict | None) -> Imported:
  """Reads a checkpoint of one network; without a config the file must do."""
  if file.disc:
    raise UserError("--disc is a GAN's, and wants its --config")
  tensors, source = tensor_files.read(file.path, file.key), file.source
  if config is None:
    config = published.usual(tensors, source, file.size, file.facts, file.log)
  elif source == "adm":
    published.compare(tensors, config, file.log)
  experiment = Experiment.of(config)
  if source == "nvlabs":  # EDM's: ADM's network by other names
    edm.check(config.model.get("net", {}))
    tensors, source = edm.as_adm(tensors), "adm"
  check_net(config, source, file.path)
  data = data_spec(experiment, tensors, source, file.size)
  abstract = experiment.abstract(data, sharding.make_mesh())
  if "teacher" in abstract.params:
    raise UserError(
      "that file holds no teacher, which this config's model keeps: import it by a config of "
      "training without one, such as configs/consistency.py:ct_imagenet64, and sample it with "
      "--respacing=0,22/40"
    )
  weights = names.take(tensors, abstract.params["net"], source, file.progress)
  return Imported(experiment, data, abstract, Weights({"net": weights}))


def check_net(config: ConfigDict, source: str, checkpoint: str | None = None) -> None:
  """UserError if weights of the source would mean something else to our net."""
  net = config.model.get("net", {})
  if source not in SOURCES:
    kind = "GANs" if source in GANS else "codecs"
    raise UserError(f"{source} has checkpoints of {kind}; the config is of {config.model.name}")
  if net.get("patch", 1) > 1:
    raise UserError(f"{source} has no networks of patches: config.model.net.patch is {net.patch}")
  one = net.get("heads") == 1 and net.get("heads_up") in (None, 1)
  if source == "sr3" and not one:
    raise UserError("sr3's attention has one head: set heads=1 in config.model.net")
  if source == "consistency" and net.get("attend") and not net.get("split_first"):
    raise UserError(
      "the attention of consistency models has q, k and v in the newer order: set split_first=True "
      "in config.model.net"
    )
  if source != "diffusers":
    return
  if not net.get("split_first") and not one:
    raise UserError(
      "diffusers has q, k and v apart: set heads=1 or split_first=True in config.model.net"
    )
  if checkpoint and (facts := diffusers.facts(checkpoint)):
    diffusers.check(facts, net)


def data_spec(
  experiment: Experiment, tensors: dict[str, Tensor], source: str, size: int
) -> DataSpec:
  """Shape of the data, none of which needs to be there."""
  c = experiment.config.data
  size = height_of(experiment.config, size)
  places = SOURCES[source].places([HEAD, FIRST])
  head, first = f"{places[HEAD]}.bias", f"{places[FIRST]}.weight"
  channels = 3
  if head in tensors:
    learned = core.trait(experiment.model.net, "learned")
    channels = tensors[head].shape[0] // (1 + learned)
  elif first in tensors:  # a classifier
    channels = tensors[first].shape[1]
  if c.channels not in (0, channels):
    raise UserError(
      f"the file is of images with {channels} channels, but config.data.channels={c.channels}"
    )
  return DataSpec(c.source, (size, size, channels), c.classes)


def tensors(
  workdir: str, source: str, config: ConfigDict, ema: str | None, step: int | None
) -> tuple[sampling_trained.Trained, dict[str, Any]]:
  """A workdir's network, and its tensors as the source names them."""
  check_net(config, source)
  trained = sampling_trained.load_trained(workdir, ema, step)
  tensors = names.give(trained.params["net"], source)
  betas = core.trait(core.trait(trained.model, "process"), "betas")
  if source == "sr3" and betas is not None:  # its code wants them
    tensors |= {k: lazy(v) for k, v in sr3_buffers(betas).items()}
  return trained, tensors
