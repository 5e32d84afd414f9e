"""Names in configs are paths in the tree: "nets.unet.UNet" is nets/unet.py."""
import difflib
import functools
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen import arguments
from jaxgen.errors import UserError

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
  known = {k: p for k, p in inspect.signature(thing).parameters.items()
           if k not in ("name", "parent")}  # linen's own
  for k in args:
    if k not in known:
      raise UserError(f"{spec['name']} has no argument {k!r}"
                      + nearest(k, known))
  arguments.check(spec["name"], args, known)
  if not inspect.isclass(thing):
    return functools.partial(thing, **args)
  missing = [k for k, p in known.items() if k not in args
             and p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
  if missing:
    raise UserError(f"{spec['name']} needs {', '.join(missing)}")
  return thing(**args)


def find(path: str) -> Any:
  """What stands at "module.Thing" below this package, and was defined there."""
  module, _, name = str(path).rpartition(".")
  room, *deeper = module.split(".")
  if room not in PLACES or any(not p or p[0] == "_" for p in (*deeper, name)):
    raise UserError(f"name={path!r}: want \"module.Thing\" in one of "
                    + ", ".join(PLACES))
  try:
    place = importlib.import_module(f"jaxgen.{module}")
  except ModuleNotFoundError as e:
    if e.name and not f"jaxgen.{module}".startswith(e.name):
      raise  # a dependency is missing, not the place
    raise UserError(f"name={path!r}: there is no module jaxgen.{module}") from e
  things = {
      k: v for k, v in vars(place).items()
      # Our own classes and functions, never what a module happened to import.
      if callable(v) and getattr(v, "__module__", "") == place.__name__
      and k[0] != "_"}
  if name not in things:
    raise UserError(f"jaxgen.{module} has no {name!r}" + nearest(name, things))
  return things[name]


def nearest(word: str, known: Iterable[str]) -> str:
  """A suggestion to end a message with: "; did you mean ...?"."""
  close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
  if close:
    return f"; did you mean {close[0]!r}?"
  return f"; it knows {', '.join(sorted(k for k in known if k[0] != '_'))}"
