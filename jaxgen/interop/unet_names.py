"""Whose checkpoints are known, and how they name a U-Net's modules.

    adm          openai/guided-diffusion, openai/improved-diffusion: U-Net,
                 upsampler, classifier
    consistency  openai/consistency_models: ADM's names, other convolutions
    diffusers    huggingface/diffusers' UNet2DModel
    palette      Janspiry/Palette-Image-to-Image-Diffusion-Models: ADM's but one
    sr3          Janspiry/Image-Super-Resolution-via-Iterative-Refinement

Our blocks have the numbers of ADM's; for the others they are counted.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
  """A module of ours: in_4_res is ("in", "4", "res")."""

  side: str
  number: str
  kind: str


Places = dict[Block, str]


@dataclasses.dataclass(frozen=True)
class Source:
  """How somebody names things.

  Attributes:
    blocks: Our blocks without a kind -> their modules, {"time_0": ..}.
    layers: Our layers within blocks -> theirs, several with commas.
    ones: Layers that are our Dense but their convolution: how many axes of
      length one their kernels end in.
    rows: Our other blocks, on the way down and up, in order -> their modules.
    prefix: All their names begin with it.
    low_res_first: Their net reads the low resolution before x, not after.
    ignored: Names of what is no weight.
    rename: Names of older files -> of today's.
  """

  blocks: Mapping[str, str]
  layers: Mapping[str, str]
  ones: Mapping[str, int]
  rows: Callable[[Sequence[Block]], Places]
  prefix: str = ""
  low_res_first: bool = False
  ignored: frozenset[str] = frozenset()
  rename: Callable[[str], str] = str

  def places(self, blocks: Sequence[Block]) -> Places:
    """Our blocks in order -> their modules, as far as they have them."""
    names = ((b, self.blocks.get("_".join(filter(None, b)))) for b in blocks)
    places = {b: name for b, name in names if name} | self.rows([b for b in blocks if b.kind])
    return {b: self.prefix + name for b, name in places.items()}

  def names(self, block: Block, layer: str) -> list[str] | None:
    """Their names of a layer in a block; None if it has none."""
    if not layer:  # the block itself
      return [""]
    keys = f"{block.side}/{layer}", f"{block.kind}/{layer}", layer
    return next((self.layers[key].split(",") for key in keys if key in self.layers), None)


def adm_rows(blocks: Sequence[Block]) -> Places:
  """input_blocks.i.j and output_blocks.i.j."""
  places = {}
  for b in blocks:
    attends = b._replace(kind="attn") in blocks
    j = {"attn": 1, "up": 1 + attends}.get(b.kind, 0)
    places[b] = f"{b.side}put_blocks.{b.number}.{j}"
  return places


def diffusers_rows(blocks: Sequence[Block]) -> Places:
  """down_blocks.level.resnets.j, attentions.j, downsamplers.0 and so on."""
  places = {}
  for side, stem in (("in", "down"), ("out", "up")):
    level, j = 0, -1
    for b in (b for b in blocks if b.side == side):
      j += b.kind == "res"
      kinds = {"res": f"resnets.{j}", "attn": f"attentions.{j}"}
      kinds |= {"down": "downsamplers.0", "up": "upsamplers.0"}
      places[b] = f"{stem}_blocks.{level}.{kinds[b.kind]}"
      if b.kind in ("down", "up"):
        level, j = level + 1, -1
  return places


def sr3_rows(blocks: Sequence[Block]) -> Places:
  """downs.n and ups.n, where whatever changes resolution counts, too."""
  places = {}
  for side, stem, n in (("in", "downs", 0), ("out", "ups", -1)):
    for b in (b for b in blocks if b.side == side):
      n += b.kind != "attn"
      places[b] = f"{stem}.{n}" + {"res": ".res_block", "attn": ".attn"}.get(b.kind, "")
  return places


def sr3_buffers(betas: np.ndarray) -> dict[str, np.ndarray]:
  """What sr3 saves of its schedule, [T] float64 -> float32 each.

  Ho et al. 2020, Eqs. 4-7.
  """
  alphas = 1 - betas
  bar = np.cumprod(alphas)
  before = np.append(1.0, bar[:-1])
  variance = betas * (1 - before) / (1 - bar)
  buffers = {
    "betas": betas,
    "alphas_cumprod": bar,
    "alphas_cumprod_prev": before,
    "sqrt_alphas_cumprod": np.sqrt(bar),
    "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - bar),
    "log_one_minus_alphas_cumprod": np.log(1 - bar),
    "sqrt_recip_alphas_cumprod": np.sqrt(1 / bar),
    "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / bar - 1),
    "posterior_variance": variance,
    "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
    "posterior_mean_coef1": betas * np.sqrt(before) / (1 - bar),
    "posterior_mean_coef2": (1 - before) * np.sqrt(alphas) / (1 - bar),
  }
  return {name: values.astype(np.float32) for name, values in buffers.items()}


def current_name(name: str) -> str:
  """Attention in files of diffusers before 0.15, by the names of later ones."""
  words = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
  return re.sub(r"(?<=\.)(query|key|value|proj_attn)(?=\.)", lambda m: words[m[1]], name)


def columns(table: str) -> dict[str, dict[str, str]]:
  """{source: {ours: theirs}} of a table whose head names sources; "-": none."""
  head, *rows = [line.split() for line in table.strip().splitlines()]
  return {
    source: {row[0]: row[i] for row in rows if row[i] != "-"} for i, source in enumerate(head, 1)
  }


BLOCKS = columns("""
             adm                   diffusers                 sr3
  time_0     time_embed.0          time_embedding.linear_1   noise_level_mlp.1
  time_2     time_embed.2          time_embedding.linear_2   noise_level_mlp.3
  label      label_emb             class_embedding           -
  in_0       input_blocks.0.0      conv_in                   downs.0
  mid_0      middle_block.0        mid_block.resnets.0       mid.0.res_block
  mid_1      middle_block.1        mid_block.attentions.0    mid.0.attn
  mid_2      middle_block.2        mid_block.resnets.1       mid.1.res_block
  head_norm  out.0                 conv_norm_out             final_conv.block.0
  head_conv  out.2                 conv_out                  final_conv.block.3
  pool       out.2                 -                         -
""")
LAYERS = columns("""
             adm                   diffusers                 sr3
  positional positional_embedding  -                         -
  norm       norm                  group_norm                norm
  norm_1     in_layers.0           norm1                     block1.block.0
  conv_1     in_layers.2           conv1                     block1.block.3
  emb        emb_layers.1          time_emb_proj             noise_func.noise_func.0
  norm_2     out_layers.0          norm2                     block2.block.0
  conv_2     out_layers.3          conv2                     block2.block.3
  skip       skip_connection       conv_shortcut             res_conv
  qkv        qkv                   to_q,to_k,to_v            qkv
  proj       proj_out              to_out.0                  out
  conv       -                     conv                      conv
  down/conv  op                    -                         -
  up/conv    conv                  -                         -
  pool/qkv   qkv_proj              -                         -
  pool/proj  c_proj                -                         -
""")

# What Palette's code saves of its schedule.
PALETTE_BUFFERS = (
  "gammas",
  "sqrt_recip_gammas",
  "sqrt_recipm1_gammas",
  "posterior_log_variance_clipped",
  "posterior_mean_coef1",
  "posterior_mean_coef2",
)
SOURCES = {
  "adm": Source(BLOCKS["adm"], LAYERS["adm"], {"skip": 2, "qkv": 1, "proj": 1}, adm_rows),
  "consistency": Source(BLOCKS["adm"], LAYERS["adm"], {"skip": 2, "qkv": 2, "proj": 2}, adm_rows),
  "diffusers": Source(
    BLOCKS["diffusers"], LAYERS["diffusers"], {"skip": 2}, diffusers_rows, rename=current_name
  ),
  "palette": Source(
    BLOCKS["adm"] | {"time_0": "cond_embed.0", "time_2": "cond_embed.2"},
    LAYERS["adm"],
    {"skip": 2, "qkv": 1, "proj": 1},
    adm_rows,
    prefix="denoise_fn.",
    low_res_first=True,
    ignored=frozenset(PALETTE_BUFFERS),
  ),
  "sr3": Source(
    BLOCKS["sr3"],
    LAYERS["sr3"],
    {"skip": 2, "qkv": 2, "proj": 2},
    sr3_rows,
    prefix="denoise_fn.",
    low_res_first=True,
    ignored=frozenset(sr3_buffers(np.array([0.1]))),
  ),
}
