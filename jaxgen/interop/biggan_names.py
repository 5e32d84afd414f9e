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
from jaxgen.interop.unet_names import columns

Tensors = Mapping[str, Tensor]
PLACE = re.compile(r"(?:block|attn)_(\d+)_(\d+)")
# Our modules -> theirs, outside of blocks and within; our leaves -> theirs.
OUTER = columns("""
               biggan           biggan_hub
  label        shared           embeddings
  linear       linear           generator.gen_z
  head/label   embed            -
  head/linear  linear           -
  stem         input_conv       -
  norm         output_layer.0   generator.bn
  conv         output_layer.2   generator.conv_to_rgb
""")
INNER = columns("""
               biggan           biggan_hub
  skip         conv_sc          -
  conv_1       conv1            conv_0
  conv_2       conv2            conv_1
  conv_3       conv3            conv_2
  conv_4       conv4            conv_3
  norm_1       bn1              bn_0
  norm_2       bn2              bn_1
  norm_3       bn3              bn_2
  norm_4       bn4              bn_3
  gain         gain             scale
  bias         bias             offset
  theta        theta            snconv1x1_theta
  phi          phi              snconv1x1_phi
  g            g                snconv1x1_g
  o            o                snconv1x1_o_conv
""")
LEAVES = columns("""
               biggan           biggan_hub
  kernel       weight           weight_orig
  embedding    weight           weight
  u            u0               weight_u
  sigma        sv0              weight_v
  mean         stored_mean      running_means
  var          stored_var       running_vars
""")


def entries(group: str, tree: Tree) -> list[Entry]:
  """The table of the authors' port, for "gen" or "disc"."""
  del group
  table = []
  for path, leaf in names.flat(tree).items():
    block = lambda i, j: f"blocks.{i}.{j}"
    stem, name = rename("biggan", path, block)
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
    stem, name = rename("biggan_hub", path, block)
    if path == "params/norm/gain":
      name = "weight"
    options = {"before": int(name == "gamma")}
    if path.rpartition("/")[2] == "embedding":  # theirs is a linear layer
      options["axes"] = (1, 0)
    elif path.rpartition("/")[2] == "kernel" and len(leaf.shape) == 2:  # theirs take z, then y
      options["first"] = leaf.shape[0] - words
    table.append(names.entry(path, leaf, f"{stem}.{name}", **options))
  return table


def rename(source: str, path: str, block: Callable[[str, str], str]) -> tuple[str, str]:
  """Their module and leaf of a weight of ours, "params/block_0_0/conv_1/kernel".

  `block` gives the name of a block of theirs, by the two numbers of ours.
  """
  _, *modules, leaf = path.split("/")
  match = PLACE.fullmatch(modules[0]) if modules else None
  if match:
    parts = [block(*match.groups()), *map(INNER[source].get, modules[1:])]
  else:
    parts = [OUTER[source].get("/".join(modules))]
  if None in parts:
    raise UserError(
      f"{source} has no name for this net's {path}: is it a "
      "Generator or Discriminator of nets.biggan or biggan_deep?"
    )
  return ".".join(parts), LEAVES[source].get(leaf, leaf)


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
