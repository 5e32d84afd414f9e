"""What others call the weights of autoencoders: one table for both directions.

    ldm       CompVis/latent-diffusion, taming-transformers: first stages
    vqvae2    rosinality/vq-vae-2-pytorch

A discriminator and LPIPS, which files of `ldm` hold beside it as `loss.*`, are
no part of the table.
"""

import re
from collections.abc import Callable

from jaxgen.errors import UserError
from jaxgen.interop import names
from jaxgen.interop.names import LEAVES, Entry, Tree

# Our blocks -> theirs, and our layers within them -> theirs.
LDM_PLACES = (
  (r"(down|up)_(\d+)_(\d+)", r"\1.\2.block.\3"),
  (r"(down|up)_(\d+)_(\d+)_attn", r"\1.\2.attn.\3"),
  (r"down_(\d+)_down", r"down.\1.downsample"),
  (r"up_(\d+)_up", r"up.\1.upsample"),
  (r"mid_0", "mid.block_1"),
  (r"mid_1", "mid.attn_1"),
  (r"mid_2", "mid.block_2"),
  (r"(conv_in|conv_out|norm_out)", r"\1"),
)
LDM_LAYERS = {
  **{f"{kind}_{i}": f"{kind}{i}" for kind in ("conv", "norm") for i in (1, 2)},
  **{name: name for name in ("conv", "norm", "q", "k", "v")},
  "skip": "nin_shortcut",
  "proj": "proj_out",
}
LDM_OUTER = {"quant": "quant_conv", "post_quant": "post_quant_conv", "last": "decoder.conv_out"}
FLAT = {"skip", "q", "k", "v", "proj", "quant", "post_quant"}  # 1 x 1 convolutions there


def ldm_entries(tree: Tree) -> list[Entry]:
  """The table of a KLNet or VQNet."""
  table = []
  for path, leaf in names.flat(tree).items():
    *module, kind = path.split("/")
    if kind == "codebook":
      table.append(names.entry(path, leaf, "quantize.embedding.weight"))
      continue
    place = LDM_OUTER.get(module[0]) if len(module) == 1 else ldm_place(module)
    if place is None:
      raise UserError(f"ldm has no name for this net's {path}: is it a nets.autoencoder?")
    ones = 2 * (module[-1] in FLAT and kind == "kernel")
    table.append(names.entry(path, leaf, place + LEAVES[kind], after=ones))
  return table


def ldm_place(module: list[str]) -> str | None:
  """["encoder", "down_0_1", "conv_1"] -> "encoder.down.0.block.1.conv1"."""
  half, block, *layer = module
  for ours, theirs in LDM_PLACES:
    if match := re.fullmatch(ours, block):
      place = [half, match.expand(theirs), *(LDM_LAYERS[name] for name in layer)]
      return ".".join(place)
  return None


# Of rosinality's lists of layers: the number of each of ours, by its part.
HALVES = {
  "encode_bottom": ("enc_b", {"down_0": 0, "down_1": 2, "in": 4}, 5),
  "encode_top": ("enc_t", {"down_0": 0, "in": 2}, 3),
  "decode_top": ("dec_t", {"in": 0}, 1),
  "decode_all": ("dec", {"in": 0}, 1),
}
VQVAE2_OUTER = {
  "to_top": "quantize_conv_t",
  "to_bottom": "quantize_conv_b",
  "upsample_top": "upsample_t",
}
BUFFERS = {"codes": "embed", "count": "cluster_size", "total": "embed_avg"}


def vqvae2_entries(tree: Tree) -> list[Entry]:
  """The table of a group {"params": .., "codes": ..} of models.vqvae."""
  table, blocks = [], count_blocks(tree["params"])
  for path, leaf in names.flat(tree).items():
    top, *module, kind = path.split("/")
    if top == "codes":  # [K, dim] here, [dim, K] there
      place, axes = f"quantize_{module[0][0]}.{BUFFERS[kind]}", tuple(range(leaf.ndim))[::-1]
      table.append(names.entry(path, leaf, place, axes=axes))
    else:
      place = vqvae2_place(module, blocks)
      table.append(names.entry(path, leaf, place + LEAVES[kind]))
  return table


def count_blocks(params: Tree) -> int:
  """Residual blocks of each part."""
  return len(params["encode_top"]["res"]) // 2


def vqvae2_place(module: list[str], blocks: int) -> str:
  """["encode_top", "res", "conv_1_2"] -> "enc_t.blocks.4.conv.3"."""
  if len(module) == 1:
    return VQVAE2_OUTER[module[0]]
  half, first, *layer = module
  theirs, numbers, start = HALVES[half]
  if first == "res":
    i, j = map(int, re.fullmatch(r"conv_(\d+)_([12])", layer[0]).groups())
    return f"{theirs}.blocks.{start + i}.conv.{2 * j - 1}"
  if first.startswith("up_"):  # after the blocks and their ReLU
    return f"{theirs}.blocks.{start + blocks + 1 + 2 * int(first[3:])}"
  return f"{theirs}.blocks.{numbers[first]}"


TABLES: dict[str, Callable[[Tree], list[Entry]]] = {"ldm": ldm_entries, "vqvae2": vqvae2_entries}
