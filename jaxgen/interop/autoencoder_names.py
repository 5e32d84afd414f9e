"""What others call the weights of autoencoders: one table for both directions.

    ldm        CompVis/latent-diffusion, taming-transformers, Stability: first
               stages, by themselves or within a model's file
    diffusers  huggingface/diffusers' AutoencoderKL and VQModel
    vqvae2     rosinality/vq-vae-2-pytorch

A group of ours is here {"params": .., "codes": ..}. What files of `ldm` hold
beside it as `loss.*` is no part of that: LPIPS, which is not read, and a
discriminator, which has a table of its own.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxgen.errors import UserError
from jaxgen.interop import names
from jaxgen.interop.names import LEAVES, Entry, Tree
from jaxgen.interop.tensors import Tensor
from jaxgen.interop.unet_names import columns, current_name

LEVEL = re.compile(r"(down|up)_(\d+)_(\d+|down|up)(_attn)?")
# Our blocks and layers -> theirs; a layer in attention may have another name.
WORDS = columns("""
               ldm                diffusers
  conv_in      conv_in            conv_in
  conv_out     conv_out           conv_out
  norm_out     norm_out           conv_norm_out
  mid_0        mid.block_1        mid_block.resnets.0
  mid_1        mid.attn_1         mid_block.attentions.0
  mid_2        mid.block_2        mid_block.resnets.1
  down         down.{i}           down_blocks.{i}
  up           up.{i}             up_blocks.{back}
  res          block.{j}          resnets.{j}
  attn         attn.{j}           attentions.{j}
  down/conv    downsample.conv    downsamplers.0.conv
  up/conv      upsample.conv      upsamplers.0.conv
  conv_1       conv1              conv1
  conv_2       conv2              conv2
  norm_1       norm1              norm1
  norm_2       norm2              norm2
  skip         nin_shortcut       conv_shortcut
  norm         norm               group_norm
  q            q                  to_q
  k            k                  to_k
  v            v                  to_v
  proj         proj_out           to_out.0
  quant        quant_conv         quant_conv
  post_quant   post_quant_conv    post_quant_conv
  last         decoder.conv_out   decoder.conv_out
""")
CODEBOOK = "quantize.embedding.weight"
DISC = re.compile(r"(?:first_stage_model\.)?loss\.discriminator\.(main\.\d+\.(?:weight|bias))")
OURS = re.compile(r"(encoder|decoder|quant_conv|post_quant_conv|quantize)\.")


def ldm_entries(group: Tree, source: str = "ldm") -> list[Entry]:
  """The table of a KLNet or VQNet, by the words of `ldm` or `diffusers`."""
  table, words, tree = [], WORDS[source], group["params"]
  levels = count_levels(tree)
  ones = {"skip", "quant", "post_quant"} | ({"q", "k", "v", "proj"} if source == "ldm" else set())
  for path, leaf in names.flat(tree).items():
    *module, kind = path.split("/")
    if kind == "codebook":
      table.append(names.entry(path, leaf, CODEBOOK))
      continue
    try:
      place = ".".join(ldm_place(module, words, levels))
    except KeyError as e:
      raise UserError(f"{source} has no name for this net's {path}") from e
    after = 2 * (module[-1] in ones and kind == "kernel")
    table.append(names.entry(path, leaf, place + LEAVES[kind], after=after))
  return [e._replace(ours=f"params/{e.ours}") for e in table]


def count_levels(tree: Tree) -> int:
  """Of a net's heights."""
  return 1 + max(int(m[2]) for m in map(LEVEL.fullmatch, tree["encoder"]) if m)


def ldm_place(module: list[str], words: Mapping[str, str], levels: int) -> list[str]:
  """["encoder", "down_0_1", "conv_1"] -> ["encoder", "down.0", "block.1", "conv1"]."""
  if len(module) == 1:
    return [words[module[0]]]
  half, block, *layers = module
  if not (match := LEVEL.fullmatch(block)):
    return [half, *(words[word] for word in (block, *layers))]
  side, i, j, attention = match.groups()
  level = words[side].format(i=i, back=levels - 1 - int(i))
  if j in ("down", "up"):
    return [half, level, words[f"{j}/conv"]]
  row = words["attn" if attention else "res"].format(j=j)
  return [half, level, row, *(words[word] for word in layers)]


def first_stage(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """Of a file's tensors those of an autoencoder, which may be part of a model."""
  inner = "first_stage_model."
  if any(name.startswith(inner) for name in tensors):
    tensors = {k.removeprefix(inner): t for k, t in tensors.items() if k.startswith(inner)}
  return {k: t for k, t in tensors.items() if OURS.match(k)}


def discriminator(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """Of a file's tensors those of a PatchGAN; its norms' averages are not read."""
  matches = [(DISC.fullmatch(name), t) for name, t in tensors.items()]
  return {m[1]: t for m, t in matches if m}


def disc_entries(tree: Tree) -> list[Entry]:
  """The table of a PatchGAN: main.0, .2, .5, .8, .. and the norms behind them."""
  table = []
  for path, leaf in names.flat(tree).items():
    layer, kind = path.split("/")
    word, i = layer.split("_")
    number = 3 * int(i) - (word == "conv" and i != "0")
    table.append(names.entry(path, leaf, f"main.{number}{LEAVES[kind]}"))
  return table


def of_today(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """diffusers' tensors by today's names; attention was once 1 x 1 convolutions."""
  renamed = {current_name(k): t for k, t in tensors.items()}

  def flat(name: str, tensor: Tensor) -> Tensor:
    if not re.search(r"\.to_(q|k|v|out\.0)\.weight$", name) or len(tensor.shape) == 2:
      return tensor
    return tensor.map(lambda x: x.reshape(tensor.shape[:2]), tensor.shape[:2])

  return {name: flat(name, tensor) for name, tensor in renamed.items()}


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


class Layout(NamedTuple):
  """How somebody saves a codec.

  Attributes:
    model: Our model of it, as configs name it.
    entries: A group of ours -> the table of names.
    incoming: Tensors of a file -> those that are weights.
  """

  model: str
  entries: Callable[[Tree], list[Entry]]
  incoming: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict


CODECS = {
  "ldm": Layout("models.codec.Autoencoder", ldm_entries, first_stage),
  "diffusers": Layout(
    "models.codec.Autoencoder", lambda group: ldm_entries(group, "diffusers"), of_today
  ),
  "vqvae2": Layout("models.vqvae.VQVAE2", vqvae2_entries),
}
