"""Configs: a file that says what an experiment is, and how it is read."""
import importlib.util
import inspect
import pathlib
import sys
import types

import ml_collections

from jaxgen.build import nearest
from jaxgen.errors import UserError

# In a checkout beside the package, in an installed wheel inside of it.
OURS = next(p for p in (pathlib.Path(__file__).parent / "configs",
                        pathlib.Path(__file__).parent.parent / "configs")
            if (p / "_base.py").is_file())


def locate(name: str) -> str:
  """The path of "configs/x.py[:arg]", also from outside of the checkout."""
  path, _, arg = name.partition(":")
  for place in (path, OURS.parent / path, OURS / f"{path}.py"):
    if pathlib.Path(place).is_file():
      return f"{place}:{arg}" if arg else str(place)
  known = sorted(p.stem for p in OURS.glob("[!_]*.py"))
  close = nearest(pathlib.Path(path).stem, known)
  close = close if "did you mean" in close else ""
  raise UserError(f"no config at {path!r}{close}; there are configs/"
                  f"{{{','.join(known)}}}.py")


def share_siblings(path: str) -> None:
  """Lets a config file say `from configs import _base`, wherever it lies."""
  package = types.ModuleType("configs")
  package.__path__ = [str(pathlib.Path(path.partition(":")[0]).parent),
                      str(OURS)]
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
    raise UserError(f"{path}: get_config gives a {type(config).__name__}: want "
                    "a ConfigDict, as _base.base(...) makes it")
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
  known = getattr(module, "ARGS", None)
  if known is None:
    return
  words = [a for a in known if isinstance(a, str)]
  ranges = [a for a in known if isinstance(a, range)]
  number = int(arg) if arg.isascii() and arg.isdecimal() else None
  if arg not in words and not any(number in r for r in ranges):
    hint, form = nearest(arg, words), getattr(module, "FORM", None)
    if form:  # says more than a list of them all
      hint = f"{hint}; " if "did you mean" in hint else ": "
      hint += f"want {form}"
    hint += "".join(f"; or a number, {r[0]} to {r[-1]}" for r in ranges)
    raise UserError(f"{path} has no {arg!r}{hint}")


def check_single(config: ml_collections.ConfigDict, what: str) -> None:
  """UserError if `what` is asked of a cascade, which is several models."""
  if "stages" in config:
    raise UserError(f"{what} takes a config of one model, and this one lists "
                    "the stages of a cascade: give theirs, one by one")
