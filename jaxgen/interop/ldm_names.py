"""What CompVis' latent diffusion calls the weights of a whole model.

    first_stage_model.*                the codec, see `autoencoder_names`
    model.diffusion_model.*            the U-Net, by ADM's names but for its
                                       transformers
    cond_stage_model.embedding.weight  classes' tokens
    model_ema.*                        the U-Net's averages, names without dots
    betas and the like                 the schedule
    scale_factor                       of latents, where it was measured

A tree of ours is here {"net": .., "codec": {"params": ..}}, and "ema": the
U-Net's averages.
"""

import re
from typing import Any

from jaxgen.interop import names
from jaxgen.interop.autoencoder_names import ldm_entries
from jaxgen.interop.names import LEAVES, Entry, Tree

UNET, CODEC, EMA = "model.diffusion_model.", "first_stage_model.", "model_ema."
TOKEN = "cond_stage_model.embedding.weight"
SCALE = "scale_factor"
DECAY, UPDATES = EMA + "decay", EMA + "num_updates"
# In files, but no weights of ours: the codec's losses, and what depends on betas.
UNREAD = re.compile(
  r"first_stage_model\.loss\.|model_ema\.(decay|num_updates)$|logvar$|lvlb_weights$"
)
# Our layers within a block of a transformer -> theirs.
LAYERS = {
  "norm_1": "norm1",
  "norm_2": "norm2",
  "norm_3": "norm3",
  **{
    f"attn_{i}/{ours}": f"attn{i}.to_{theirs}"
    for i in (1, 2)
    for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("proj", "out.0"))
  },
  "mlp/fc1": "ff.net.0.proj",
  "mlp/fc2": "ff.net.2",
}
BLOCK = re.compile(r"block_(\d+)")


def entries(tree: Tree) -> list[Entry]:
  """The table for a tree of ours, see `names.Entry`; UserError for another net's."""
  net = net_entries(tree["net"])
  table = [e._replace(ours=f"net/{e.ours}") for e in net]
  for e in net if "ema" in tree else ():
    theirs = tuple(map(averaged, e.theirs))
    if theirs != e.theirs:  # of tokens there are none
      table.append(e._replace(ours=f"ema/{e.ours}", theirs=theirs))
  for e in ldm_entries(tree["codec"]):
    theirs = tuple(CODEC + name for name in e.theirs)
    table.append(e._replace(ours=f"codec/{e.ours}", theirs=theirs))
  return table


def net_entries(net: Tree) -> list[Entry]:
  """The table of a U-Net, with classes' tokens where it has them."""
  tokens = {k: v for k, v in net.items() if k == "token"}
  own = {k: v for k, v in net.items() if k.endswith(("_attn", "mid_1")) and "proj_in" in v}
  # Of a transformer ADM's table knows the norm: it tells the place of the rest.
  plain = net.keys() - tokens.keys() - own.keys()
  known = {k: net[k] for k in plain} | {k: {"norm": v["norm"]} for k, v in own.items()}
  table, place = [], {}
  for e in names.entries(known, "adm"):
    block, _, layer = e.ours.partition("/")
    if layer == "norm/scale":
      place[block] = e.theirs[0].removesuffix("norm.weight")
    table.append(e)
  for block, layers in own.items():
    rest = {k: v for k, v in layers.items() if k != "norm"}
    table += [layer_entry(block, place[block], *item) for item in names.flat(rest).items()]
  table = [e._replace(theirs=tuple(UNET + name for name in e.theirs)) for e in table]
  for path, leaf in names.flat(tokens).items():
    table.append(names.entry(path, leaf, TOKEN))
  return table


def layer_entry(block: str, place: str, path: str, leaf: Any) -> Entry:
  """The row of a weight within a transformer, "block_0/attn_1/q/kernel"."""
  first, *rest, kind = path.split("/")
  if match := BLOCK.fullmatch(first):
    name, ones = f"transformer_blocks.{match[1]}.{LAYERS['/'.join(rest)]}", 0
  else:  # their convolutions, 1 x 1
    name, ones = {"proj_in": "proj_in", "proj": "proj_out"}[first], 2 * (kind == "kernel")
  return names.entry(f"{block}/{path}", leaf, place + name + LEAVES[kind], after=ones)


def averaged(name: str) -> str:
  """Their name of a U-Net's weight's average; others are named as they are."""
  if not name.startswith(UNET):
    return name
  return EMA + name.removeprefix("model.").replace(".", "")
