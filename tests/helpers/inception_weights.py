"""Random weights of Inception by a rule, as the golden case was made with."""

import functools
import json
import pathlib
import zlib

import numpy as np

from jaxgen.interop import tensor_files
from jaxgen.interop.tensors import lazy

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@functools.cache
def golden():
  """The case, and its manifest."""
  case = dict(np.load(GOLDEN / "inception_random.npz"))
  return case, json.loads(str(case.pop("manifest")))


@functools.cache
def state_dict():
  """PyTorch's tensors by name. Batch norms' statistics were calibrated."""
  case, manifest = golden()
  running, state = case["running"].astype(np.float32), {}
  for name, shape in manifest["state_dict"].items():
    if "running" in name:
      state[name], running = np.split(running, [shape[0]])
      continue
    z = np.random.Generator(
      np.random.PCG64([manifest["seed"], zlib.crc32(name.encode())])
    ).standard_normal(shape)
    if name == "fc.weight":
      z *= 0.05
    elif name.endswith("bn.weight"):
      z = 1 + 0.1 * z
    elif name.endswith("bias"):
      z *= 0.1 if ".bn." in name else 0.5
    else:
      z *= np.sqrt(2 / np.prod(shape[1:]))
    state[name] = z.astype(np.float32)
  return state


def saved(path, tensors=None):
  """A file of them, as torch.save writes it."""
  tensors = state_dict() if tensors is None else tensors
  tensor_files.write(path, {k: lazy(v) for k, v in tensors.items()})
  return path
