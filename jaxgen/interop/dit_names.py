"""What DiT's and SiT's published code calls the weights of our transformers.

facebookresearch/DiT and willisma/SiT, whose nets are the same. Ours holds the
weights of all blocks in one array, [depth, ...], theirs a tensor for each. Their
`pos_embed`, fixed sines and cosines, is no weight of ours.
"""

from collections.abc import Mapping
from typing import Any

from jaxgen.errors import UserError
from jaxgen.interop import names

# Whose files they are of -> our net.
TRANSFORMERS = {"dit": "nets.dit.DiT", "sit": "nets.dit.SiT"}
PLACES = "pos_embed"
FIRST = "x_embedder.proj.weight"  # [D, channels, patch, patch]
MODULES = {
  "patch_embed": "x_embedder.proj",
  "time_0": "t_embedder.mlp.0",
  "time_2": "t_embedder.mlp.2",
  "label": "y_embedder.embedding_table",
  "blocks/ada": "blocks.{}.adaLN_modulation.1",
  "blocks/attn/qkv": "blocks.{}.attn.qkv",
  "blocks/attn/proj": "blocks.{}.attn.proj",
  "blocks/mlp/fc1": "blocks.{}.mlp.fc1",
  "blocks/mlp/fc2": "blocks.{}.mlp.fc2",
  "ada": "final_layer.adaLN_modulation.1",
  "head": "final_layer.linear",
}


def entries(tree: names.Tree) -> list[names.Entry]:
  """The table for a tree of ours, see `names.Entry`; UserError for another net's."""
  table = [entry(path, tuple(leaf.shape)) for path, leaf in names.flat(tree).items()]
  order = list(MODULES)
  rank = lambda e: (order.index(e.ours.rpartition("/")[0]), e.ours.endswith("bias"))
  return sorted(table, key=rank)


def entry(path: str, shape: tuple[int, ...]) -> names.Entry:
  """The row of one weight."""
  module, _, leaf = path.rpartition("/")
  if module not in MODULES:
    raise UserError(f"dit has no name for this net's {path}: is it a nets.dit.DiT or SiT?")
  stacked = module.startswith("blocks/")
  of_one = range(stacked, len(shape))
  # Kernels have their channels first there: out, in.
  axes = (*of_one[:-3:-1], *of_one[:-2]) if leaf == "kernel" else tuple(of_one)
  name = MODULES[module] + (".bias" if leaf == "bias" else ".weight")
  theirs = tuple(name.format(i) for i in range(shape[0])) if stacked else (name,)
  layout = tuple(shape[i] for i in axes)
  return names.Entry(path, shape, theirs, layout, (0, *axes) if stacked else axes, 0)


def places(tensors: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
  """Their `pos_embed`, or None, and all the other tensors."""
  return tensors.get(PLACES), {k: v for k, v in tensors.items() if k != PLACES}
