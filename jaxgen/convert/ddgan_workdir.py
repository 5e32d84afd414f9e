"""Denoising diffusion GANs of other people's files, and ours; see `workdir`.

`netG_1200.pth` is the averaged generator. With --disc=content.pth, for those who
train on, come the discriminator and the generator's own weights.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxgen import config as configs
from jaxgen import sharding
from jaxgen.checkpoint import averaged
from jaxgen.convert import gan_workdir
from jaxgen.convert.initial_state import DataSpec, ForeignFile, Imported, Weights, height_of
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import ddgan_names, names, tensor_files
from jaxgen.interop.ddgan_names import DENOISING, DISC_NET, GEN_NET, SETS
from jaxgen.interop.pickles import plain
from jaxgen.interop.tensors import Tensor
from jaxgen.sampling import trained as sampling_trained

PUBLISHED = ("cifar", "celeba256")  # of configs/ddgan.py; lsun's nets are the latter's
PREFIX = "module."  # their code cuts so many letters off every name


def open_file(file: ForeignFile, config: ConfigDict | None) -> Imported:
  """Reads a generator and, if they are there, its discriminator and raw weights."""
  if config is not None:
    check_model(config, file.source)
  sets = tensor_files.sets(file.path)
  key = file.key or (SETS["gen"] if SETS["gen"] in sets else None)
  gen = tensor_files.select(pathlib.Path(file.path), sets, key)
  config = usual(gen, file) if config is None else config
  size = height_of(config, file.size)
  experiment = Experiment.of(config)
  data = DataSpec(config.data.source, (size, size, config.data.channels or 3), config.data.classes)
  abstract = experiment.abstract(data, sharding.make_mesh())
  more = tensor_files.sets(file.disc) if file.disc else sets
  if SETS["disc"] not in more:
    if file.disc:
      shown = ", ".join(plain(k) or "." for k in list(more)[: names.SHOWN]) or "nothing"
      raise UserError(f"--disc={file.disc} holds no {SETS['disc']}, but {shown}: want content.pth")
    file.log("the file holds no discriminator: it begins at random, if it is trained on")
  table = ddgan_names.gen_entries(abstract.params["gen"])
  average = names.fill(table, gen, file.progress)
  params, ema = {"gen": average}, {}
  if SETS["disc"] in more:
    params["disc"] = names.fill(
      ddgan_names.disc_entries(abstract.params["disc"]), more[SETS["disc"]]
    )
  if file.disc and SETS["gen"] in more:
    params["gen"], ema = names.fill(table, more[SETS["gen"]]), {"gen": average}
  return Imported(experiment, data, abstract, Weights(params, ema=ema))


def usual(tensors: dict[str, Tensor], file: ForeignFile) -> ConfigDict:
  """The published config of the file's shapes; UserError if it is of none."""
  for arg in PUBLISHED:
    c = configs.load(f"configs/ddgan.py:{arg}")
    x = jax.ShapeDtypeStruct((1, c.data.size, c.data.size, 3), jnp.float32)
    t, z = jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((1, 100), jnp.float32)
    tree = jax.eval_shape(configs.build(c.model.gen).init, jax.random.key(0), x, t, z)["params"]
    if names.fits(ddgan_names.gen_entries(tree), tensors):
      file.log(
        f"the file has the shapes of configs/ddgan.py:{arg} and is taken for it, in "
        f"{c.model.chain.steps} steps; if it is another, give a --config"
      )
      return c
  raise UserError(
    f"the file has the shapes of no published net ({', '.join(PUBLISHED)}): give a --config, such "
    "as configs/ddgan.py:cifar"
  )


def check_model(config: ConfigDict, source: str) -> None:
  """UserError if the source has no such models, or not of these nets."""
  if DENOISING.get(source) != config.model.name:
    fit = [k for k, name in DENOISING.items() if name == config.model.name]
    raise UserError(
      f"{source} has no checkpoints of {config.model.name}"
      + (f": try {fit[0]}" if fit else ": give a config such as configs/ddgan.py:cifar")
    )
  gen, disc = config.model.gen, config.model.disc
  if (gen.name, disc.name) != (GEN_NET, DISC_NET):
    raise UserError(f"{source} has no checkpoints of {gen.name} with {disc.name}")
  if any(net.get("patch", 1) > 1 or net.get("classes", 0) for net in (gen, disc)):
    raise UserError(f"{source} has no nets of patches or with labels: want patch=1, classes=0")


def tensors(
  workdir: str, source: str, config: ConfigDict, ema: str | None, step: int | None
) -> tuple[sampling_trained.Trained, dict[str, Any]]:
  """A workdir's averaged generator "", and the sets of content.pth."""
  check_model(config, source)
  trained = sampling_trained.load_trained(workdir, ema, step)
  shapes = gan_workdir.abstract(trained)
  wanted = {"params": {g: shapes.params[g] for g in SETS}, "stats": {}}
  _, tree, _ = averaged.read(workdir, wanted, trained.step)
  gen, disc = (tree["params"][g] for g in ("gen", "disc"))
  average = trained.params["gen"]
  rows = ddgan_names.gen_entries(average)
  return trained, {
    "": prefixed(names.spell(rows, average)),
    SETS["gen"]: prefixed(names.spell(rows, gen)),
    SETS["disc"]: prefixed(names.spell(ddgan_names.disc_entries(disc), disc)),
  }


def packed(sets: dict[str, Any], out: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """The generator's file, and content.pth."""
  del out  # a set by itself in any kind of file
  return sets[""], {name: sets[name] for name in SETS.values()}


def prefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
  """By the names that data-parallel training gives."""
  return {PREFIX + name: tensor for name, tensor in tensors.items()}
