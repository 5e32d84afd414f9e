"""What the config.json of diffusers says that names and shapes do not."""

import json
import os
import pathlib
from typing import Any

from jaxgen.errors import UserError
from jaxgen.interop.pickles import plain

DEFAULTS = {  # of UNet2DModel
  "norm_eps": 1e-5,
  "norm_num_groups": 32,
  "downsample_padding": 1,
  "flip_sin_to_cos": True,
  "freq_shift": 0,
  "attention_head_dim": 8,
  "attn_norm_num_groups": None,
}
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
    config = json.loads(path.read_text())
  except FileNotFoundError:
    return {}
  except (OSError, RecursionError, ValueError) as e:
    raise UserError(f"{path} cannot be read: {e}") from e
  return config if isinstance(config, dict) else {}


def check(facts: dict[str, Any], net: dict[str, Any]) -> None:
  """UserError if a UNet2DModel of these facts is not our net.

  Args:
    facts: See `facts`; what is absent is UNet2DModel's default.
    net: Attributes of nets.unet.UNet, as a config has them.
  """
  facts = DEFAULTS | facts
  facts["attn_norm_num_groups"] = facts["attn_norm_num_groups"] or facts["norm_num_groups"]
  for name, values in FIXED.items():
    if facts.get(name, values[0]) not in values:
      raise UserError(
        f"config.json means {name}={plain(facts[name])}, and there is no such net here"
      )
  features = net.get("embedding", {}).get("features", {})
  if net.get("heads") == 1 and net.get("heads_up") in (None, 1):
    channels = None  # of each head
  elif net.get("heads") or net.get("heads_up"):
    channels = "a fixed number of heads"
  else:
    channels = net.get("head", 64)
  for name, ours, where in (
    ("norm_eps", net.get("eps", 1e-5), "eps"),
    ("norm_num_groups", net.get("groups", 32), "groups"),
    ("downsample_padding", net.get("pad", (1, 1))[0], "pad"),
    ("flip_sin_to_cos", not features.get("sine_first", False), "embedding.features.sine_first"),
    ("freq_shift", int(features.get("ends", False)), "embedding.features.ends"),
    ("attention_head_dim", channels, "heads or head"),
    ("attn_norm_num_groups", net.get("groups", 32), "groups"),
  ):
    if facts[name] != ours:
      raise UserError(
        f"config.json means {name}={plain(facts[name])}, the config "
        f"{ours}: see {where} of config.model.net"
      )
