"""What others call the weights of BigGAN: the authors' port, and the hubs'.

    biggan      ajbrock/BigGAN-PyTorch: G.pth, G_ema.pth, D.pth
    biggan_hub  huggingface/pytorch-pretrained-BigGAN: BigGAN-deep's generator,
                of DeepMind's weights

A group of ours is here {"params": .., "spectral": .., "batch_stats": ..}.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop import names
from jaxgen.interop.names import Entry, Tree
from jaxgen.interop.tensors import Tensor

Tensors = Mapping[str, Tensor]
PLACE = re.compile(r"(?:block|attn)_(\d+)_(\d+)")
# Our modules -> theirs, outside of blocks and within.
OUTER = {
  "label": "shared",
  "linear": "linear",
  "head/label": "embed",
  "head/linear": "linear",
  "stem": "input_conv",
  "norm": "output_layer.0",
  "conv": "output_layer.2",
}
INNER = {
  "skip": "conv_sc",
  **{f"conv_{i}": f"conv{i}" for i in range(1, 5)},
  **{f"norm_{i}": f"bn{i}" for i in range(1, 5)},
}
LEAVES = {
  "kernel": "weight",
  "embedding": "weight",
  "u": "u0",
  "sigma": "sv0",
  "mean": "stored_mean",
  "var": "stored_var",
}
HUB_OUTER = {
  "label": "embeddings",
  "linear": "generator.gen_z",
  "norm": "generator.bn",
  "conv": "generator.conv_to_rgb",
}
HUB_INNER = {
  "gain": "scale",
  "bias": "offset",
  **{f"conv_{i + 1}": f"conv_{i}" for i in range(4)},
  **{f"norm_{i + 1}": f"bn_{i}" for i in range(4)},
  **{part: f"snconv1x1_{part}" for part in ("theta", "phi", "g")},
  "o": "snconv1x1_o_conv",
}
HUB_LEAVES = {
  "kernel": "weight_orig",
  "u": "weight_u",
  "sigma": "weight_v",
  "embedding": "weight",
  "mean": "running_means",
  "var": "running_vars",
}


def entries(group: str, tree: Tree) -> list[Entry]:
  """The table of the authors' port, for "gen" or "disc"."""
  del group
  table = []
  for path, leaf in names.flat(tree).items():
    block = lambda i, j: f"blocks.{i}.{j}"
    stem = module("biggan", path, OUTER, block, lambda name: INNER.get(name, name))
    name = LEAVES.get(last(path), last(path))
    ones = int(path.startswith("spectral/"))
    table.append(names.entry(path, leaf, f"{stem}.{name}", before=ones))
  return table


def hub_entries(group: str, tree: Tree) -> list[Entry]:
  """The table of the hubs' port."""
  leaves = names.flat(tree)
  if group != "gen" or "params/label/embedding" not in leaves:
    raise UserError("biggan_hub has names for a class-conditional generator alone")
  places = {m.groups() for m in map(PLACE.match, tree["params"]) if m}
  order = sorted(places, key=lambda place: tuple(map(int, place)))
  block = lambda *place: f"generator.layers.{order.index(place)}"
  words = leaves["params/label/embedding"].shape[-1]
  table = []
  for path, leaf in leaves.items():
    stem = module("biggan_hub", path, HUB_OUTER, block, HUB_INNER.get)
    name = HUB_LEAVES.get(last(path), last(path))
    if path == "params/norm/gain":
      name = "weight"
    options = {"before": int(name == "gamma")}
    if last(path) == "embedding":  # theirs is a linear layer
      options["axes"] = (1, 0)
    elif last(path) == "kernel" and len(leaf.shape) == 2:  # theirs take z, then y
      options["first"] = leaf.shape[0] - words
    table.append(names.entry(path, leaf, f"{stem}.{name}", **options))
  return table


def last(path: str) -> str:
  """ "params/linear/kernel" -> "kernel"."""
  return path.rpartition("/")[2]


def module(
  source: str,
  path: str,
  outer: Mapping[str, str],
  block: Callable[..., str],
  inner: Callable[[str], str | None],
) -> str:
  """Their module of a weight of ours.

  Args:
    source: Whose names these are.
    path: Of ours, "params/block_0_0/conv_1/kernel".
    outer: Our modules outside of blocks -> theirs.
    block: The two numbers of a block, as text -> theirs.
    inner: Our modules within blocks -> theirs.
  """
  modules = path.split("/")[1:-1]
  match = PLACE.fullmatch(modules[0]) if modules else None
  if match:
    parts = [block(*match.groups()), *map(inner, modules[1:])]
  else:
    parts = [outer.get("/".join(modules))]
  if None in parts:
    raise UserError(
      f"{source} has no name for this net's {path}: is it a "
      "Generator or Discriminator of nets.biggan or biggan_deep?"
    )
  return ".".join(parts)


def incoming(tensors: Tensors) -> dict[str, Tensor]:
  """The authors' tensors, the generator's bottom with channels last."""
  weights = {
    re.sub(r"\.bn\.(stored|running)_", ".stored_", k): v
    for k, v in tensors.items()  # of batch norms of other kinds
    if not k.endswith((".accumulation_counter", ".num_batches_tracked"))
  }
  return reorder_bottom(weights, lambda x, channels: x.reshape(channels, -1).T)


def outgoing(tensors: Tensors) -> dict[str, Tensor]:
  """The reverse."""
  return reorder_bottom(tensors, lambda x, channels: x.reshape(-1, channels).T)


def reorder_bottom(
  tensors: Tensors, order: Callable[[np.ndarray, int], np.ndarray]
) -> dict[str, Tensor]:
  """The generator's first layer with its outputs in another order."""
  tensors, conv = dict(tensors), tensors.get("blocks.0.0.conv1.weight")
  for name in ("linear.weight", "linear.bias", "linear.u0"):
    tensor, axis = tensors.get(name), int(name.endswith("u0"))
    if (
      None in (conv, tensor)
      or len(conv.shape) < 2
      or len(tensor.shape) <= axis
      or tensor.shape[axis] % conv.shape[1]
    ):
      continue  # a discriminator's, or odd: then the table tells
    index = lambda n: order(np.arange(n), conv.shape[1]).reshape(-1)
    tensors[name] = tensor.map(
      lambda x, index=index, axis=axis: np.take(x, index(x.shape[axis]), axis)
    )
  return tensors


def hub_incoming(tensors: Tensors) -> dict[str, Tensor]:
  """The hubs' tensors, where v is replaced by the singular value it means."""
  weights = dict(tensors)
  for name, v in tensors.items():
    stem = name.removesuffix("_v")
    parts = tensors.get(f"{stem}_orig"), tensors.get(f"{stem}_u")
    if stem == name or None in parts or v.shape != (int(np.prod(parts[0].shape[1:])),):
      continue

    def read(parts=(*parts, v)):
      W, u, v = (part.read().astype(np.float32) for part in parts)
      return np.float32(u @ (W.reshape(len(u), -1) @ v))

    weights[name] = Tensor((), np.dtype(np.float32), read)
  return weights


def hub_outgoing(tensors: Tensors) -> dict[str, Tensor]:
  """The reverse: a v with which u and the weight mean the value."""
  weights = dict(tensors)
  for name, sigma in tensors.items():
    stem = name.removesuffix("_v")
    if stem == name:
      continue
    W, u = tensors[f"{stem}_orig"], tensors[f"{stem}_u"]

    def read(W=W, u=u, sigma=sigma):
      v = u.read() @ W.read().reshape(W.shape[0], -1)
      return v * (sigma.read() / np.maximum(v @ v, 1e-30))

    weights[name] = Tensor((int(np.prod(W.shape[1:])),), W.dtype, read)
  return weights


def hub_check(gen: Mapping[str, Any]) -> None:
  """UserError if the values that they divide weights by would be others."""
  if not gen.get("norm", {}).get("stored"):
    raise UserError(
      "biggan_hub divides by values that are stored: set config."
      'model.gen.norm=dict(name="nets.spectral.spectral", '
      "stored=True), as configs/biggan_deep.py:hub128 has it"
    )
