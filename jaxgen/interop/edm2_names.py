"""What NVlabs/edm2 calls the weights of its network, and what it keeps beside.

Theirs names blocks by their height, ours by their level. Frequencies and phases
are buffers there and here; of a pickle all of it is float16.
"""

import re

from jaxgen.interop.names import Entry, Tree, entry, flat

NET = "nets.edm2.EDM2"
LEVEL = re.compile(r"(enc|dec)_(\d+)_")


def entries(tree: Tree, height: int) -> list[Entry]:
  """The table for the collections of our net, see `names.Entry`.

  Args:
    tree: {"params": .., "buffers": ..}.
    height: Of what the net sees.
  """
  return [entry(path, leaf, reference(path, height)) for path, leaf in flat(tree).items()]


def reference(path: str, height: int) -> str:
  """ "params/enc_1_block0/conv_res0/kernel" -> "unet.enc.32x32_block0.conv_res0.weight"."""
  name = path.partition("/")[2]

  def block(match: re.Match) -> str:
    size = height >> int(match[2])
    return f"{match[1]}.{size}x{size}_"

  name = LEVEL.sub(block, name).replace("kernel", "weight").replace("/", ".")
  return name if name.startswith("logvar_") else f"unet.{name}"
