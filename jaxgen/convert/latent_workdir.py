"""Latent diffusion of other people's files, and ours for them; see `workdir`.

One file of CompVis' holds the codec, the U-Net, its averages and the schedule;
of ours it is one workdir, which looks for no other.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.convert.initial_state import DataSpec, ForeignFile, Imported, Weights, height_of
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import ldm_names, names, tensor_files
from jaxgen.interop.pickles import plain
from jaxgen.interop.tensors import Tensor, lazy
from jaxgen.interop.unet_names import sr3_buffers
from jaxgen.sampling import trained as sampling_trained

LATENT, SOURCE, SET = "models.latent.Latent", "ldm", "state_dict"
DECAY = np.float32(0.9999)  # of their averages, as we export them


def open_file(file: ForeignFile, config: ConfigDict) -> Imported:
  """Reads a checkpoint of a whole model: codec and U-Net, and its averages."""
  if file.disc:
    raise UserError("--disc is a GAN's: a codec's discriminator is not read")
  check_model(config, file.source)
  size = height_of(config, file.size)
  tensors = tensor_files.read(file.path, file.key)
  set_scale(config, tensors, file)
  experiment = Experiment.of(config)
  check_schedule(experiment.model, tensors)
  c, codec = config.data, experiment.model.codec
  spec = DataSpec(c.source, (size, size, core.trait(codec.net, "channels")), c.classes)
  abstract = experiment.abstract(spec, sharding.make_mesh())
  has_averages = any(name.startswith(ldm_names.EMA) for name in tensors)
  table = ldm_names.entries(tree_of(abstract.params, has_averages))
  aside = {ldm_names.SCALE, *buffers(experiment.model)}
  wanted = {k: t for k, t in tensors.items() if k not in aside and not ldm_names.UNREAD.match(k)}
  list_unread(tensors.keys() - wanted.keys() - aside, file)
  tree = {"ema": {}} | names.fill(table, wanted, file.progress)
  params = {"net": tree["net"], "codec": {"net": tree["codec"]["params"]}}
  # What is no part of their averages is in ours as it was trained last.
  ema = {"net": names.nested(names.flat(params["net"]) | names.flat(tree["ema"]))}
  return Imported(experiment, spec, abstract, Weights(params, ema=ema if has_averages else {}))


def check_model(config: ConfigDict, source: str) -> None:
  """UserError if the source has no such models."""
  c = config.model
  if source != SOURCE:
    raise UserError(f"{source} has no checkpoints of {c.name}: try {SOURCE}")
  if c.get("mean") or isinstance(c.get("scale"), tuple):
    raise UserError(f"{source} has one scale for all channels: leave config.model.mean, and tuples")
  for part, own, want in (
    ("codec", c.codec, "models.codec.Autoencoder"),
    ("model.net", c.model.get("net", {}), "nets.unet.UNet"),
  ):
    if own.get("name") != want:
      raise UserError(f"{source} has no checkpoints of {c.name} but where its {part} is a {want}")


def set_scale(config: ConfigDict, tensors: Mapping[str, Tensor], file: ForeignFile) -> None:
  """Takes the scale of latents from a file that has it."""
  if ldm_names.SCALE not in tensors:
    if config.model.get("scale") is None:
      raise UserError(
        f"the file has no {ldm_names.SCALE}, and the config measures it: give "
        "--config.model.scale=1, or what the model was trained with"
      )
    return
  (scale,) = np.ravel(names.floats(ldm_names.SCALE, tensors[ldm_names.SCALE].read()))
  file.log(f"latents are scaled by {scale}, as in the file")
  with config.unlocked():
    config.model.scale = float(scale)


def buffers(model: core.Model) -> dict[str, np.ndarray]:
  """What their files hold of the schedule, float32."""
  betas = core.trait(core.trait(model.model, "process"), "betas")
  if betas is None:
    raise UserError(f"{SOURCE} has no checkpoints of models in continuous time: they have no betas")
  return sr3_buffers(betas)


def check_schedule(model: core.Model, tensors: Mapping[str, Tensor]) -> None:
  """UserError for a file of another schedule."""
  if (theirs := tensors.get("betas")) is None:
    return
  ours, theirs = buffers(model)["betas"], names.floats("betas", theirs.read())
  if ours.shape != theirs.shape or np.abs(ours - theirs).max() > 1e-6:
    ends = [f"{len(b)} from {b[0]:.6g} to {b[-1]:.6g}" for b in (theirs, ours)]
    raise UserError(
      f"the file's betas are {ends[0]}, the config's {ends[1]}: adapt config.model.model.process"
    )


def tree_of(params: core.Groups, has_averages: bool) -> dict[str, Any]:
  """As `ldm_names.entries` wants it."""
  net = params["net"]
  tree = {"net": net, "codec": {"params": params["codec"]["net"]}}
  return tree | ({"ema": net} if has_averages else {})


def list_unread(unread: set[str], file: ForeignFile) -> None:
  """A line of what is in the file and not in a workdir."""
  own = sorted(map(plain, unread))
  if own:
    more = f", .. ({len(own)} in all)" if len(own) > names.SHOWN else ""
    file.log(f"not read: {', '.join(own[: names.SHOWN])}{more}")


def tensors(
  workdir: str, source: str, config: ConfigDict, ema: str | None, step: int | None
) -> tuple[sampling_trained.Trained, dict[str, Any]]:
  """A workdir's model, and its tensors as the source names them.

  The U-Net as it was trained last and, where they are not the same, its averages.
  """
  check_model(config, source)
  average = sampling_trained.load_trained(workdir, ema, step)
  last = sampling_trained.load_trained(workdir, "none", average.step)
  net, averaged = last.params["net"], average.params["net"]
  pairs = zip(*(names.flat(tree).values() for tree in (net, averaged)), strict=True)
  apart = any(not np.array_equal(a, b) for a, b in pairs)
  tree = tree_of(last.params, apart)
  named = names.spell(ldm_names.entries(tree), tree | ({"ema": averaged} if apart else {}))
  facts = buffers(last.model)
  if apart:
    facts |= {ldm_names.DECAY: DECAY, ldm_names.UPDATES: np.int32(last.step)}
  state = sampling_trained.sampling_state(last.step, last.params, last.stats)
  scale = np.float32(last.model.factor(state))
  if scale != 1:
    facts[ldm_names.SCALE] = scale
  return average, named | {k: lazy(np.asarray(v)) for k, v in facts.items()}


def packed(tensors: dict[str, Tensor], out: str) -> dict[str, Any]:
  """As their code wants a file: a set of its own, where a file may hold several."""
  alone = tensor_files.kind_of(pathlib.Path(out)) == "safetensors"
  return tensors if alone else {SET: tensors}
