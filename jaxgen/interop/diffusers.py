"""What the config.json of diffusers says that names and shapes do not."""

import json
import os
import pathlib
from typing import Any

from jaxgen.errors import UserError
from jaxgen.interop.pickles import plain

FIXED = {  # what our net cannot do otherwise, and shapes do not tell
  "act_fn": ("silu", "swish"),
  "center_input_sample": (False,),
  "mid_block_scale_factor": (1,),
  "time_embedding_type": ("positional",),
  "class_embed_type": (None,),
}


def facts(checkpoint: str | os.PathLike) -> dict[str, Any]:
  """The config.json beside a checkpoint; empty if there is none."""
  path = pathlib.Path(checkpoint).parent / "config.json"
  try:
    said = json.loads(path.read_text())
  except FileNotFoundError:
    return {}
  except (OSError, RecursionError, ValueError) as e:
    raise UserError(f"{path} cannot be read: {e}") from e
  return said if isinstance(said, dict) else {}


def check(said: dict[str, Any], net: dict[str, Any]) -> None:
  """UserError if a UNet2DModel of these facts is not our net.

  Args:
    said: See `facts`; what it does not say is UNet2DModel's default.
    net: Attributes of nets.unet.UNet, as a config has them.
  """
  features = net.get("embedding", {}).get("features", {})
  heads = said.get("attention_head_dim", 8)  # channels of each; None: one
  if net.get("heads") == 1 and net.get("heads_up") in (None, 1):
    mine = None
  elif net.get("heads") or net.get("heads_up"):
    mine = "a fixed number of heads"
  else:
    mine = net.get("head", 64)
  ours = {
    "norm_eps": (said.get("norm_eps", 1e-5), net.get("eps", 1e-5), "eps"),
    "norm_num_groups": (said.get("norm_num_groups", 32), net.get("groups", 32), "groups"),
    "downsample_padding": (said.get("downsample_padding", 1), net.get("pad", (1, 1))[0], "pad"),
    "flip_sin_to_cos": (
      said.get("flip_sin_to_cos", True),
      not features.get("sine_first", False),
      "embedding.features.sine_first",
    ),
    "freq_shift": (
      said.get("freq_shift", 0),
      int(features.get("ends", False)),
      "embedding.features.ends",
    ),
    "attention_head_dim": (heads, mine, "heads or head"),
    "attn_norm_num_groups": (
      said.get("attn_norm_num_groups") or said.get("norm_num_groups", 32),
      net.get("groups", 32),
      "groups",
    ),
  }
  for name, want in FIXED.items():
    if said.get(name, want[0]) not in want:
      raise UserError(
        f"config.json means {name}={plain(said[name])}, and there is no such net here"
      )
  for name, (theirs, mine, where) in ours.items():
    if theirs != mine:
      raise UserError(
        f"config.json means {name}={plain(theirs)}, the config "
        f"{mine}: see {where} of config.model.net"
      )
