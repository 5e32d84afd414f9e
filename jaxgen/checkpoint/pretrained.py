"""Weights that a user has in files, for groups that no player moves.

A loss may look through a published network. It is read once, before the first
step, and is in every checkpoint from there on.
"""

import os
import pathlib

import jax

from jaxgen import core
from jaxgen.errors import UserError
from jaxgen.interop import tensor_files

# Of LPIPS: torchvision's network, and the linear weights of the package lpips.
VARIABLES = ("JAXGEN_LPIPS_NET", "JAXGEN_LPIPS_LIN")


def read(model: core.Model) -> core.Groups:
  """What a model takes from files, on the host, by group.

  Raises:
    UserError: A file is not named, cannot be read, or holds something else.
  """
  perceptual = core.trait(model, "perceptual")
  if perceptual is None:
    return {}
  paths = [os.environ.get(name) for name in VARIABLES]
  for name, path in zip(VARIABLES, paths, strict=True):
    if not path:
      raise UserError(
        f"config.model.perceptual is {perceptual.name}, and ${name} names no file: set "
        f"{' and '.join(f'${v}' for v in VARIABLES)} to torchvision's weights of that network and "
        "to the linear weights of the package lpips, or train on pixels alone"
      )
  files = [pathlib.Path(path).expanduser() for path in paths]
  tensors = [{k: t.read() for k, t in tensor_files.read(file).items()} for file in files]
  what = f"{' and '.join(map(str, files))} do not hold {perceptual.name}"
  try:
    return {"perceptual": perceptual.converted(*tensors)}
  except KeyError as e:
    raise UserError(f"{what}: there is no {e.args[0]}") from e
  except ValueError as e:
    raise UserError(f"{what}: {e}") from e


def fill(model: core.Model, state: core.State) -> core.State:
  """A state with the groups that `read` reads, placed as they were."""
  weights = read(model)
  if not weights:
    return state
  where = {g: jax.tree.map(lambda x: x.sharding, state.params[g]) for g in weights}
  return state.replace(params=state.params | jax.device_put(weights, where))
