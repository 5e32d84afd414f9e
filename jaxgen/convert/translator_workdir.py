"""Translators of other people's files, and ours for them; see `workdir`.

`latest_net_G.pth` is a generator of pix2pix, `latest_net_G_A.pth` one of CycleGAN's two,
whose other one is a second file, --back. For those who train pix2pix on, --disc is its
discriminator, `latest_net_D.pth`. Batch norm's running statistics are read, old ones of
instance norm are not.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen import config as configs
from jaxgen import core, sharding
from jaxgen.checkpoint import averaged
from jaxgen.convert import gan_workdir
from jaxgen.convert.initial_state import DataSpec, ForeignFile, Imported, Weights, height_of
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import names, tensor_files, translator_names
from jaxgen.interop.tensors import Tensor, lazy
from jaxgen.interop.translator_names import TRANSLATORS
from jaxgen.models.cycle_gan import WAYS
from jaxgen.sampling import trained as sampling_trained

# Published configs by source, in the order in which a file is compared with them.
PUBLISHED = {
  "pix2pix": ("configs/pix2pix.py", ("256", "128", "resnet9", "resnet6")),
  "cyclegan": ("configs/cycle_gan.py", ("256", "128")),
}


def open_file(file: ForeignFile, config: ConfigDict | None) -> Imported:
  """Reads a generator and, if they are there, what goes with it."""
  if config is not None:
    check_model(config, file.source)
  if file.disc and file.source == "cyclegan":
    raise UserError("--disc is of pix2pix: of CycleGAN both generators are read, and no others")
  if file.back and file.source != "cyclegan":
    raise UserError("--back is of CycleGAN: pix2pix goes one way")
  gen = read(file.path, file.key)
  config = usual(gen, file) if config is None else config
  experiment, size = Experiment.of(config), height_of(config, file.size)
  channels = config.data.channels or config.model.gen.get("channels", 3)
  data = DataSpec(config.data.source, (size, size, channels), config.data.classes)
  abstract = experiment.abstract(data, sharding.make_mesh())
  if file.source == "cyclegan":
    return Imported(experiment, data, abstract, both_ways(experiment, abstract, data, gen, file))
  params, stats = gen_weights(collections(abstract, None), gen, config, file)
  weights = Weights({"gen": params}, {"gen": stats})
  if file.disc:
    table = translator_names.disc_entries(abstract.params["disc"])
    disc = translator_names.incoming(read(file.disc, None), averages=False)
    weights.params["disc"] = names.fill(table, disc)
  else:
    file.log("the file holds no discriminator: it begins at random, if it is trained on")
  return Imported(experiment, data, abstract, weights)


def read(path: str, key: str | None) -> dict[str, Tensor]:
  """The tensors of one net's file."""
  return tensor_files.select(pathlib.Path(path), tensor_files.sets(path), key)


def collections(state: core.State, way: str | None) -> dict[str, Any]:
  """Of a generator, one of CycleGAN's if there is a `way`: {"params", "batch_stats"}."""
  params, stats = state.params["gen"], state.stats.get("gen", {})
  if way is not None:
    params, stats = params[way], stats.get(way, {})
  return {"params": params} | {k: v for k, v in stats.items() if jax.tree.leaves(v)}


def gen_weights(
  tree: Mapping[str, Any], tensors: dict[str, Tensor], config: ConfigDict, file: ForeignFile
) -> tuple[dict[str, Any], dict[str, Any]]:
  """A generator's params and stats, of a file."""
  tensors = translator_names.incoming(tensors, averages="batch_stats" in tree)
  table = translator_names.gen_entries(tree, has_dropout(config))
  weights = names.fill(table, tensors, file.progress)
  return weights.pop("params"), weights


def has_dropout(config: ConfigDict) -> bool:
  """Whether the generator was built with dropout, which numbers of a ResNet's layers tell."""
  return bool(config.model.gen.get("dropout", 0.0))


def both_ways(
  experiment: Experiment,
  abstract: core.State,
  data: DataSpec,
  gen: dict[str, Tensor],
  file: ForeignFile,
) -> Weights:
  """CycleGAN's generators; one without a file begins at random."""
  params, stats = {}, {}
  files = {"ab": gen} | ({"ba": read(file.back, None)} if file.back else {})
  for way, tensors in files.items():
    tree = collections(abstract, way)
    params[way], stats[way] = gen_weights(tree, tensors, experiment.config, file)
  if "ba" not in params:
    file.log("there is no --back: the generator of the other way begins at random")
    init, key = experiment.model.gen.init, jax.random.key(experiment.config.seed)
    other = dict(jax.jit(init)(key, jnp.zeros((1, *data.shape))))
    params["ba"], stats["ba"] = other.pop("params"), other
  file.log("the discriminators begin at random, if it is trained on")
  return Weights(
    {"gen": params}, {"gen": stats} if any(map(jax.tree.leaves, stats.values())) else {}
  )


def usual(tensors: dict[str, Tensor], file: ForeignFile) -> ConfigDict:
  """The published config of the file's shapes; UserError if it is of none."""
  path, args = PUBLISHED[file.source]
  for arg in args:
    c = configs.load(f"{path}:{arg}")
    net = configs.build(c.model.gen)
    x = jax.ShapeDtypeStruct((1, c.data.size, c.data.size, 3), jnp.float32)
    tree = dict(jax.eval_shape(net.init, jax.random.key(0), x))
    own = translator_names.incoming(tensors, averages="batch_stats" in tree)
    if names.fits(translator_names.gen_entries(tree, has_dropout(c)), own):
      file.log(
        f"the file has the shapes of {path}:{arg} and is taken for it; if it is another, give a "
        "--config"
      )
      return c
  raise UserError(
    f"the file has the shapes of no published net ({', '.join(args)}): give a --config, such as "
    f"{path}:{args[0]}, with the model.gen that it was trained with"
  )


def check_model(config: ConfigDict, source: str) -> None:
  """UserError if the source has no such models."""
  if TRANSLATORS.get(source) != config.model.name:
    fit = [k for k, name in TRANSLATORS.items() if name == config.model.name]
    raise UserError(
      f"{source} has no checkpoints of {config.model.name}"
      + (f": try {fit[0]}" if fit else ": give a config such as configs/pix2pix.py")
    )


def tensors(
  workdir: str, source: str, config: ConfigDict, ema: str | None, step: int | None
) -> tuple[sampling_trained.Trained, dict[str, Any]]:
  """A workdir's nets: "" of the way there, and "back" or "disc"."""
  check_model(config, source)
  trained = sampling_trained.load_trained(workdir, ema, step)
  state = sampling_trained.sampling_state(trained.step, trained.params, trained.stats)
  ways = WAYS if source == "cyclegan" else (None,)
  sets = []
  for way in ways:
    tree = collections(state, way)
    sets.append(names.spell(translator_names.gen_entries(tree, has_dropout(config)), tree))
  if source == "cyclegan":
    return trained, {"": sets[0], "back": sets[1]}
  shapes = gan_workdir.abstract(trained)
  leaves = {"params": {"disc": shapes.params["disc"]}, "stats": {}}
  _, tree, _ = averaged.read(workdir, leaves, trained.step)
  disc = tree["params"]["disc"]
  named = names.spell(translator_names.disc_entries(disc), disc)
  return trained, {"": sets[0], "disc": with_averages(named, disc)}


def with_averages(named: dict[str, Tensor], disc: Mapping[str, Any]) -> dict[str, Tensor]:
  """A discriminator's tensors with running statistics, which its code wants and never reads."""
  for entry in translator_names.disc_entries(disc):
    if entry.ours.endswith("/scale"):
      stem = entry.theirs[0].removesuffix(".weight")
      named[f"{stem}.running_mean"] = lazy(np.zeros(entry.shape, np.float32))
      named[f"{stem}.running_var"] = lazy(np.ones(entry.shape, np.float32))
  return named


def packed(sets: dict[str, Any], out: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """The file of the way there, and that of what goes with it."""
  del out
  return sets[""], sets.get("back", sets.get("disc", {}))
