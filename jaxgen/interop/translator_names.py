"""What junyanz/pytorch-CycleGAN-and-pix2pix calls the weights of its nets.

`latest_net_G.pth` (pix2pix), `latest_net_G_A.pth` (CycleGAN) and so on are plain
state dicts of one net each. U-Nets are nested, model.model.1.model.3.model.., all
else is counted, model.10.conv_block.5. Discriminators are read and written, too:
`latest_net_D.pth`. Running statistics of their norms are nobody's.
"""

import re
from collections.abc import Mapping
from typing import Any

from jaxgen.errors import UserError
from jaxgen.interop import names
from jaxgen.interop.names import Entry, Tree
from jaxgen.interop.tensors import Tensor

# Whose files -> the models that their nets are of.
TRANSLATORS = {"pix2pix": "models.pix2pix.Pix2Pix", "cyclegan": "models.cycle_gan.CycleGAN"}
UNET = re.compile(r"(down|up)_(\d+)(_norm)?")
RESNET = re.compile(r"(in|out|(?:down|up)_\d+|block_\d+_[01])(_norm)?")
DISC = re.compile(r"(conv|norm)_(\d+)")
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
          "var": "running_var"}  # fmt: skip
UNREAD = re.compile(r".*\.(running_mean|running_var|num_batches_tracked)")


def gen_entries(tree: Mapping[str, Tree], dropout: bool = False) -> list[Entry]:
  """The table of a generator's collections, {"params": .., "batch_stats": ..}.

  Args:
    tree: Of a `nets.pix2pix_unet.TranslatorUNet` or `nets.resnet_translator`'s.
    dropout: Whether a ResNet was built with it, which shifts their numbers.
  """
  leaves = names.flat(tree)
  modules = {path.split("/")[1] for path in leaves}
  nested = "up_0" in modules and "in" not in modules
  if nested:
    depth = 1 + max(int(m[2]) for m in map(UNET.fullmatch, modules) if m)
    place = lambda module: unet_place(module, depth)
  else:
    blocks = len({m for m in modules if re.fullmatch(r"block_\d+_0", m)})
    downs = len({m for m in modules if re.fullmatch(r"down_\d+", m)})
    place = lambda module: resnet_place(module, blocks, downs, dropout)
  return [row(path, leaf, place) for path, leaf in leaves.items()]


def disc_entries(tree: Tree) -> list[Entry]:
  """The table of a PatchGAN's or a PixelGAN's parameters."""
  leaves = names.flat(tree)
  pixel = tuple(leaves["conv_0/kernel"].shape[:2]) == (1, 1)

  def place(module: str) -> str:
    match = DISC.fullmatch(module)
    if not match:
      raise UserError(f"pix2pix has no name for this net's {module}: is it a PatchGAN?")
    kind, i = match[1], int(match[2])
    number = 3 * i - 1 if i else 0
    return f"{'net' if pixel else 'model'}.{number + (kind == 'norm')}"

  return [row(f"params/{path}", leaf, place)._replace(ours=path) for path, leaf in leaves.items()]


def row(path: str, leaf: Any, place: Any) -> Entry:
  """One row: "params/down_0/kernel" and where its module stands there."""
  _, module, kind = path.split("/")
  return names.entry(path, leaf, f"{place(module)}.{LEAVES[kind]}")


def unet_place(module: str, depth: int) -> str:
  """ "up_1_norm" -> "model.model.1.model.6", of a net of `depth` halvings."""
  match = UNET.fullmatch(module)
  if not match:
    raise UserError(f"pix2pix has no name for this net's {module}: is it a TranslatorUNet?")
  side, i, norm = match[1], int(match[2]), bool(match[3])
  prefix = "model.model." + ("1.model." + "3.model." * (i - 1) if i else "")
  if i == 0:
    return prefix + {"down": "0", "up": "3"}[side]
  inner = i == depth - 1
  number = {("down", False): 1, ("down", True): 2, ("up", False): 5, ("up", True): 6}[side, norm]
  return prefix + str(number - 2 * inner if side == "up" else number)


def resnet_place(module: str, blocks: int, downs: int, dropout: bool) -> str:
  """ "block_3_1" -> "model.13.conv_block.5", of a net of two halvings."""
  match = RESNET.fullmatch(module)
  if not match:
    raise UserError(f"cyclegan has no name for this net's {module}: is it a TranslatorResNet?")
  stem, norm = match[1], bool(match[2])
  begin = 4 + 3 * downs
  side, _, rest = stem.partition("_")
  if side == "block":
    number, layer = map(int, rest.split("_"))
    inner = 1 + layer * (4 + dropout) + norm
    return f"model.{begin + number}.conv_block.{inner}"
  first = {
    "in": 1,
    "out": begin + blocks + 3 * downs + 1,
    "down": 4 + 3 * int(rest or 0),
    "up": begin + blocks + 3 * (downs - 1 - int(rest or 0)),
  }[side]
  return f"model.{first + norm}"


def incoming(tensors: Mapping[str, Tensor], averages: bool) -> dict[str, Tensor]:
  """Their tensors without what nobody reads: counters, and old statistics.

  Args:
    tensors: Of one net, perhaps saved by data-parallel training.
    averages: Whether running statistics are of batch norms, and so are read.
      PyTorch before 0.4 kept some of instance norms, too.
  """
  own = {}
  for name, tensor in tensors.items():
    name = name.removeprefix("module.")
    if name.endswith("num_batches_tracked") or not averages and UNREAD.fullmatch(name):
      continue
    own[name] = tensor
  return own
