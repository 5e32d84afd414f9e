"""Other people's weights into a workdir of ours, and ours out of it."""

import datetime
import functools
import pathlib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from jaxgen import config as configs
from jaxgen import core, sharding
from jaxgen.checkpoint import disk, lock, step_folder
from jaxgen.checkpoint.meta import latest, settings
from jaxgen.convert import gan_workdir, published
from jaxgen.convert.initial_state import DataSpec, Weights, initial_state
from jaxgen.convert.published import NOTHING, Facts
from jaxgen.errors import UserError, nearest
from jaxgen.experiment import Experiment, describe
from jaxgen.interop import diffusers, edm, names, tensor_files
from jaxgen.interop.gans import GANS
from jaxgen.interop.tensors import Tensor, lazy
from jaxgen.interop.unet_names import SOURCES, Block, sr3_buffers
from jaxgen.sampling import trained as sampling_trained

Tensors = dict[str, Tensor]
HEAD, FIRST = Block("head", "conv", ""), Block("in", "0", "")


def import_weights(
  checkpoint: str,
  workdir: str,
  source: str,
  config: ConfigDict | None = None,
  *,
  key: str | None = None,
  size: int = 0,
  licence: str = "",
  disc: str | None = None,
  facts: Facts = NOTHING,
  seen: Callable[[int, int], None] = lambda n, total: None,
  say: Callable[[str], None] = lambda line: None,
) -> None:
  """Makes step 0 of a workdir of somebody's checkpoint.

  The weights and all their averages are those of the file; the optimiser has
  not begun. From then on it is a workdir like any other.

  Args:
    checkpoint: The file.
    workdir: Holds no checkpoints yet.
    source: A key of SOURCES or GANS.
    config: Of the experiment; None: what the file tells, and what is usual.
    key: See interop.tensor_files.read; of GANs all sets are taken.
    size: Height of the images, where the config does not say.
    licence: A note that stays with the weights.
    disc: The file of a GAN's discriminator, where it is another.
    facts: What files of U-Nets do not tell.
    seen: Told how many weights were read, of how many.
    say: Gets a line on what was assumed.
  """
  check_source(source)
  check_new(workdir)
  if config is not None:
    configs.check_single(config, "import")
    config = config.copy_and_resolve_references()
    facts.apply(config)
  way = (
    gan_workdir.open_gan_checkpoint
    if is_gan(config)
    else functools.partial(open_checkpoint, facts=facts)
  )
  experiment, data, abstract, weights = way(
    checkpoint, source, config, key=key, size=size, disc=disc, seen=seen, say=say
  )
  config = experiment.config
  state = initial_state(experiment, data, abstract, weights)
  meta = describe(config, data) | {
    "import": {
      "source": source,
      "file": pathlib.Path(checkpoint).name,
      "key": key,
      "sha256": tensor_files.sha256(checkpoint),
      "licence": licence,
      **({"disc": tensor_files.sha256(disc)} if disc else {}),
      "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
  }
  from jaxgen.checkpoint.manager import Checkpoints  # Orbax takes seconds to import

  c = config.checkpoint
  with (
    lock.exclusive(workdir),
    Checkpoints(
      workdir, every=c.every, keep=c.keep, keep_every=c.keep_every or None, log=say
    ) as checkpoints,
  ):
    check_new(workdir)
    checkpoints.save(0, state, meta, force=True)


def check_new(workdir: str) -> None:
  """UserError if a workdir holds checkpoints."""
  if found := step_folder.present(disk.folder(workdir)):
    raise UserError(
      f"{workdir} holds checkpoints already, up to step {found[-1]}: take a new --workdir"
    )


def is_gan(config: ConfigDict | None) -> bool:
  """Whether a config is of a model with a generator."""
  return config is not None and "gen" in config.model


def open_checkpoint(
  checkpoint: str,
  source: str,
  config: ConfigDict | None,
  *,
  key: str | None,
  size: int,
  disc: str | None,
  facts: Facts,
  seen: Callable[[int, int], None],
  say: Callable[[str], None],
) -> tuple[Experiment, DataSpec, core.State, Weights]:
  """The experiment, its data, the shapes of its state, the file's weights."""
  if disc:
    raise UserError("--disc is a GAN's, and wants its --config")
  tensors = tensor_files.read(checkpoint, key)
  if config is None:
    config = published.usual(tensors, source, size, facts, say)
  elif source == "adm":
    published.compare(tensors, config, say)
  experiment = Experiment.of(config)
  if source == "nvlabs":  # EDM's: ADM's network by other names
    edm.check(config.model.get("net", {}))
    tensors, source = edm.as_adm(tensors), "adm"
  check_net(config, source, checkpoint)
  data = stand_in(experiment, tensors, source, size)
  abstract = experiment.abstract(data, sharding.make_mesh())
  return (
    experiment,
    data,
    abstract,
    Weights({"net": names.take(tensors, abstract.params["net"], source, seen)}),
  )


def check_source(source: str) -> None:
  """UserError for an unknown one."""
  known = SOURCES | GANS
  if source not in known:
    raise UserError(f"there is no source {source!r}" + nearest(source, known))


def check_net(config: ConfigDict, source: str, checkpoint: str | None = None) -> None:
  """UserError if weights of the source would mean something else to our net."""
  net = config.model.get("net", {})
  if source not in SOURCES:
    raise UserError(f"{source} has checkpoints of GANs; the config is of {config.model.name}")
  one = net.get("heads") == 1 and net.get("heads_up") in (None, 1)
  if source == "sr3" and not one:
    raise UserError("sr3's attention has one head: set heads=1 in config.model.net")
  if source != "diffusers":
    return
  if not net.get("split_first") and not one:
    raise UserError(
      "diffusers has q, k and v apart: set heads=1 or split_first=True in config.model.net"
    )
  if checkpoint and (said := diffusers.facts(checkpoint)):
    diffusers.check(said, net)


def stand_in(experiment: Experiment, tensors: Tensors, source: str, size: int) -> DataSpec:
  """The shape of the data, of which nothing needs to be there."""
  c = experiment.config.data
  if c.size and size not in (0, c.size):
    raise UserError(f"--size={size}, but config.data.size={c.size}: leave one")
  size = size or c.size
  if not size:
    raise UserError(
      "neither the file nor the config says how large the images "
      "are: give --size, such as --size=32"
    )
  places = SOURCES[source].places([HEAD, FIRST])
  head, first = f"{places[HEAD]}.bias", f"{places[FIRST]}.weight"
  channels = 3
  if head in tensors:
    learned = getattr(experiment.model.net, "learned", False)
    channels = tensors[head].shape[0] // (1 + learned)
  elif first in tensors:  # a classifier
    channels = tensors[first].shape[1]
  if c.channels not in (0, channels):
    raise UserError(
      f"the file is of images with {channels} channels, but config.data.channels={c.channels}"
    )
  return DataSpec(c.source, (size, size, channels), c.classes)


def export_weights(
  workdir: str,
  out: str,
  source: str | None = None,
  *,
  ema: str | None = None,
  step: int | None = None,
  disc: str | None = None,
) -> dict[str, Any]:
  """Writes a workdir's weights as a checkpoint of somebody else's code.

  Args:
    workdir: Of the training, or of an import.
    out: Name of the file, .pt or .safetensors.
    source: A key of SOURCES or GANS; None: where they were imported from.
    ema: See sampler.load.
    step: Likewise.
    disc: Name of a file for a GAN's discriminator, where that is another.

  Returns:
    What there is to say of it: the step, number of tensors, import.
  """
  tensor_files.kind_of(out)
  past = latest(workdir)
  config, past = settings(past), past.get("import") or {}
  if source is None and not past:
    raise UserError("export needs --source, one of " + ", ".join(SOURCES | GANS))
  source = source or past["source"]
  check_source(source)
  if is_gan(config):
    if disc:
      gan_workdir.check_disc(source, "--disc")
      tensor_files.kind_of(disc)
    trained, tensors = gan_workdir.gan_tensors(workdir, source, config, ema, step)
    if gan_workdir.apart(source):
      if disc:
        tensor_files.write(disc, tensors["disc"])
      tensors = tensors[""]
    return write_tensors(out, trained, tensors, past)
  if disc:
    raise UserError(f"--disc is a GAN's, and {workdir} holds a {config.model.name}")
  check_net(config, source)
  trained = sampling_trained.load_trained(workdir, ema, step)
  tensors = names.give(trained.params["net"], source)
  betas = getattr(getattr(trained.model, "process", None), "betas", None)
  if source == "sr3" and betas is not None:  # its code wants them
    tensors |= {k: lazy(v) for k, v in sr3_buffers(betas).items()}
  return write_tensors(out, trained, tensors, past)


def write_tensors(
  out: str, trained: sampling_trained.Trained, tensors: dict[str, Any], past: dict[str, Any]
) -> dict[str, Any]:
  """Writes the file; what there is to say of it."""
  tensor_files.write(out, tensors)
  return {
    "step": trained.step,
    "tensors": len(names.flat(tensors)),
    "import": past,
    "ema": trained.card["ema"],
  }
