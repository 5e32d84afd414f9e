"""Weights from elsewhere, for groups that no player moves, and to begin with.

A loss may look through a published network, which a user has in files, or
through a judge of another workdir; a model of latents reads them by a codec of
another one, and a model of few steps begins as its teacher. What ties latents to
attributes looks through classifiers; what controls a GAN, and an encoder that inverts
one, through that GAN. All are read once, before the first step, and are in every
checkpoint from there on.
"""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxgen import core, files
from jaxgen.checkpoint.averaged import weights
from jaxgen.checkpoint.fingerprint import fingerprint
from jaxgen.checkpoint.meta import latest, settings
from jaxgen.config import build, find
from jaxgen.data.arrays import Source
from jaxgen.errors import UserError, guarding
from jaxgen.interop import tensor_files

# Of LPIPS: torchvision's network, and the linear weights of the package lpips.
VARIABLES = ("JAXGEN_LPIPS_NET", "JAXGEN_LPIPS_LIN")
ABSENT = "(absent)"
FREE = ("dropout", "dtype", "remat")  # of a net: weights mean the same whatever these are


def read(model: core.Model, source: Source | None = None) -> tuple[core.Groups, core.Groups]:
  """What a model takes from elsewhere, on the host: params, stats, by group.

  `source` is what it is going to be trained on.

  Raises:
    UserError: A file or workdir is not named, cannot be read, or holds
      something else.
  """
  params, stats = {}, {}
  look = core.trait(model, "perceptual")
  if look and isinstance(core.trait(look, "net"), nn.Module):
    params["perceptual"] = read_judge(look, core.trait(model, "judge_workdir"), source)
  elif look:
    params["perceptual"] = read_perceptual(look)
  if core.trait(model, "predictors"):
    params |= read_predictors(model, source)
  if core.trait(model, "generator"):
    own, stats = read_generator(model, source)
    params |= own
  if core.trait(model, "codec"):
    params["codec"], stats["codec"] = read_codec(model, source)
  if core.trait(model, "teacher"):
    params["net"] = read_teacher(model, source)
    if model.keeps_teacher:
      params["teacher"] = params["net"]
  if core.trait(model, "gan"):
    own, stats_of_gan = read_gan(model, source)
    params, stats = params | own, stats | stats_of_gan
  return params, stats


def read_perceptual(net: Any) -> core.Groups:
  """The weights of a perceptual distance, of the user's files."""
  paths = [os.environ.get(name) for name in VARIABLES]
  for name, path in zip(VARIABLES, paths, strict=True):
    if not path:
      raise UserError(
        f"config.model.perceptual is {net.name}, and ${name} names no file: set "
        f"{' and '.join(f'${v}' for v in VARIABLES)} to torchvision's weights of that network and "
        "to the linear weights of the package lpips, or train on pixels alone"
      )
  named = [files.local(path) for path in paths]
  tensors = [{k: t.read() for k, t in tensor_files.read(file).items()} for file in named]
  what = f"{' and '.join(map(str, named))} do not hold {net.name}"
  try:
    return net.converted(*tensors)
  except KeyError as e:
    raise UserError(f"{what}: there is no {e.args[0]}") from e
  except ValueError as e:
    raise UserError(f"{what}: {e}") from e


def read_judge(
  look: Any, workdir: str, source: Source | None, where: str = "config.model.perceptual.net"
) -> core.Groups:
  """The averaged weights of a classifier of images like those of `source`.

  `look` has its net, see `nets.convs.JudgeLayers`, which is `where` in the config.
  """
  if not workdir:
    raise UserError(
      "config.model.judge_workdir names no workdir: train configs/judge.py first, and say where "
      "with --config.model.judge_workdir=J"
    )
  what = f"config.model.judge_workdir={workdir}"
  with guarding(what):
    meta = latest(workdir)
    config, data = settings(meta), meta["data"]
    judge = build(config.model)
    if core.trait(judge, "sample") or core.trait(judge, "process"):
      raise UserError(
        f"a {type(judge).__name__} was trained there: want a classifier of clean images"
      )
    check_net(judge.net, look.net, "that judge", where)
    if source is not None and tuple(data["shape"]) != tuple(source.shape):
      raise UserError(
        f"that judge looks at images {tuple(data['shape'])}, and {source.name} holds "
        f"{tuple(source.shape)}"
      )
    params, _ = averaged_weights(workdir, config, data, judge)
  return params["net"]


def read_predictors(model: core.Model, source: Source | None) -> dict[str, core.Groups]:
  """{"predictors": weights by attribute}, or {} where none has weights.

  A user's functions are imported, so that one that is missing ends the verb now.
  """
  weights = {}
  for name, predictor in model.predictors.items():
    if predictor.classes:
      workdir = predictor.workdir or core.trait(model, "judge_workdir")
      weights[name] = read_judge(predictor, workdir, source, f"the net that predicts {name}")
    predictor.check()
  return {"predictors": weights} if weights else {}


@contextlib.contextmanager
def another(
  model: core.Model, name: str, advice: str
) -> Iterator[tuple[str, ConfigDict, dict[str, Any]]]:
  """Workdir, config and data of what another training left.

  UserError where `model.NAME` names none, which `advice` helps with, and
  instead of whatever its config makes go wrong.
  """
  workdir, letter = getattr(model, name), "G" if name[0] == "g" else "W"
  if not workdir:
    raise UserError(
      f"config.model.{name} names no workdir: {advice} with --config.model.{name}={letter}"
    )
  with guarding(f"config.model.{name}={workdir}"):
    meta = latest(workdir)
    yield workdir, settings(meta), meta["data"]


def check_shape(what: str, data: dict[str, Any], source: Source | None) -> None:
  """UserError where it was trained on images of another shape than `source` holds."""
  if source is not None and tuple(data["shape"]) != tuple(source.shape):
    raise UserError(
      f"that {what} was trained on {data['name']}, {tuple(data['shape'])}, and {source.name} holds "
      f"{tuple(source.shape)}"
    )


def read_generator(
  model: core.Model, source: Source | None
) -> tuple[core.Groups, dict[str, core.Groups]]:
  """The averaged weights of the GAN that a model controls, and of its predictors."""
  advice = "train the generator first, such as configs/gan_control.py:digits, and say where"
  with another(model, "generator_workdir", advice) as (workdir, config, data):
    trained, ours = build(config.model), model.generator
    if type(trained) is not type(ours):
      raise UserError(
        f"a {type(trained).__name__} was trained there: want a {type(ours).__name__}, such as "
        "configs/gan_control.py"
      )
    check_net(trained.gen, ours.gen, "that generator", "config.model.generator.gen")
    for name, predictor in ours.predictors.items():
      if predictor.classes and name in trained.predictors:
        check_net(
          trained.predictors[name].net, predictor.net, "its judge", f"the net that predicts {name}"
        )
    theirs, mine = ([(g.attribute, g.size) for g in m.groups] for m in (trained, ours))
    if theirs != mine:
      raise UserError(
        f"that generator has slices {theirs}, and config.model.generator {mine}: make them equal"
      )
    check_shape("generator", data, source)
    return averaged_weights(workdir, config, data, trained)


def read_codec(model: core.Model, source: Source | None) -> tuple[core.Groups, core.Groups]:
  """The averaged weights of a codec and its stats, of a workdir."""
  advice, codec = "train the codec first, and say where", model.codec
  with another(model, "codec_workdir", advice) as (workdir, config, data):
    check_codec(codec, config.model)
    if source is not None:
      check_data(codec, data, source)
    params, stats = averaged_weights(workdir, config, data, codec)
    if core.trait(source, "stored") and source.codec != codec_digest(params, stats):
      raise UserError(
        f"{source.name} was written by another codec than this: by its workdir as it was then, "
        f"{source.meta['codec']['workdir']}, step {source.meta['codec']['step']}"
      )
    return params, stats


def read_teacher(model: core.Model, source: Source | None) -> Any:
  """The averaged weights of the diffusion model that a model begins with."""
  advice = "train the teacher first, a diffusion model of the same net, and say where"
  with another(model, "teacher_workdir", advice) as (workdir, config, data):
    teacher = build(config.model)
    check_teacher(model, teacher)
    check_shape("teacher", data, source)
    if source is not None and data["classes"] and other_labels(data, source):
      raise UserError(f"that teacher knows the labels of {data['name']}, and these are others")
    params, _ = averaged_weights(workdir, config, data, teacher)
  return params["net"]


def read_gan(model: core.Model, source: Source | None) -> tuple[core.Groups, core.Groups]:
  """Generator, averaged, and discriminator of the GAN that a model inverts, and their stats."""
  with another(model, "gan_workdir", "train the GAN first, and say where") as (
    workdir,
    config,
    data,
  ):
    gan = build(config.model)
    if type(gan) is not type(model.gan):
      raise UserError(f"a {type(gan).__name__} was trained there: want models.gan.GAN")
    for part in ("gen", "disc"):
      check_net(vars(gan)[part], vars(model.gan)[part], "that GAN", f"config.model.gan.{part}")
    for field in ("z_dim", "classes"):
      theirs, ours = vars(gan)[field], vars(model.gan)[field]
      if theirs != ours:
        raise UserError(
          f"that GAN has {field}={theirs}, and config.model.gan.{field} is {ours}: make them equal"
        )
    check_shape("GAN", data, source)
    return gan_weights(workdir, config, data, gan)


def gan_weights(
  workdir: str,
  config: ConfigDict,
  data: dict[str, Any],
  gan: core.Model,
  profile: str | None = None,
  step: int | None = None,
) -> tuple[core.Groups, core.Groups]:
  """The generator that samples and the discriminator as it is, and their stats; on the host."""
  shapes = core.batch_shapes(data["shape"], data["dtype"], data["classes"])
  init = core.make_init(gan, {p.moves: optax.identity() for p in gan.players}, tuple(config.ema))
  abstract = jax.eval_shape(init, shapes, jax.random.key(0))
  params, stats, step = weights(workdir, config, gan, abstract, profile, step)
  # Nobody averages a discriminator: it is read as it stands at that step.
  own, own_stats, _ = weights(workdir, config, Only(("disc",)), abstract, "none", step)
  stats = {g: tree for g, tree in (stats | own_stats).items() if tree}
  return jax.device_get((params | own, stats))


class Only(NamedTuple):
  """Stands for a model of which some groups are read."""

  sampled: Sequence[str]


def check_teacher(model: core.Model, teacher: core.Model) -> None:
  """UserError unless `model` can begin with the teacher's weights."""
  kind = type(teacher).__name__
  if kind != "Diffusion":
    raise UserError(f"a {kind} was trained there: want models.diffusion.Diffusion")
  check_net(teacher.net, model.net, "that teacher", "config.model.net", FREE)
  parts = (
    ("classes", teacher.classes, "classes", model.classes),
    ("process", teacher.process, "process", model.process),
    ("precond", signature(teacher.precond), "teacher", signature(model.teacher)),
  )
  for name, theirs, where, ours in parts:
    if theirs != ours:
      raise UserError(
        f"that teacher was trained with {name}={theirs}, and config.model.{where} is {ours}: make "
        "them equal"
      )


def signature(f: Callable) -> str:
  """A function and its arguments, as configs name them, and those left to it."""
  known = {k: p.default for k, p in inspect.signature(f).parameters.items()}
  args = ", ".join(f"{k}={v}" for k, v in known.items() if v is not inspect.Parameter.empty)
  return f"{(f.func if isinstance(f, functools.partial) else f).__name__}({args})"


def averaged_weights(
  workdir: str, config: ConfigDict, data: dict[str, Any], model: core.Model
) -> tuple[core.Groups, core.Groups]:
  """What a workdir's model judges, writes or samples with, on the host."""
  shapes = core.batch_shapes(data["shape"], data["dtype"], data["classes"])
  moves = {p.moves: optax.identity() for p in model.players}
  init = core.make_init(model, moves, tuple(config.ema))
  abstract = jax.eval_shape(init, shapes, jax.random.key(0))
  params, stats, _ = weights(workdir, config, model, abstract)
  return jax.device_get((params, {g: own for g, own in stats.items() if own}))


def codec_digest(params: core.Groups, stats: core.Groups) -> str:
  """Sixteen hex digits of weights, which tell what wrote latents."""
  leaves, _ = fingerprint(jax.tree.map(jnp.asarray, {"params": params, "stats": stats}))
  return files.digest({path: leaf["sum"] for path, leaf in leaves.items()})


def check_codec(codec: core.Codec, spec: Any) -> None:
  """UserError unless what was trained by `spec` encodes and decodes alike."""
  kind, ours = find(spec.name), type(codec).__name__
  if core.trait(kind, "encode") is None:
    raise UserError(f"a {kind.__name__} was trained there, which is no codec")
  if kind is not type(codec):
    raise UserError(
      f"a {kind.__name__} was trained there, and config.model.codec is of another kind, {ours}"
    )
  if not isinstance(core.trait(codec, "net"), nn.Module):
    return
  check_net(build(spec["net"]), codec.net, "that codec", "config.model.codec.net")


def check_net(
  trained: nn.Module, ours: nn.Module, which: str, where: str, free: Sequence[str] = ()
) -> None:
  """UserError unless two nets have all fields alike but `free` ones.

  `where` in the config ours is.
  """
  theirs, mine = ({**vars(net), "name": type(net).__name__} for net in (trained, ours))
  for name in sorted(theirs.keys() | mine.keys()):
    if name.startswith("_") or name in ("parent", *free):  # linen's own
      continue
    # As text: of bound functions no two are equal.
    a, b = (repr(fields.get(name, ABSENT)) for fields in (theirs, mine))
    if a != b:
      raise UserError(
        f"{which} was trained with net.{name}={a}, and {where}.{name} is {b}: make them equal"
      )


def check_data(codec: core.Codec, data: dict[str, Any], source: Source) -> None:
  """UserError unless a codec of these data reads the examples of `source`.

  Height and width may differ, if they do not for its net.
  """
  shape, own = tuple(data["shape"]), tuple(source.shape)
  alike = len(shape) == len(own) and shape[-1] == own[-1]
  if not alike or data["dtype"] != str(np.dtype(source.dtype)):
    raise UserError(
      f"that codec was trained on {data['name']}, {shape}, and {source.name} holds {own}"
    )
  if not core.trait(codec, "classes"):
    return
  if data["classes"] != source.classes or other_labels(data, source):
    raise UserError(
      f"that codec decodes by the labels of {data['name']}, and {source.name} has others"
    )


def other_labels(data: dict[str, Any], source: Source) -> bool:
  """Whether classes have names, there and here, and not the same."""
  names = [tuple(n) for n in (data.get("class_names") or (), source.class_names)]
  return all(names) and names[0] != names[1]


def fill(model: core.Model, state: core.State, source: Source | None = None) -> core.State:
  """A state with the groups that `read` reads, placed as they were."""
  params, stats = read(model, source)
  if not params:
    return state
  put = lambda new, old: jax.device_put(new, jax.tree.map(lambda x: x.sharding, old))
  stats = {
    g: old | put(new, {k: old[k] for k in new})
    for g, new in stats.items()
    for old in [state.stats[g]]
  }
  params = {g: put(new, state.params[g]) for g, new in params.items()}
  # Groups that move have averages, which begin where they do.
  start = lambda old: {g: jax.tree.map(jnp.copy, params.get(g, old[g])) for g in old}
  ema = {profile: start(old) for profile, old in state.ema.items()}
  return state.replace(params=state.params | params, stats=state.stats | stats, ema=ema)
