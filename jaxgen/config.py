"""Configs: a file that says what an experiment is, and how it is read.

Names in configs are paths in the tree: "nets.unet.UNet" is nets/unet.py. One
name of an argument means one thing everywhere in models, nets, rules and
optimisers, so its kind and range stand here once, not in each of them.
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

import ml_collections
import numpy as np
from ml_collections import ConfigDict

from jaxgen.errors import UserError, nearest

# In a checkout beside the package, in an installed wheel inside of it.
OURS = next(
  p
  for p in (
    pathlib.Path(__file__).parent / "configs",
    pathlib.Path(__file__).parent.parent / "configs",
  )
  if (p / "_base.py").is_file()
)


def locate(name: str) -> str:
  """The path of "configs/x.py[:arg]", also from outside of the checkout."""
  path, _, arg = name.partition(":")
  for place in (path, OURS.parent / path, OURS / f"{path}.py"):
    if pathlib.Path(place).is_file():
      return f"{place}:{arg}" if arg else str(place)
  known = sorted(p.stem for p in OURS.glob("[!_]*.py"))
  close = nearest(pathlib.Path(path).stem, known)
  close = close if "did you mean" in close else ""
  raise UserError(f"no config at {path!r}{close}; there are configs/{{{','.join(known)}}}.py")


def share_siblings(path: str) -> None:
  """Lets a config file say `from configs import _base`, wherever it lies."""
  package = types.ModuleType("configs")
  package.__path__ = [str(pathlib.Path(path.partition(":")[0]).parent), str(OURS)]
  for name in [n for n in sys.modules if n.startswith("configs.")]:
    del sys.modules[name]
  sys.modules["configs"] = package


def load(name: str) -> ml_collections.ConfigDict:
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
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f"{path}: get_config gives a {type(config).__name__}: want "
      "a ConfigDict, as _base.base(...) makes it"
    )
  return config.lock()


def check_argument(path: str, module: types.ModuleType, arg: str) -> None:
  """UserError for an argument that the config does not know.

  It knows what its ARGS lists: strings, and ranges of whole numbers; FORM may
  say how they are put together. One without ARGS is trusted to check its own.
  """
  if not arg:
    return
  if not inspect.signature(module.get_config).parameters:
    raise UserError(f"{path} takes no argument: leave ':{arg}'")
  known = vars(module).get("ARGS")
  if known is None:
    return
  words = [a for a in known if isinstance(a, str)]
  ranges = [a for a in known if isinstance(a, range)]
  number = int(arg) if arg.isascii() and arg.isdecimal() else None
  if arg not in words and not any(number in r for r in ranges):
    hint, form = nearest(arg, words), vars(module).get("FORM")
    if form:  # says more than a list of them all
      hint = f"{hint}; " if "did you mean" in hint else ": "
      hint += f"want {form}"
    hint += "".join(f"; or a number, {r[0]} to {r[-1]}" for r in ranges)
    raise UserError(f"{path} has no {arg!r}{hint}")


def check_single(config: ml_collections.ConfigDict, what: str) -> None:
  """UserError if `what` is asked of a cascade, which is several models."""
  if "stages" in config:
    raise UserError(
      f"{what} takes a config of one model, and this one lists "
      "the stages of a cascade: give theirs, one by one"
    )


LARGEST = 2**31 - 1  # that arrays of int32 count to
SEEDS = 2**32  # jax.random knows no more: larger ones are others again

# The least that a whole number may be, where it is not 1.
WHOLE = {
  name: 0
  for name in (
    "classes",
    "labels",
    "warmup",
    "lazy",
    "depth",
    "layers",
    "embed",
    "tables",
    "spare",
    "attend",
    "halvings",
    "fine",
    "mapped",
    "pad",
    "octaves",
    "y",
  )
}
# Least and most of other numbers; what is not here may be any finite number.
BEYOND = math.nextafter(0, 1)  # "more than 0"
REAL = {
  **dict.fromkeys(
    (
      "lr",
      "eps",
      "weight_decay",
      "images",
      "ramp",
      "beta",
      "std",
      "weight",
      "weight_fake",
      "gamma",
      "noise",
      "churn",
      "snr",
      "s_min",
      "s_max",
      "s_noise",
      "blur",
      "floor",
      "lo",
      "eta",
      "truncation",
      "temperature",
      "cutoff",
    ),
    (0, math.inf),
  ),
  **dict.fromkeys(
    (
      "sigma",
      "sigma_data",
      "sigma_min",
      "sigma_max",
      "clip",
      "clip_weights",
      "bound",
      "clamp",
      "kimg",
      "rho",
      "period",
      "mults",
      "width",
      "bend",
      "most",
      "hi",
    ),
    (BEYOND, math.inf),
  ),
  **dict.fromkeys(("b1", "b2", "momentum", "w_beta", "dropout"), (0, math.nextafter(1, 0))),
  **dict.fromkeys(
    (
      "label_drop",
      "smoothing",
      "mixing",
      "p",
      "share",
      "decay",
      "frac",
      "beta_1",
      "beta_T",
      "level",
      "truncate",
    ),
    (0, 1),
  ),
  "first": (BEYOND, 1),
}
# What a list of is never empty.
SOME = ("widths", "groups", "mults", "taps")


def check(where: str, args: Mapping[str, Any], known: Mapping[str, inspect.Parameter]) -> None:
  """UserError for a value of another kind, or out of range.

  Args:
    where: Whose arguments, such as "optim.adam".
    args: Their values.
    known: The signature, whose annotations say what is wanted.
  """
  for name, value in args.items():
    want = misfit(name, value, known[name].annotation)
    if want:
      raise UserError(f"{where}: {name}={value!r}: want {want}")
  low, high = (args.get(k, known[k].default) if k in known else None for k in ("lo", "hi"))
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
    if not isinstance(value, tuple) or (name in SOME and not value):
      return "a list of numbers"
    return next(filter(None, (misfit(name, v, inner[0]) for v in value)), None)
  if kind is int:
    least = WHOLE.get(name, 1)
    fits = type(value) is int and least <= value <= LARGEST
    return (
      None
      if fits
      else (
        f"a whole number, {least} or more"
        if type(value) is not int or value < least
        else f"at most {LARGEST}"
      )
    )
  if kind is float:
    low, high = REAL.get(name, (-math.inf, math.inf))
    if type(value) not in (int, float) or math.isnan(value):
      return "a number"
    return None if low <= value <= high else span(low, high)
  if kind in (bool, str) and not isinstance(value, kind):
    return "true or false" if kind is bool else "a word"
  return None


def span(low: float, high: float) -> str:
  """ "at least 0, below 1" and the like."""
  least = "more than 0" if low == BEYOND else f"at least {low:g}"
  if high == math.inf:
    return least
  return least + (", below 1" if high < 1 else f", at most {high:g}")


# Where configs find things. One may come with a stranger's checkpoint: it must
# not reach what writes files (checkpoint, log) or runs programs (__main__).
PLACES = ("models", "nets", "diffusion", "adversarial", "optim", "ema")


def build(spec: Any, **kw) -> Any:
  """Makes the object that a {"name": "module.Thing", **kwargs} spec describes.

  Children come first. A class is instantiated; a function is bound to its
  arguments and stays a function. Lists become tuples; what has no name is
  returned as it is.

  Raises:
    UserError: No such thing, or no such argument: with the nearest that exists;
      or a value that it cannot be, see `arguments`.
  """
  if isinstance(spec, (list, tuple)):
    return tuple(build(s) for s in spec)
  if not isinstance(spec, Mapping | ConfigDict):
    return spec
  args = {k: build(v) for k, v in spec.items() if k != "name"} | kw
  if "name" not in spec:
    return args
  thing = find(spec["name"])
  known = {
    k: p for k, p in inspect.signature(thing).parameters.items() if k not in ("name", "parent")
  }  # linen's own
  for k in args:
    if k not in known:
      raise UserError(f"{spec['name']} has no argument {k!r}" + nearest(k, known))
  check(spec["name"], args, known)
  if not inspect.isclass(thing):
    return functools.partial(thing, **args)
  missing = [
    k
    for k, p in known.items()
    if k not in args and p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
  ]
  if missing:
    raise UserError(f"{spec['name']} needs {', '.join(missing)}")
  return thing(**args)


# What checkpoints of older versions name, and where it stands now. No old path
# is ever given a new meaning.
MOVED = {
  "diffusion.augment.Noisy": "diffusion.conditioning.Noisy",
  "diffusion.multistep.dpmpp_2m_sde": "diffusion.samplers.dpmpp_2m_sde",
  "diffusion.multistep.unipc": "diffusion.unipc.unipc",
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
  """What stands at "module.Thing" below this package, and was defined there."""
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
    if callable(v) and getattr(v, "__module__", "") == place.__name__ and k[0] != "_"
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
  if isinstance(config, ConfigDict):  # ConfigDict, resolving its references
    config = config.to_dict()
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
    saved: what `as_json` gave when the run began.
    config: of the run that wants to go on.
    may_change: dotted paths of fields, or of whole subtrees, that may differ.
  """
  old, new = _flat(saved), _flat(as_json(config))
  for name in sorted(old | new):
    if any(f"{name}.".startswith(f"{free}.") for free in may_change):
      continue
    was, now = old.get(name, ABSENT), new.get(name, ABSENT)
    if isinstance(was, str) and f".{name}".endswith(".name"):
      was = MOVED.get(was, was)
    if was == now and isinstance(was, bool) == isinstance(now, bool):
      continue
    raise UserError(
      f"config.{name} is {_say(now)}, but this run began with "
      f"{_say(was)}: set it back, or start anew in another workdir"
    )


def _say(value):
  return value if value == ABSENT else json.dumps(value)


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
