"""Codecs of other people's files, and ours for them; see `workdir`."""

import os
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.checkpoint import pretrained
from jaxgen.convert.initial_state import DataSpec, ForeignFile, Imported, Weights, height_of
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import names, tensor_files
from jaxgen.interop.autoencoder_names import CODECS, disc_entries, discriminator
from jaxgen.interop.tensors import Tensor
from jaxgen.nets.patchgan import PatchGAN
from jaxgen.sampling import trained as sampling_trained


def open_file(file: ForeignFile, config: ConfigDict) -> Imported:
  """Reads a checkpoint of a codec, with its discriminator if that is there."""
  if file.disc:
    raise UserError("--disc is a GAN's: a codec's discriminator is in its own file")
  check_source(config, file.source)
  how, data = CODECS[file.source], config.data
  height = height_of(config, file.size)
  without_perceptual(config, file)
  experiment = Experiment.of(config)
  net = core.trait(experiment.model, "net")
  spec = DataSpec(data.source, (height, height, core.trait(net, "channels")), data.classes)
  abstract = experiment.abstract(spec, sharding.make_mesh())
  stored = tensor_files.read(file.path, file.key)
  tensors = how.incoming(stored)
  group = names.fill(how.entries(group_of(abstract)), tensors, file.progress)
  params = {"net": group.pop("params")} | pretrained.read(experiment.model)[0]
  if core.trait(experiment.model, "disc"):
    params |= read_disc(experiment.model.disc, abstract.params["disc"], stored, file)
  return Imported(experiment, spec, abstract, Weights(params, {"net": group} if group else {}))


def read_disc(
  disc: Any, shapes: core.Groups, stored: Mapping[str, Tensor], file: ForeignFile
) -> core.Groups:
  """{"disc": weights}, or {} where the file has none of the config's shape."""
  tensors = discriminator(stored)
  table = disc_entries(shapes) if tensors and isinstance(disc, PatchGAN) else []
  own = {name: tuple(t.shape) for name, t in tensors.items()}
  if own and own == {e.theirs[0]: e.layout for e in table}:
    return {"disc": names.fill(table, tensors)}
  why = ", for that of the file is not the config's" if own else ""
  file.log(f"the discriminator begins at random{why}")
  return {}


def without_perceptual(config: ConfigDict, file: ForeignFile) -> None:
  """Leaves LPIPS out of a config where there are no files of it."""
  if (config.model.get("perceptual") or {}).get("name") == "nets.lpips.LPIPS" and not any(
    map(os.environ.get, pretrained.VARIABLES)
  ):
    with config.unlocked():
      del config.model.perceptual
    variables = " and ".join(f"${name}" for name in pretrained.VARIABLES)
    file.log(f"without LPIPS, for {variables} name no files: training would see pixels alone")


def check_source(config: ConfigDict, source: str) -> None:
  """UserError if the source has no such codecs."""
  name = config.model.name
  if source not in CODECS or CODECS[source].model != name:
    fit = " or ".join(k for k, how in CODECS.items() if how.model == name)
    raise UserError(f"{source} has no checkpoints of {name}: try {fit}")


def group_of(state: core.State) -> dict[str, Any]:
  """The net's {"params": .., "codes": ..}."""
  return {"params": state.params["net"]} | state.stats.get("net", {})


def tensors(
  workdir: str, source: str, config: ConfigDict, ema: str | None, step: int | None
) -> tuple[sampling_trained.Trained, dict[str, Tensor]]:
  """A workdir's codec, and its tensors as the source names them."""
  check_source(config, source)
  trained = sampling_trained.load_trained(workdir, ema, step)
  group = {"params": trained.params["net"]} | trained.stats.get("net", {})
  return trained, names.spell(CODECS[source].entries(group), group)
