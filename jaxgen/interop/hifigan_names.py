"""What jik876/hifi-gan calls the weights of HiFi-GAN's nets: tables both ways.

One file holds the generator, {"generator": ..}, another both kinds of
discriminators, {"mpd": .., "msd": ..}, whose tensors are called "mpd.x" here.
"""

import re
from collections.abc import Mapping

import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop import biggan_names, names
from jaxgen.interop.names import Entry, Tree
from jaxgen.interop.tensors import Tensor

VOCODERS = {"hifigan": "models.vocoder_gan.VocoderGAN"}  # whose files -> our model
GEN, DISCS = "generator", ("mpd", "msd")  # the sets of their files
UP = re.compile(r"up_(\d+)(?:_block_(\d+)/(dilated|plain)_(\d+))?")
DISC = re.compile(r"(period|scale)_(\d+)/(?:conv_(\d+)|(out))")
NORMED = {"kernel": "weight_v", "scale": "weight_g", "bias": "bias"}
# Of spectral norm: `weight_v` holds what `incoming` makes of it.
SPECTRAL = {"kernel": "weight_orig", "bias": "bias", "u": "weight_u", "sigma": "weight_v"}
# How names begin since PyTorch 2.0, and before that.
TODAY = {"original0": "_g", "original1": "_v", "original": "_orig", "0._u": "_u", "0._v": "_v"}


def gen_entries(tree: Tree) -> list[Entry]:
  """The table of a generator's parameters, with its norms."""
  leaves, table = names.flat(tree), []
  blocks = len({m[2] for m in map(UP.match, leaves) if m and m[2]})
  paired = any("/plain_" in path for path in leaves)
  for path, leaf in leaves.items():
    module, _, kind = path.rpartition("/")
    place, turned = gen_place(module, blocks, paired), module.count("/") == 0
    options = {"after": 2} if kind == "scale" else {}
    if kind == "kernel" and turned and module.startswith("up_"):
      options = {"axes": (1, 2, 0)}  # [in, out, taps] there
    table.append(names.entry(path, leaf, f"{place}.{NORMED[kind]}", **options))
  return table


def gen_place(module: str, blocks: int, paired: bool) -> str:
  """ "up_1_block_0/dilated_2" -> "resblocks.3.convs1.2", of 3 blocks at a level."""
  if module in ("in", "out"):
    return {"in": "conv_pre", "out": "conv_post"}[module]
  if not (match := UP.fullmatch(module)):
    raise UserError(f"hifigan has no name for this net's {module}: is it a HiFiGenerator?")
  level, block, layer, number = match.groups()
  if block is None:
    return f"ups.{level}"
  kind = {"dilated": "convs1" if paired else "convs", "plain": "convs2"}[layer]
  return f"resblocks.{int(level) * blocks + int(block)}.{kind}.{number}"


def disc_entries(tree: Tree) -> list[Entry]:
  """The table of the discriminators' collections, {"params": .., "spectral": ..}."""
  leaves, table = names.flat(tree), []
  for path, leaf in leaves.items():
    module, _, kind = path.partition("/")[2].rpartition("/")
    if not (match := DISC.fullmatch(module)):
      raise UserError(f"hifigan has no name for this net's {path}: is it a HiFiDiscriminator?")
    side, disc, number, _ = match.groups()
    layer = "conv_post" if number is None else f"convs.{number}"
    is_spectral = f"spectral/{module}/u" in leaves
    word = (SPECTRAL if is_spectral else NORMED)[kind]
    flat = side == "period"  # kernels of theirs slide over columns, too
    ones = {"kernel": int(flat), "scale": 2 + flat}.get(kind, 0)
    place = f"{'mpd' if flat else 'msd'}.discriminators.{disc}.{layer}"
    table.append(names.entry(path, leaf, f"{place}.{word}", after=ones))
  return table


def incoming(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """Their tensors, of any age, and with norms or without, as the tables have them.

  Where norms were removed, a kernel is its own direction and length; and v of a
  spectral norm becomes the singular value it means.
  """
  own = {}
  for name, tensor in tensors.items():
    stem, is_today, end = name.partition(".parametrizations.weight.")
    if is_today and end in TODAY:
      name = f"{stem}.weight{TODAY[end]}"
    if name.endswith(".weight"):
      own[f"{name}_g"], name = lengths(tensor), f"{name}_v"
    own[name] = tensor
  return biggan_names.hub_incoming(own)


def outgoing(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """The reverse of `incoming`, by the names of old: a v that means the value."""
  stems = {n.removesuffix("_orig") for n in tensors if n.endswith("_orig")}
  spectral = {k: v for k, v in tensors.items() if k.rpartition("_")[0] in stems}
  return dict(tensors) | biggan_names.hub_outgoing(spectral)


def lengths(kernel: Tensor) -> Tensor:
  """Of a kernel's parts along its first axis, [n, 1, ..]."""
  shape = tuple(n if i == 0 else 1 for i, n in enumerate(kernel.shape))

  def norm(w: np.ndarray) -> np.ndarray:
    w = w.astype(np.float32)
    return np.sqrt(np.sum(w**2, tuple(range(1, w.ndim)), keepdims=True))

  return kernel.map(norm, shape)._replace(dtype=np.dtype(np.float32))
