"""Configs: a file that says what an experiment is, and how it is read."""
import importlib.util
import pathlib
import sys
import types

import ml_collections

from jaxgen.errors import UserError

# In a checkout beside the package, in an installed wheel inside of it.
OURS = next(p for p in (pathlib.Path(__file__).parent / "configs",
                        pathlib.Path(__file__).parent.parent / "configs")
            if (p / "_base.py").is_file())


def locate(name: str) -> str:
  """The path of "configs/x.py[:arg]", also from outside of the checkout."""
  path, colon, arg = name.partition(":")
  for place in (path, OURS.parent / path, OURS / f"{path}.py"):
    if pathlib.Path(place).is_file():
      return f"{place}{colon}{arg}"
  known = sorted(p.stem for p in OURS.glob("[!_]*.py"))
  raise UserError(f"no config at {path!r}; there are configs/"
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
  share_siblings(path)
  spec = importlib.util.spec_from_file_location("jaxgen_config", path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    config = module.get_config(*([arg] if arg else []))
  except UserError:
    raise
  except Exception as e:
    raise UserError(f"{path} does not load: {type(e).__name__}: {e}") from e
  return config.lock()
