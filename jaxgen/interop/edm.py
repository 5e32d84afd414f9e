"""EDM's ADM network (NVlabs/edm, DhariwalUNet) by the names of ADM's own.

It is the same network with attention inside of blocks, blocks named by their
height, and channels of q, k and v in an order of its own: they come out in the
older one of ADM's (`split_first=False`).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop.pickles import plain
from jaxgen.interop.tensors import Tensor

HEAD = 64  # channels of an attention head
LAYERS = {
  "norm0": "in_layers.0",
  "conv0": "in_layers.2",
  "affine": "emb_layers.1",
  "norm1": "out_layers.0",
  "conv1": "out_layers.3",
  "skip": "skip_connection",
}
ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "proj_out"}
OUTER = {
  "map_layer0": "time_embed.0",
  "map_layer1": "time_embed.2",
  "map_label": "label_emb",
  "out_norm": "out.0",
  "out_conv": "out.2",
}
BLOCK = re.compile(r"((?:enc|dec)\.\d+x\d+_(conv|down|up|in\d|block\d+))\.(.+)")


def check(net: Mapping[str, Any]) -> None:
  """UserError if a config's network would read these weights otherwise.

  Shapes are equal whatever heads there are.
  """
  if net.get("split_first"):
    raise UserError("EDM's q, k and v want split_first=False in config.model.net")
  if net.get("heads") or net.get("heads_up") or net.get("head", HEAD) != HEAD:
    raise UserError(
      f"EDM's attention has {HEAD} channels per head: leave "
      f"heads and heads_up, set head={HEAD} in config.model.net"
    )


def as_adm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """Tensors of an EDM pickle's `ema` -> those of ADM's checkpoints.

  UserError for EDM's other network, SongUNet, which is another than ours.
  """
  tensors = {
    k.removeprefix("model."): t for k, t in tensors.items() if not k.endswith("resample_filter")
  }
  if "out_conv.weight" not in tensors:
    raise UserError(
      "this is no pickle of EDM's DhariwalUNet, the one network of EDM's that is known here"
    )
  places = places_of(tensors)
  weights = {}
  for name, tensor in tensors.items():
    match = BLOCK.fullmatch(name)
    if match is None:
      layer, _, leaf = name.rpartition(".")
      if layer not in OUTER:
        raise UserError(f"EDM's {plain(name)} has no place in ADM's network")
      if layer == "map_label":
        tensor = tensor.map(np.transpose, tensor.shape[::-1])
      weights[f"{OUTER[layer]}.{leaf}"] = tensor
      continue
    block, kind, inner = match.groups()
    place, attention_place = places[block]
    layer, _, leaf = inner.rpartition(".")
    if layer in ATTENTION:
      weights[f"{attention_place}.{ATTENTION[layer]}.{leaf}"] = attention(layer, tensor)
    elif kind != "conv" and layer not in LAYERS:
      raise UserError(f"EDM's {plain(name)} has no place in ADM's network")
    else:
      stem = "" if kind == "conv" else f".{LAYERS[layer]}"
      weights[f"{place}{stem}.{leaf}"] = tensor
  return weights


def places_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, str]]:
  """Blocks in their order -> ADM's places of block and attention."""
  matches = [m for m in map(BLOCK.fullmatch, tensors) if m]
  blocks = dict.fromkeys((m[1], m[2]) for m in matches)
  attends = {m[1] for m in matches if m[3].startswith("qkv.")}
  places, down, up, last = {}, 0, 0, ""
  for block, kind in blocks:
    if block.startswith("enc."):
      place, down = f"input_blocks.{down}", down + 1
    elif kind.startswith("in"):
      number = 2 * int(kind == "in1")
      places[block] = f"middle_block.{number}", "middle_block.1"
      continue
    elif kind == "up":  # with the last block of the level below
      places[block] = f"output_blocks.{up - 1}.{1 + (last in attends)}", ""
      continue
    else:
      place, up = f"output_blocks.{up}", up + 1
    places[block], last = (f"{place}.0", f"{place}.1"), block
  return places


def attention(layer: str, tensor: Tensor) -> Tensor:
  """One-dimensional convolutions; q, k and v of a head one after the other."""
  shape = tensor.shape[:3]
  if layer == "qkv" and (not shape or shape[0] % (3 * HEAD)):
    raise UserError(
      f"EDM's attention has {HEAD} channels per head, and this file's is of {list(shape)}"
    )

  def values(x):
    x = x.reshape(shape)
    if layer != "qkv":
      return x
    heads = shape[0] // 3 // HEAD
    return x.reshape(heads, HEAD, 3, *shape[1:]).swapaxes(1, 2).reshape(shape)

  return tensor.map(values, shape)
