"""Priors of codes of other people's files, and ours for them; see `workdir`.

Of two levels, each of which is a file.
"""

import pathlib
from typing import Any

from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.checkpoint import pretrained
from jaxgen.convert.initial_state import DataSpec, ForeignFile, Imported, Weights, height_of
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import names, tensor_files
from jaxgen.interop.names import Entry
from jaxgen.interop.pixelsnail_names import PLACES, PRIORS, pixelsnail_entries, places
from jaxgen.interop.tensors import Tensor, lazy
from jaxgen.models.vqvae import LEVELS
from jaxgen.sampling import trained as sampling_trained

EXAMPLE = "models.latent.Latent of a models.hierarchy.Hierarchy, as configs/vqvae2_prior.py:ffhq"


def open_file(file: ForeignFile, config: ConfigDict | None) -> Imported:
  """Reads the checkpoints of both levels; the codec is that of its workdir."""
  if file.disc:
    raise UserError("--disc is a GAN's: a prior has --bottom")
  if config is None:
    raise UserError(f"import from {file.source} needs a --config, of a {EXAMPLE}")
  check_net(config, file.source)
  if not file.bottom:
    raise UserError("a prior has a file for each level: --checkpoint=top.pt and --bottom=bottom.pt")
  experiment, data = Experiment.of(config), config.data
  height = height_of(config, file.size)
  channels = data.channels or core.trait(experiment.model.codec.net, "channels")
  spec = DataSpec(data.source, (height, height, channels), data.classes)
  abstract = experiment.abstract(spec, sharding.make_mesh())
  tables = {level: pixelsnail_entries(abstract.params[level]) for level in LEVELS}
  params, stats = pretrained.read(experiment.model, spec)
  before, total = 0, sum(map(len, tables.values()))
  for level, path in zip(LEVELS, (file.path, file.bottom), strict=True):
    shape = experiment.model.model.at(level).net.shape
    tensors = tensors_of(path, file.key, tables[level], shape)
    count = lambda i, _, before=before: file.progress(before + i, total)
    params[level] = names.fill(tables[level], tensors, count)
    before += len(tables[level])
  return Imported(experiment, spec, abstract, Weights(params, stats))


def tensors_of(
  path: str, key: str | None, table: list[Entry], shape: tuple[int, int]
) -> dict[str, Tensor]:
  """The weights in a level's file; UserError, with its name, if some do not fit."""
  tensors, file = tensor_files.read(path, key), pathlib.Path(path).name
  theirs, ours = tensors.pop(PLACES, None), places(shape)
  try:
    names.check_table(table, tensors)
  except UserError as e:
    raise UserError(f"{file}: {e}") from e
  if theirs is not None and tuple(theirs.shape) != ours.shape:
    raise UserError(
      f"{file}: {PLACES} is {list(theirs.shape)} in the file and {list(ours.shape)} for the "
      "config's map of codes"
    )
  return tensors


def is_prior(config: ConfigDict) -> bool:
  """Whether a config's model is one of theirs, over a codec."""
  return config.model.get("model", {}).get("name") in PRIORS.values()


def check_net(config: ConfigDict, source: str) -> None:
  """UserError if the source has no such models."""
  name = config.model.get("model", config.model).name
  if not is_prior(config):
    raise UserError(f"{source} has no checkpoints of {name}: want a {EXAMPLE}")
  if PRIORS.get(source) != name:
    fit = " or ".join(k for k, prior in PRIORS.items() if prior == name)
    raise UserError(f"{source} has no checkpoints of {name}: try {fit}")
  if labels := config.model.model.top.get("classes", 0):
    raise UserError(
      f"{source} knows no labels, and config.model.model.top.classes={labels}: want a config "
      "without, such as configs/vqvae2_prior.py:ffhq"
    )


def tensors(
  workdir: str, source: str, config: ConfigDict, ema: str | None, step: int | None
) -> tuple[sampling_trained.Trained, dict[str, Any]]:
  """A workdir's prior, and its tensors by level as the source names them."""
  check_net(config, source)
  trained, levels = sampling_trained.load_trained(workdir, ema, step), {}
  for level in LEVELS:
    net = trained.params[level]
    background = lazy(places(trained.model.model.at(level).net.shape))
    levels[level] = {PLACES: background} | names.spell(pixelsnail_entries(net), net)
  return trained, levels
