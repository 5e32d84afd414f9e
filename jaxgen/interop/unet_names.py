"""Whose checkpoints are known, and how they name a U-Net's modules.

    adm        openai/guided-diffusion, openai/improved-diffusion: U-Net,
               upsampler, classifier
    diffusers  huggingface/diffusers' UNet2DModel
    sr3        Janspiry/Image-Super-Resolution-via-Iterative-Refinement

Our blocks have the numbers of ADM's; for the others they are found by walking.
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
    places: Our blocks in order -> their modules.
    layers: Our layers within blocks -> theirs, by one name or several.
    ones: Layers that are our Dense but their convolution: how many axes of
      length one their kernels end in.
    low_res_first: Their net reads the low resolution before x, not after.
    ignored: Names of what is no weight.
    rename: Names of older files -> of today's.
  """

  places: Callable[[Sequence[Block]], Places]
  layers: Mapping[str, str | tuple[str, ...]]
  ones: Mapping[str, int]
  low_res_first: bool = False
  ignored: frozenset[str] = frozenset()
  rename: Callable[[str], str] = str

  def names(self, block: Block, layer: str) -> tuple[str, ...] | None:
    """Theirs of a layer in a block; None if it has none."""
    for key in (f"{block.side}/{layer}", f"{block.kind}/{layer}", layer):
      if key in self.layers:
        names = self.layers[key]
        return names if isinstance(names, tuple) else (names,)
    return None


def adm_places(blocks: Sequence[Block]) -> Places:
  """input_blocks.i.j, middle_block.j, output_blocks.i.j."""
  fixed = {
    ("head", "norm"): "out.0",
    ("head", "conv"): "out.2",
    ("pool", ""): "out.2",
    ("label", ""): "label_emb",
    ("time", "0"): "time_embed.0",
    ("time", "2"): "time_embed.2",
  }
  found = {}
  for b in blocks:
    if b.side in ("in", "out"):
      attends = b._replace(kind="attn") in blocks
      j = {"attn": 1, "up": 1 + attends}.get(b.kind, 0)
      found[b] = f"{b.side}put_blocks.{b.number}.{j}"
    elif b.side == "mid":
      found[b] = f"middle_block.{b.number}"
    else:
      found[b] = fixed[b[:2]]
  return found


def diffusers_places(blocks: Sequence[Block]) -> Places:
  """down_blocks.level.resnets.j, attentions.j, downsamplers.0 and so on."""
  found = {
    Block(*key, ""): name
    for key, name in {
      ("time", "0"): "time_embedding.linear_1",
      ("time", "2"): "time_embedding.linear_2",
      ("label", ""): "class_embedding",
      ("in", "0"): "conv_in",
      ("mid", "0"): "mid_block.resnets.0",
      ("mid", "1"): "mid_block.attentions.0",
      ("mid", "2"): "mid_block.resnets.1",
      ("head", "norm"): "conv_norm_out",
      ("head", "conv"): "conv_out",
    }.items()
  }
  for side, stem in (("in", "down"), ("out", "up")):
    level, j = 0, -1
    for b in (b for b in blocks if b.side == side and b.kind):
      j += b.kind == "res"
      found[b] = (
        f"{stem}_blocks.{level}."
        + {
          "res": f"resnets.{j}",
          "attn": f"attentions.{j}",
          "down": "downsamplers.0",
          "up": "upsamplers.0",
        }[b.kind]
      )
      if b.kind in ("down", "up"):
        level, j = level + 1, -1
  return found


def sr3_places(blocks: Sequence[Block]) -> Places:
  """downs.n and ups.n, where whatever changes resolution counts, too."""
  found = {
    Block(*key, ""): f"denoise_fn.{name}"
    for key, name in {
      ("time", "0"): "noise_level_mlp.1",
      ("time", "2"): "noise_level_mlp.3",
      ("in", "0"): "downs.0",
      ("mid", "0"): "mid.0.res_block",
      ("mid", "1"): "mid.0.attn",
      ("mid", "2"): "mid.1.res_block",
      ("head", "norm"): "final_conv.block.0",
      ("head", "conv"): "final_conv.block.3",
    }.items()
  }
  for side, stem, first in (("in", "downs", 0), ("out", "ups", -1)):
    n = first
    for b in (b for b in blocks if b.side == side and b.kind):
      n += b.kind != "attn"
      found[b] = f"denoise_fn.{stem}.{n}" + {"res": ".res_block", "attn": ".attn"}.get(b.kind, "")
  return found


def sr3_buffers(betas: np.ndarray) -> dict[str, np.ndarray]:
  """What sr3 saves of its schedule, [T] float64 -> float32 each.

  Ho et al. 2020, Eqs. 4-7.
  """
  alphas = 1 - betas
  bar = np.cumprod(alphas)
  before = np.append(1.0, bar[:-1])
  variance = betas * (1 - before) / (1 - bar)
  made = {
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
  return {name: values.astype(np.float32) for name, values in made.items()}


def of_today(name: str) -> str:
  """Attention in files of diffusers before 0.15."""
  words = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
  return re.sub(r"(?<=\.)(query|key|value|proj_attn)(?=\.)", lambda found: words[found[1]], name)


SOURCES = {
  "adm": Source(
    adm_places,
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
    diffusers_places,
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
    rename=of_today,
  ),
  "sr3": Source(
    sr3_places,
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
    low_res_first=True,
    ignored=frozenset(sr3_buffers(np.array([0.1]))),
  ),
}
