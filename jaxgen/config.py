"""Configs: files that describe experiments, and the objects they name.

Names in configs are paths in the tree: "nets.unet.UNet" is nets/unet.py. An
argument's name means the same in all models, nets, rules and optimisers, so
its range stands here once.
"""

import functools
import importlib
import importlib.util
import inspect
import json
import math
import pathlib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen import files
from jaxgen.errors import UserError, nearest

# Beside the package in a checkout, inside of it in an installed wheel.
HERE = pathlib.Path(__file__).parent
OURS = next(p / "configs" for p in (HERE, HERE.parent) if (p / "configs" / "_base.py").is_file())


def locate(name: str) -> str:
  """The path of "configs/x.py[:arg]", also from outside of the checkout.

  Of one in a bucket, gs://bucket/x.py[:arg], that of a copy.
  """
  scheme, slashes, rest = name.rpartition("://")
  path, _, arg = rest.partition(":")
  path = str(files.local(f"{scheme}{slashes}{path}"))
  for place in (path, OURS.parent / path, OURS / f"{path}.py"):
    if pathlib.Path(place).is_file():
      return f"{place}:{arg}" if arg else str(place)
  names = sorted(p.stem for p in OURS.glob("[!_]*.py"))
  hint = nearest(pathlib.Path(path).stem, names)
  hint = hint if "did you mean" in hint else ""
  raise UserError(f"no config at {path!r}{hint}; there are configs/{{{','.join(names)}}}.py")


def share_siblings(path: str) -> None:
  """Lets a config file say `from configs import _base`, wherever it lies."""
  package = types.ModuleType("configs")
  package.__path__ = [str(pathlib.Path(path.partition(":")[0]).parent), str(OURS)]
  for name in [n for n in sys.modules if n.startswith("configs.")]:
    del sys.modules[name]
  sys.modules["configs"] = package


def load(name: str) -> ConfigDict:
  """Reads "configs/x.py[:arg]" -> its locked ConfigDict."""
  path, _, arg = locate(name).partition(":")
  if not path.endswith(".py"):
    raise UserError(f"{path} is no config: want a file such as configs/x.py")
  share_siblings(path)
  spec = importlib.util.spec_from_file_location("jaxgen_config", path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    check_argument(path, module, arg)
    config = module.get_config(*([arg] if arg else []))
  except UserError:
    raise
  except (Exception, SystemExit) as e:
    raise UserError(f"{path} does not load: {type(e).__name__}: {e}") from e
  if not isinstance(config, ConfigDict):
    raise UserError(
      f"{path}: get_config gives a {type(config).__name__}: want "
      "a ConfigDict, as _base.base(...) makes it"
    )
  return config.lock()


def check_argument(path: str, module: types.ModuleType, arg: str) -> None:
  """UserError for an argument that the config does not know.

  Its ARGS lists strings and ranges of whole numbers; FORM may say how they are
  put together. A config without ARGS checks its argument itself.
  """
  if not arg:
    return
  if not inspect.signature(module.get_config).parameters:
    raise UserError(f"{path} takes no argument: leave ':{arg}'")
  args = vars(module).get("ARGS")
  if args is None:
    return
  words = [a for a in args if isinstance(a, str)]
  ranges = [a for a in args if isinstance(a, range)]
  number = int(arg) if arg.isascii() and arg.isdecimal() else None
  if arg not in words and not any(number in r for r in ranges):
    hint, form = nearest(arg, words), vars(module).get("FORM")
    if form:  # says more than a list of them all
      hint = f"{hint}; " if "did you mean" in hint else ": "
      hint += f"want {form}"
    hint += "".join(f"; or a number, {r[0]} to {r[-1]}" for r in ranges)
    raise UserError(f"{path} has no {arg!r}{hint}")


def check_single(config: ConfigDict, what: str) -> None:
  """UserError if `what` is asked of a cascade, which is several models."""
  if "stages" in config:
    raise UserError(
      f"{what} takes a config of one model, and this one lists "
      "the stages of a cascade: give theirs, one by one"
    )


LARGEST = 2**31 - 1  # of int32
SEEDS = 2**32  # how many jax.random tells apart

# Whole numbers that may be 0; all others are at least 1.
MAY_BE_ZERO = set(
  "classes labels warmup lazy depth layers embed tables spare attend halvings fine mapped pad"
  " octaves y ts start cond_blocks out_blocks token mels post shuffle shuffled places".split()
)
# Other numbers, by least and most; what is not here may be any finite number.
ABOVE_ZERO, BELOW_ONE = math.nextafter(0, 1), math.nextafter(1, 0)
RANGES = {
  (
    0,
    math.inf,
  ): "warmup lr eps weight_decay images ramp beta std weight weight_fake gamma noise churn"
  " snr s_min s_max s_noise blur floor lo eta truncation temperature cutoff commitment count"
  " revive disc_weight",
  (ABOVE_ZERO, math.inf): "sigma sigma_data sigma_min sigma_max clip clip_weights bound clamp kimg"
  " rho period mults width bend most hi scale",
  (0, BELOW_ONE): "b1 b2 momentum w_beta dropout",
  (0, 1): "label_drop smoothing mixing p share decay frac beta_1 beta_T level truncate",
  (ABOVE_ZERO, 1): "first",
  (1, 100): "quality",
}
RANGE_OF = {name: ends for ends, names in RANGES.items() for name in names.split()}
NOT_EMPTY = ("widths", "groups", "mults", "taps")  # lists


def check(where: str, args: Mapping[str, Any], params: Mapping[str, inspect.Parameter]) -> None:
  """UserError for a value of another kind, or out of range.

  Args:
    where: Whose arguments, such as "optim.adam".
    args: Their values.
    params: Of its signature; annotations say what is wanted.
  """
  for name, value in args.items():
    want = misfit(name, value, params[name].annotation)
    if want:
      raise UserError(f"{where}: {name}={value!r}: want {want}")
  low, high = (args.get(k, params[k].default) if k in params else None for k in ("lo", "hi"))
  if type(low) in (int, float) and type(high) in (int, float) and low >= high:
    raise UserError(f"{where}: lo={low!r}, hi={high!r}: want lo below hi")


def misfit(name: str, value: Any, kind: Any) -> str | None:
  """What is wanted in place of a value; None if it will do."""
  origin, inner = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    wants = [misfit(name, value, k) for k in inner]
    return next(iter(wants)) if all(wants) else None
  if kind is types.NoneType:
    return None if value is None else "None"
  if origin is Sequence and inner and inner[0] in (int, float):
    if not isinstance(value, tuple) or (name in NOT_EMPTY and not value):
      return "a list of numbers"
    return next(filter(None, (misfit(name, v, inner[0]) for v in value)), None)
  if kind is int:
    least = 0 if name in MAY_BE_ZERO else 1
    if type(value) is not int or value < least:
      return f"a whole number, {least} or more"
    return None if value <= LARGEST else f"at most {LARGEST}"
  if kind is float:
    low, high = RANGE_OF.get(name, (-math.inf, math.inf))
    if type(value) not in (int, float) or math.isnan(value):
      return "a number"
    return None if low <= value <= high else span(low, high)
  if kind in (bool, str) and not isinstance(value, kind):
    return "true or false" if kind is bool else "a word"
  return None


def span(low: float, high: float) -> str:
  """ "at least 0, below 1" and the like."""
  least = "more than 0" if low == ABOVE_ZERO else f"at least {low:g}"
  if high == math.inf:
    return least
  return least + (", below 1" if high < 1 else f", at most {high:g}")


# Where configs find things. One may come with a stranger's checkpoint: it must
# not reach what writes files (checkpoint, log) or runs programs (__main__).
PLACES = ("models", "nets", "diffusion", "adversarial", "audio", "optim", "ema")


def build(spec: Any, **kw) -> Any:
  """The object that a spec {"name": "module.Thing", **kwargs} describes.

  Children are built first. A class is instantiated; a function is bound to its
  arguments. Lists become tuples; what has no name is returned as it is.

  Raises:
    UserError: No such thing or argument (it names the nearest that exists), or
      a value that `check` refuses.
  """
  if isinstance(spec, (list, tuple)):
    return tuple(build(s) for s in spec)
  if not isinstance(spec, Mapping | ConfigDict):
    return spec
  args = {k: build(v) for k, v in spec.items() if k != "name"} | kw
  if "name" not in spec:
    return args
  thing = find(spec["name"])
  params = dict(inspect.signature(thing).parameters)
  for linens_own in ("name", "parent"):
    params.pop(linens_own, None)
  for k in args:
    if k not in params:
      raise UserError(f"{spec['name']} has no argument {k!r}" + nearest(k, params))
  check(spec["name"], args, params)
  if not inspect.isclass(thing):
    return functools.partial(thing, **args)
  missing = [
    k
    for k, p in params.items()
    if k not in args and p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
  ]
  if missing:
    raise UserError(f"{spec['name']} needs {', '.join(missing)}")
  return thing(**args)


# Paths in checkpoints of older versions: old -> new. No old one is ever reused.
MOVED = {
  "diffusion.augment.Noisy": "diffusion.conditioning.Noisy",
  "diffusion.multistep.dpmpp_2m_sde": "diffusion.samplers.dpmpp_2m_sde",
  "diffusion.multistep.unipc": "diffusion.unipc.unipc",
  "diffusion.pairs.inverse_gap": "diffusion.time_pairs.inverse_gap",
  "diffusion.pairs.pseudo_huber": "diffusion.time_pairs.pseudo_huber",
  "diffusion.pairs.shrinking": "diffusion.time_pairs.shrinking",
  "diffusion.sde.pc": "diffusion.samplers.pc",
  "nets.blocks.Attention": "nets.unet.Attention",
  "nets.blocks.Down": "nets.unet.Down",
  "nets.blocks.ResBlock": "nets.unet.ResBlock",
  "nets.blocks.Up": "nets.unet.Up",
  "nets.condnorm.CondNorm": "nets.layers.CondNorm",
  "nets.dcgan.Discriminator": "nets.convs.Discriminator",
  "nets.dcgan.Generator": "nets.convs.Generator",
  "nets.labels.LabelEmbed": "nets.layers.LabelEmbed",
  "nets.labels.Projection": "nets.layers.Projection",
  "nets.minibatch.Discrimination": "nets.layers.Discrimination",
  "nets.stylegan2_disc.Discriminator": "nets.stylegan2.Discriminator",
}


def find(path: str) -> Any:
  """The class or function "module.Thing" of this package."""
  path = MOVED.get(str(path), path)
  module, _, name = str(path).rpartition(".")
  room, *deeper = module.split(".")
  if room not in PLACES or any(not p or p[0] == "_" for p in (*deeper, name)):
    raise UserError(f'name={path!r}: want "module.Thing" in one of ' + ", ".join(PLACES))
  try:
    place = importlib.import_module(f"jaxgen.{module}")
  except ModuleNotFoundError as e:
    if e.name and not f"jaxgen.{module}".startswith(e.name):
      raise  # a dependency is missing, not the place
    raise UserError(f"name={path!r}: there is no module jaxgen.{module}") from e
  things = {
    k: v
    for k, v in vars(place).items()
    # Our own classes and functions, never what a module happened to import.
    if callable(v) and inspect.getmodule(v) is place and k[0] != "_"
  }
  if name not in things:
    raise UserError(f"jaxgen.{module} has no {name!r}" + nearest(name, things))
  return things[name]


ABSENT = "(absent)"


def as_json(config: Any, where: str = "config") -> Any:
  """Config -> dicts, lists, strings, numbers, bools and None.

  Equal configs become equal JSON: tuples turn into lists and numpy's scalars
  into Python's. What JSON cannot say is a UserError that names the field.
  """
  if isinstance(config, ConfigDict):
    config = config.to_dict()  # resolves references
  if isinstance(config, np.generic | np.ndarray):
    config = config.tolist()
  if isinstance(config, Mapping):
    for key in config:
      if not isinstance(key, str):
        raise UserError(f"{where} has the key {key!r}: use a string")
    return {k: as_json(v, f"{where}.{k}") for k, v in config.items()}
  if isinstance(config, list | tuple):
    return [as_json(v, f"{where}[{i}]") for i, v in enumerate(config)]
  if isinstance(config, float) and not math.isfinite(config):
    raise UserError(f"{where} is {config}: use None or a large finite number")
  if config is None or isinstance(config, str | bool | int | float):
    return config
  raise UserError(f"{where} is {config!r}: write it as a string or a number")


def check_config(
  saved: Mapping[str, Any], config: Any, may_change: Sequence[str] = ("steps", "log", "checkpoint")
) -> None:
  """UserError naming the first field in which a resumed run would differ.

  Args:
    saved: `as_json` of the config that the run began with.
    config: Of the run that wants to go on.
    may_change: Dotted paths of fields or subtrees that may differ.
  """
  old, new = _flat(saved), _flat(as_json(config))
  for name in sorted(old | new):
    if any(f"{name}.".startswith(f"{free}.") for free in may_change):
      continue
    before, now = old.get(name, ABSENT), new.get(name, ABSENT)
    if isinstance(before, str) and f".{name}".endswith(".name"):
      before = MOVED.get(before, before)
    if before == now and isinstance(before, bool) == isinstance(now, bool):
      continue
    before, now = (v if v == ABSENT else json.dumps(v) for v in (before, now))
    raise UserError(
      f"config.{name} is {now}, but this run began with {before}: set it back, or start anew in "
      "another workdir"
    )


def _flat(tree, prefix=""):
  """{dotted path: leaf}; lists of plain values, and {}, are leaves."""
  if isinstance(tree, list) and any(isinstance(v, Mapping) for v in tree):
    tree = {str(i): value for i, value in enumerate(tree)}
  if not isinstance(tree, Mapping) or (not tree and prefix):
    return {prefix: tree}
  flat = {}
  for key, value in tree.items():
    flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
  return flat
