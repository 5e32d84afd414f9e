"""What others call StyleGAN2's weights: the reference code, and its port.

Our names are the reference's (NVlabs/stylegan2-ada-pytorch), but for "kernel".
The port (rosinality/stylegan2-pytorch) counts layers instead.
"""

from collections.abc import Mapping

import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop.names import Entry, Tree, entry, flat
from jaxgen.interop.pickles import plain
from jaxgen.interop.tensors import Tensor, lazy

TAPS = np.float32([1, 3, 3, 1])
FILTER = np.outer(TAPS, TAPS) / TAPS.sum() ** 2
CONST = (2, 0, 1)  # axes of the constant that synthesis begins with
# Axes of length one (before, after) of the port's tensors.
ONES = {"noise_const": (2, 0), "const": (1, 0), "noise_strength": (1, 0)}


def entries(group: str, tree: Tree) -> list[Entry]:
  """The reference's names for the collections of a group."""
  del group
  return [
    entry(path, leaf, reference(path), axes=CONST if path.endswith("/const") else None)
    for path, leaf in flat(tree).items()
  ]


def reference(path: str) -> str:
  """ "params/synthesis_b8/conv0/kernel" -> "synthesis.b8.conv0.weight"."""
  if path == "average/w_avg":
    return "mapping.w_avg"
  name = path.partition("/")[2].replace("synthesis_", "synthesis/")
  return name.replace("kernel", "weight").replace("/", ".")


def port_entries(group: str, tree: Tree) -> list[Entry]:
  """The port's names for the collections of a group."""
  leaves = flat(tree)
  rename = port_gen if group == "gen" else port_disc
  sizes = [
    int(p.split("/")[1].removeprefix("synthesis_")[1:])
    for p in leaves
    if p.startswith(("params/b", "params/synthesis_b"))
  ]
  levels = max(sizes, default=4).bit_length() - 1
  table = []
  for path, leaf in leaves.items():
    last = path.rpartition("/")[2]
    name = "latent_avg" if last == "w_avg" else rename(*path.split("/")[1:], levels=levels)
    before, after = ONES.get(last, (0, 0))
    if group == "gen" and last == "kernel" and len(leaf.shape) == 4:
      before = 1
    if path.endswith("torgb/bias"):
      before, after = 1, 2
    axes = CONST if last == "const" else None
    table.append(entry(path, leaf, name, before=before, after=after, axes=axes))
  if group == "disc" and not any("/skip/" in path for path in leaves):
    raise UserError('stylegan2 has residual discriminators alone: arch="resnet"')
  return table


def nameless(*path: str) -> UserError:
  """The error for what the port does not have."""
  return UserError(
    f"stylegan2 has no name for this net's {'/'.join(path)}: it has no labels, and one architecture"
  )


def port_gen(*path: str, levels: int) -> str:
  """The port's name of a generator's weight."""
  del levels
  block, layer, *inner = path
  if block == "mapping" and layer.startswith("fc"):
    word = "weight" if inner == ["kernel"] else inner[0]
    return f"style.{int(layer[2:]) + 1}.{word}"
  if layer == "const":
    return "input.input"
  if block == "mapping" or layer == "skip":
    raise nameless(*path)
  level = int(block.removeprefix("synthesis_b")).bit_length() - 4  # b8: 0
  number = 2 * level + int(layer == "conv1")  # conv1 of b4: -1
  if inner == ["noise_const"]:
    return f"noises.noise_{number + 1}"
  if layer == "torgb":
    stem = "to_rgb1" if level < 0 else f"to_rgbs.{level}"
  else:
    stem = "conv1" if level < 0 else f"convs.{number}"
  ends = {
    "kernel": "conv.weight",
    "affine/kernel": "conv.modulation.weight",
    "affine/bias": "conv.modulation.bias",
    "noise_strength": "noise.weight",
    "bias": "bias" if layer == "torgb" else "activate.bias",
  }
  return f"{stem}.{ends['/'.join(inner)]}"


def port_disc(*path: str, levels: int) -> str:
  """The port's name of a weight, for images of height 2^levels."""
  block, layer, leaf = path
  stems = {"conv": "final_conv", "fc": "final_linear.0", "out": "final_linear.1"}
  word = "weight" if leaf == "kernel" else leaf
  if block == "b4" and layer in ("fc", "out"):
    return f"{stems[layer]}.{word}"
  at = int(leaf == "bias")  # a module of its own, after the convolution
  if block == "b4" and layer == "conv":
    return f"{stems[layer]}.{at}.{word}"
  level = int(block[1:]).bit_length() - 1 if block != "mapping" else 0
  if level == levels and layer == "fromrgb":
    return f"convs.0.{at}.{word}"
  names = {"conv0": ("conv1", 0), "conv1": ("conv2", 1), "skip": ("skip", 1)}
  if level <= 2 or layer not in names:
    raise nameless(*path)
  name, first = names[layer]  # those that halve begin with a filter
  return f"convs.{levels - level + 1}.{name}.{first + at}.{word}"


def port_filters(group: str, names: set[str]) -> dict[str, Tensor]:
  """The filters that the port saves, too."""
  filters = {}
  for name in names:
    stem, _, end = name.rpartition(".")
    if group == "gen" and end == "weight" and stem.endswith(".conv"):
      layer, number, _ = (*stem.split("."), "")[:3]
      if layer == "to_rgbs":
        filters[f"{layer}.{number}.upsample.kernel"] = lazy(4 * FILTER)
      elif layer == "convs" and int(number) % 2 == 0:
        filters[f"{stem}.blur.kernel"] = lazy(4 * FILTER)
    elif group == "disc" and stem.endswith(("conv2.1", "skip.1")):
      filters[f"{stem[:-1]}0.kernel"] = lazy(FILTER)
  return filters


def without_filters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """All but the filters, which must be the usual ones."""
  weights = {}
  for name, tensor in tensors.items():
    if not name.endswith((".resample_filter", ".kernel")):
      weights[name] = tensor
      continue
    values = tensor.read().astype(np.float32) if tensor.shape == FILTER.shape else np.zeros(1)
    if not any(np.array_equal(values, scale * FILTER) for scale in (1, 4)):
      raise UserError(
        f"{plain(name)} is another filter than [1, 3, 3, 1]: such nets are not imported"
      )
  return weights
