"""HiFi-GANs of other people's files, and ours for them; see `workdir`.

The generator is a file, and all discriminators, for those who train on, another.
"""

import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxgen import config as configs
from jaxgen import sharding
from jaxgen.checkpoint import averaged
from jaxgen.convert import gan_workdir
from jaxgen.convert.initial_state import ForeignFile, Imported, Weights, clips_of
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import hifigan_names, names, tensor_files
from jaxgen.interop.hifigan_names import DISCS, GEN, VOCODERS
from jaxgen.interop.pickles import plain
from jaxgen.interop.tensors import Tensor
from jaxgen.sampling import trained as sampling_trained

PUBLISHED = ("v1", "v2", "v3")  # of configs/hifigan.py


def open_file(file: ForeignFile, config: ConfigDict | None) -> Imported:
  """Reads a generator and, if they are there, its discriminators."""
  if config is not None:
    check_model(config, file.source)
  sets = tensor_files.sets(file.path)
  key = file.key or (GEN if GEN in sets else None)
  gen = hifigan_names.incoming(tensor_files.select(pathlib.Path(file.path), sets, key))
  config = usual(gen, file) if config is None else config
  data, experiment = clips_of(config, file.size), Experiment.of(config)
  abstract = experiment.abstract(data, sharding.make_mesh())
  table = hifigan_names.gen_entries(abstract.params["gen"])
  if not (disc := discriminators(sets, file)):
    params = {"gen": names.fill(table, gen, file.progress)}
    return Imported(experiment, data, abstract, Weights(params))
  others = hifigan_names.disc_entries(gan_workdir.collections(abstract, "disc"))
  total = len(table) + len(others)
  params = {"gen": names.fill(table, gen, lambda n, _: file.progress(n, total))}
  tree = names.fill(others, disc, lambda n, _: file.progress(len(table) + n, total))
  params["disc"] = tree.pop("params")
  return Imported(experiment, data, abstract, Weights(params, {"disc": tree} if tree else {}))


def discriminators(sets: dict[str, dict[str, Tensor]], file: ForeignFile) -> dict[str, Tensor]:
  """Their tensors as one set; {} and a line where there is no file of them."""
  if file.disc:
    sets = tensor_files.sets(file.disc)
    if missing := [name for name in DISCS if name not in sets]:
      shown = ", ".join(plain(k) or "." for k in list(sets)[: names.SHOWN]) or "nothing"
      raise UserError(
        f"--disc={file.disc} holds no {' and no '.join(missing)}, but {shown}: want the do_.. that "
        "was saved beside g_.."
      )
  if not set(DISCS) <= sets.keys():
    file.log("the file holds no discriminators: they begin at random, if it is trained on")
    return {}
  tensors = {f"{name}.{k}": t for name in DISCS for k, t in sets[name].items()}
  return hifigan_names.incoming(tensors)


def usual(tensors: dict[str, Tensor], file: ForeignFile) -> ConfigDict:
  """The published config of the file's shapes; UserError if it is of none."""
  for arg in PUBLISHED:
    c = configs.load(f"configs/hifigan.py:{arg}")
    gen, front = configs.build(c.model.gen), configs.build(c.model.cond.mel.front)
    mel = jax.ShapeDtypeStruct((1, 8, front.mels), "float32")
    tree = jax.eval_shape(gen.init, jax.random.key(0), mel)["params"]
    if names.fits(hifigan_names.gen_entries(tree), tensors):
      file.log(
        f"the file has the shapes of HiFi-GAN's {arg} and is taken for it: {c.data.rate} Hz, a "
        f"frame for {front.hop} samples; if it is another, give a --config"
      )
      return c
  raise UserError(
    f"the file has the shapes of no published HiFi-GAN ({', '.join(PUBLISHED)}): give a --config, "
    "such as configs/hifigan.py:v1"
  )


def check_model(config: ConfigDict, source: str) -> None:
  """UserError if the source has no such models."""
  if VOCODERS.get(source) != config.model.name:
    fit = [k for k, name in VOCODERS.items() if name == config.model.name]
    raise UserError(
      f"{source} has no checkpoints of {config.model.name}"
      + (f": try {fit[0]}" if fit else ": give a config such as configs/hifigan.py:v1")
    )


def tensors(
  workdir: str, source: str, config: ConfigDict, ema: str | None, step: int | None
) -> tuple[sampling_trained.Trained, dict[str, Any]]:
  """A workdir's vocoder, and its sets of tensors as the source names them."""
  check_model(config, source)
  trained = sampling_trained.load_trained(workdir, ema, step)
  shapes, gen = gan_workdir.abstract(trained), trained.params["gen"]
  leaves = {
    "params": {"disc": shapes.params["disc"]},
    "stats": {"disc": shapes.stats.get("disc", {})},
  }
  _, tree, _ = averaged.read(workdir, leaves, trained.step)
  disc = {"params": tree["params"]["disc"]} | tree["stats"]["disc"]
  named = hifigan_names.outgoing(names.spell(hifigan_names.disc_entries(disc), disc))
  sets = {GEN: names.spell(hifigan_names.gen_entries(gen), gen)}
  for name in DISCS:
    own = {k: t for k, t in named.items() if k.startswith(f"{name}.")}
    sets[name] = {k.removeprefix(f"{name}."): t for k, t in own.items()}
  return trained, sets


def packed(sets: dict[str, Any], out: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """The generator as their code wants its file, and that of the discriminators."""
  alone = tensor_files.kind_of(pathlib.Path(out)) == "safetensors"
  return sets[GEN] if alone else {GEN: sets[GEN]}, {name: sets[name] for name in DISCS}
