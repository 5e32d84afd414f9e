"""GANs of other people's files, and ours for them; see `workdir`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.checkpoint import averaged
from jaxgen.convert.initial_state import DataSpec, ForeignFile, Imported, Weights
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import gans, tensor_files
from jaxgen.interop.gans import GANS
from jaxgen.sampling import trained as sampling_trained

LATENTS = 4096  # whose mean style is taken where the file has none
GROUPS = ("gen", "disc")


def open_file(file: ForeignFile, config: ConfigDict) -> Imported:
  """Reads a checkpoint of a GAN: all sets of the file are taken."""
  check_net(config, file.source)
  if file.key is not None:
    raise UserError("--key is for a network by itself: of a GAN's file all that is there is taken")
  sets = tensor_files.sets(file.path)
  if file.disc:
    check_disc(file.source, "--disc")
    sets |= {GANS[file.source].sets["disc"]: tensor_files.read(file.disc)}
  experiment = Experiment.of(config)
  gen, c = experiment.model.gen, config.data
  size = c.size or core.trait(gen, "size")
  if file.size not in (0, size):
    raise UserError(f"--size={file.size}, but the config makes images of {size}")
  data = DataSpec(c.source, (size, size, core.trait(gen, "channels")), c.classes)
  abstract = experiment.abstract(data, sharding.make_mesh())
  parts = gans.take(sets, {g: collections(abstract, g) for g in GROUPS}, file.source, file.progress)
  if "disc" not in parts:
    file.log("the file holds no discriminator: it begins at random")
  return Imported(experiment, data, abstract, weights(experiment.model, parts, file.log))


def check_net(config: ConfigDict, source: str) -> None:
  """UserError if the source has no such nets."""
  name = config.model.get("gen", {}).get("name", config.model.name)
  if source not in GANS or not name.startswith(GANS[source].nets):
    fit = [k for k, how in GANS.items() if name.startswith(how.nets)]
    raise UserError(
      f"{source} has no checkpoints of {name}" + (f": try {' or '.join(fit)}" if fit else "")
    )
  GANS[source].check(config.model.get("gen", {}))


def check_disc(source: str, flag: str) -> None:
  """UserError if the source has no discriminators in files of their own."""
  if source not in GANS or not apart(source) or ("disc" not in GANS[source].sets):
    raise UserError(f"{source} has no files of discriminators alone: leave {flag}")


def apart(source: str) -> bool:
  """Whether a file of the source holds one network."""
  return GANS[source].sets["ema"] == ""


def collections(state: core.State, group: str) -> dict[str, Any]:
  """Of a group: {"params": .., "average": .., ..}."""
  return {"params": state.params[group]} | state.stats.get(group, {})


def weights(
  model: core.Model, parts: dict[str, dict[str, Any]], log: Callable[[str], None]
) -> Weights:
  """Weights by group; averages serve where the raw ones are missing."""
  averages = parts.get("ema", parts.get("gen"))
  raw = parts.get("gen", averages)
  if core.trait(model.gen, "num_ws") and "average" not in averages:
    log(f"the file does not tell the mean style: taken of {LATENTS} latents")
    averages["average"] = {"w_avg": mean_style(model, averages)}
  stats = {"gen": {k: v for k, v in averages.items() if k != "params"}}
  params = {"gen": raw["params"]}
  if "disc" in parts:
    disc = dict(parts["disc"])
    params["disc"], stats["disc"] = disc.pop("params"), disc
  ema = {"gen": averages["params"]} if averages is not raw else {}
  return Weights(params, stats, ema)


def mean_style(model: core.Model, variables: Mapping[str, Any]) -> np.ndarray:
  """Mean of w, over random z, [W]."""
  zero = jnp.zeros(model.gen.w_dim)
  z = jax.random.normal(jax.random.key(0), (LATENTS, model.z_dim))
  ws = model.gen.apply(dict(variables) | {"average": {"w_avg": zero}}, z, method="map")
  return np.asarray(ws[:, 0].mean(0))


def tensors(
  workdir: str, source: str, config: ConfigDict, ema: str | None, step: int | None
) -> tuple[sampling_trained.Trained, dict[str, Any]]:
  """A workdir's GAN, and its sets of tensors as the source names them."""
  check_net(config, source)
  if not GANS[source].write:
    raise UserError(
      f"{source} keeps its code in its files: none are written; export to another source"
    )
  trained = sampling_trained.load_trained(workdir, ema, step)
  stats = trained.stats.get("gen", {})
  parts = {"ema": {"params": trained.params["gen"]} | stats}
  groups = [g for g in GROUPS if g in GANS[source].sets]
  if groups:
    shapes = abstract(trained)
    leaves = {
      "params": {g: shapes.params[g] for g in groups},
      "stats": {"disc": shapes.stats.get("disc", {})},
    }
    _, tree, _ = averaged.read(workdir, leaves, trained.step)
    stats = {"gen": stats, "disc": tree["stats"]["disc"]}
    parts |= {g: {"params": tree["params"][g]} | stats[g] for g in groups}
  return trained, gans.give(parts, source)


def abstract(trained: sampling_trained.Trained) -> core.State:
  """Shapes of its groups."""
  data = trained.data
  batch = {"x": jax.ShapeDtypeStruct((1, *data["shape"]), jnp.float32)}
  if data["classes"]:
    batch["y"] = jax.ShapeDtypeStruct((1,), jnp.int32)
  params, stats = jax.eval_shape(trained.model.init, batch, jax.random.key(0))
  return core.State(0, params, stats, {}, {}, None)
