"""What NVlabs/denoising-diffusion-gan calls the weights of its nets.

`netG_1200.pth` holds a generator, whose weights are averages already; with all
modules in one list, by whose numbers ours are called. `content.pth`, to train
on, holds {"netG_dict": .., "netD_dict": ..}, of which the former are raw.
"""

import re

from jaxgen.errors import UserError
from jaxgen.interop import names
from jaxgen.interop.names import Entry, Tree

DENOISING = {"ddgan": "models.denoising_gan.DenoisingGAN"}  # whose files -> our model
GEN_NET, DISC_NET = "nets.ncsnpp.NCSNpp", "nets.ddgan_disc.PairDiscriminator"
SETS = {"gen": "netG_dict", "disc": "netD_dict"}  # of content.pth
GEN = re.compile(r"(fourier|time|in|res|shrink|attn|norm|out|z)_(\d+)(?:/(.+))?")
INNER = {
  "norm_1/style": "GroupNorm_0.style",
  "norm_2/style": "GroupNorm_1.style",
  "conv_1": "Conv_0",
  "conv_2": "Conv_1",
  "skip": "Conv_2",
  "time": "Dense_0",
  "norm": "GroupNorm_0",
  **{name: f"NIN_{i}" for i, name in enumerate(("q", "k", "v", "out"))},
}
DISC = {
  "time_0": "t_embed.main.0",
  "time_2": "t_embed.main.2",
  "in": "start_conv",
  "last": "final_conv",
  "out": "end_linear",
}
BLOCK = {"conv_1": "conv1.0", "conv_2": "conv2.0", "time": "dense_t1", "skip": "skip.0"}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def gen_entries(tree: Tree) -> list[Entry]:
  """The table of a `nets.ncsnpp.NCSNpp`."""
  table = []
  for path, leaf in names.flat(tree).items():
    module, _, kind = path.rpartition("/")
    match = GEN.fullmatch(module or path)
    inner = INNER.get(match[3]) if match and match[3] else ""
    if not match or inner is None or match[1] == "z" and match[3]:
      raise UserError(f"ddgan has no name for this net's {path}: is it an unconditional NCSNpp?")
    side, number = match[1], int(match[2])
    place = f"z_transform.{1 + 2 * number}" if side == "z" else f"all_modules.{number}"
    how, end = {}, LEAVES.get(kind, "W")
    if side == "shrink":
      inner = "Conv2d_0"
    elif inner.startswith("NIN"):  # [in, out] there
      end = {"kernel": "W", "bias": "b"}[kind]
      how = {"axes": (0, 1)} if kind == "kernel" else {}
    elif inner == "Conv_2" and kind == "kernel":
      how = {"after": 2}
    name = ".".join(filter(None, (place, inner, end)))
    table.append(names.entry(path, leaf, name, **how))
  return table


def disc_entries(tree: Tree) -> list[Entry]:
  """The table of a `nets.ddgan_disc.PairDiscriminator`."""
  table = []
  for path, leaf in names.flat(tree).items():
    module, _, kind = path.rpartition("/")
    block, _, layer = module.partition("/")
    number = block.removeprefix("block_")
    place = DISC.get(module)
    if layer in BLOCK and number.isdecimal():
      place = f"conv{int(number) + 1}.{BLOCK[layer]}"
    if place is None or kind not in LEAVES:
      raise UserError(
        f"ddgan has no name for this net's {path}: is it an unconditional PairDiscriminator?"
      )
    flat = kind == "kernel" and (module == "in" or layer == "skip")
    table.append(
      names.entry(path, leaf, f"{place}.{LEAVES[kind]}", **({"after": 2} if flat else {}))
    )
  return table
