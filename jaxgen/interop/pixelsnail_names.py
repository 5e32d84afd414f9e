"""What rosinality/vq-vae-2-pytorch calls the weights of a PixelSNAIL.

Their `background`, which holds places and is not learned, has no row: see
`places`.
"""

import re
from collections.abc import Sequence

import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop import names
from jaxgen.interop.names import Entry, Tree

PRIORS = {"pixelsnail": "models.hierarchy.Hierarchy"}  # sources and our model of them
PLACES = "background"  # row and column of every pixel, as their files hold them
LEAVES = {"kernel": "weight_v", "scale": "weight_g", "bias": "bias"}
GATED = {"conv_1": "conv1", "conv_2": "conv2", "aux": "aux_conv"}
ROLES = {"key": "key_resblock", "query": "query_resblock", "merge": "out_resblock"}


def pixelsnail_entries(tree: Tree) -> list[Entry]:
  """The table of a nets.pixelsnail.PixelSNAIL."""
  leaves = names.flat(tree)
  last = 1 + sum(bool(re.fullmatch(r"out_\d+", name)) for name in tree)
  table = []
  for path, leaf in leaves.items():
    *module, kind = path.split("/")
    place = pixelsnail_place(module, last)
    if place is None or kind not in LEAVES:
      raise UserError(f"pixelsnail has no name for this net's {path}")
    # Layers of one pixel are 1 x 1 convolutions there, but those of attention.
    flat = "attention" in module
    ones = {"kernel": 2 * (leaf.ndim == 2 and not flat), "scale": 1 if flat else 3}.get(kind, 0)
    table.append(names.entry(path, leaf, f"{place}.{LEAVES[kind]}", after=ones))
  return table


def places(shape: Sequence[int]) -> np.ndarray:
  """What their files hold of places in a map of (height, width), [1, 2, H, W]."""
  rows, cols = ((np.arange(n, dtype=np.float32) - n / 2) / n for n in shape)
  return np.stack(np.meshgrid(rows, cols, indexing="ij"))[None].astype(np.float32)


def pixelsnail_place(module: list[str], last: int) -> str | None:
  """["block_0", "res_1", "conv_2"] -> "blocks.0.resblocks.1.conv2.conv.conv"."""
  first, *layer = module
  if first == "look":
    return f"{layer[0]}.conv.conv"
  if match := re.fullmatch(r"block_(\d+)", first):
    return f"blocks.{match[1]}.{block_place(layer)}"
  if match := re.fullmatch(r"out_(\d+)", first):
    return f"out.{match[1]}.{GATED[layer[0]]}.conv"
  if first == "out":
    return f"out.{last}.conv"
  if first == "cond" and layer[0] == "conv":
    return "cond_resnet.blocks.0.conv"
  if first == "cond":
    number = 1 + int(layer[0].removeprefix("res_"))
    return f"cond_resnet.blocks.{number}.{GATED[layer[1]]}.conv"
  return None


def block_place(layer: list[str]) -> str:
  """["key", "conv_1"] -> "key_resblock.conv1.conv"."""
  first, *rest = layer
  if first == "out":
    return "out.conv"
  if first == "attention":
    return f"causal_attention.{rest[0]}"
  if first in ROLES:
    return f"{ROLES[first]}.{GATED[rest[0]]}.conv"
  block = f"resblocks.{first.removeprefix('res_')}"
  if rest[0] in GATED:
    return f"{block}.{GATED[rest[0]]}.conv.conv"
  return f"{block}.{'condition' if rest[0] == 'cond' else rest[0]}.conv"
