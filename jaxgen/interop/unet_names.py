"""Whose checkpoints are known, and how they name a U-Net's modules.

    adm        openai/guided-diffusion, openai/improved-diffusion: U-Net,
               upsampler, classifier
    diffusers  huggingface/diffusers' UNet2DModel
    sr3        Janspiry/Image-Super-Resolution-via-Iterative-Refinement

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
    single: Our blocks without a kind -> their modules, {"time_0": ..}.
    rows: Our other blocks, on the way down and up, in order -> their modules.
    layers: Our layers within blocks -> theirs, by one name or several.
    ones: Layers that are our Dense but their convolution: how many axes of
      length one their kernels end in.
    prefix: All their names begin with it.
    low_res_first: Their net reads the low resolution before x, not after.
    ignored: Names of what is no weight.
    rename: Names of older files -> of today's.
  """

  single: Mapping[str, str]
  rows: Callable[[Sequence[Block]], Places]
  layers: Mapping[str, str | tuple[str, ...]]
  ones: Mapping[str, int]
  prefix: str = ""
  low_res_first: bool = False
  ignored: frozenset[str] = frozenset()
  rename: Callable[[str], str] = str

  def places(self, blocks: Sequence[Block]) -> Places:
    """Our blocks in order -> their modules, as far as they have them."""
    names = ((b, self.single.get("_".join(filter(None, b)))) for b in blocks)
    places = {b: name for b, name in names if name} | self.rows([b for b in blocks if b.kind])
    return {b: self.prefix + name for b, name in places.items()}

  def names(self, block: Block, layer: str) -> tuple[str, ...] | None:
    """Their names of a layer in a block; None if it has none."""
    for key in (f"{block.side}/{layer}", f"{block.kind}/{layer}", layer):
      if key in self.layers:
        names = self.layers[key]
        return names if isinstance(names, tuple) else (names,)
    return None


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


SOURCES = {
  "adm": Source(
    {
      "time_0": "time_embed.0",
      "time_2": "time_embed.2",
      "label": "label_emb",
      "in_0": "input_blocks.0.0",
      "mid_0": "middle_block.0",
      "mid_1": "middle_block.1",
      "mid_2": "middle_block.2",
      "head_norm": "out.0",
      "head_conv": "out.2",
      "pool": "out.2",
    },
    adm_rows,
    {
      "": "",
      "positional": "positional_embedding",
      "norm": "norm",
      "norm_1": "in_layers.0",
      "conv_1": "in_layers.2",
      "emb": "emb_layers.1",
      "norm_2": "out_layers.0",
      "conv_2": "out_layers.3",
      "skip": "skip_connection",
      "qkv": "qkv",
      "proj": "proj_out",
      "down/conv": "op",
      "up/conv": "conv",
      "pool/qkv": "qkv_proj",
      "pool/proj": "c_proj",
    },
    {"skip": 2, "qkv": 1, "proj": 1},
  ),
  "diffusers": Source(
    {
      "time_0": "time_embedding.linear_1",
      "time_2": "time_embedding.linear_2",
      "label": "class_embedding",
      "in_0": "conv_in",
      "mid_0": "mid_block.resnets.0",
      "mid_1": "mid_block.attentions.0",
      "mid_2": "mid_block.resnets.1",
      "head_norm": "conv_norm_out",
      "head_conv": "conv_out",
    },
    diffusers_rows,
    {
      "": "",
      "norm_1": "norm1",
      "conv_1": "conv1",
      "emb": "time_emb_proj",
      "norm_2": "norm2",
      "conv_2": "conv2",
      "skip": "conv_shortcut",
      "norm": "group_norm",
      "qkv": ("to_q", "to_k", "to_v"),
      "proj": "to_out.0",
      "conv": "conv",
    },
    {"skip": 2},
    rename=current_name,
  ),
  "sr3": Source(
    {
      "time_0": "noise_level_mlp.1",
      "time_2": "noise_level_mlp.3",
      "in_0": "downs.0",
      "mid_0": "mid.0.res_block",
      "mid_1": "mid.0.attn",
      "mid_2": "mid.1.res_block",
      "head_norm": "final_conv.block.0",
      "head_conv": "final_conv.block.3",
    },
    sr3_rows,
    {
      "": "",
      "norm_1": "block1.block.0",
      "conv_1": "block1.block.3",
      "emb": "noise_func.noise_func.0",
      "norm_2": "block2.block.0",
      "conv_2": "block2.block.3",
      "skip": "res_conv",
      "norm": "norm",
      "qkv": "qkv",
      "proj": "out",
      "conv": "conv",
    },
    {"skip": 2, "qkv": 2, "proj": 2},
    prefix="denoise_fn.",
    low_res_first=True,
    ignored=frozenset(sr3_buffers(np.array([0.1]))),
  ),
}
