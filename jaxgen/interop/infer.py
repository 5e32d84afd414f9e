"""What network a checkpoint of ADM must be of, from its names and shapes.

The file does not say how many heads attention has, in which order its channels
are, what the noise schedule was, nor (but for classifiers) the images' size.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxgen.errors import UserError

Shapes = dict[str, tuple[int, ...]]
DOWN = re.compile(r"input_blocks\.(\d+)\.0\.op\.weight")


class Network(NamedTuple):
  """The network of a checkpoint.

  Attributes:
    kind: "UNet" or "Classifier".
    net: Attributes of nets.unet.UNet or Classifier.
    attend: Levels with attention; 0 is the full resolution.
    channels: Channels of images.
    low_res: Whether its inputs include a lower resolution.
    size: Height of images, or None.
  """

  kind: str
  net: dict[str, Any]
  attend: tuple[int, ...]
  channels: int
  low_res: bool
  size: int | None


class Encoder(NamedTuple):
  """One of the blocks on the way down."""

  out: int
  attends: bool
  widens: bool


def infer(tensors: Mapping[str, Any]) -> Network:
  """Reads names and shapes of a checkpoint of ADM, or improved-diffusion.

  Raises:
    UserError: It is none, or of a variant that we do not have.
  """
  shapes = {name: tuple(t.shape) for name, t in tensors.items()}
  try:
    return network(shapes)
  except KeyError as e:
    raise UserError(f"this is no checkpoint of ADM's networks: it lacks {e.args[0]}") from e
  except (IndexError, ValueError, ZeroDivisionError) as e:
    raise UserError(f"this is no checkpoint of ADM's networks: {e}") from e


def network(shapes: Shapes) -> Network:
  """`infer`, if all goes well."""
  width = shapes["time_embed.0.weight"][1]
  channels, low_res = images(shapes["input_blocks.0.0.weight"][1])
  classifies = "out.2.c_proj.weight" in shapes
  downs = sorted(int(m[1]) for m in map(DOWN.fullmatch, shapes) if m)
  down = [encoder(shapes, i) for i in range(1, count(shapes, "input"))]
  if downs:
    blocks = downs[0] - 1
  elif classifies:
    blocks = periods(down)
  else:
    blocks = before_rise(shapes)
  levels = [down[i : i + blocks + 1] for i in range(0, len(down), blocks + 1)]
  if not levels or len(levels[-1]) != blocks:
    raise ValueError(f"{len(down) + 1} blocks make no whole levels")
  mults = tuple(level[0].out / width for level in levels)
  first = levels[0][0].out
  embedding = shapes["input_blocks.1.0.emb_layers.1.weight"][0]
  net = dict(
    width=width,
    mults=tuple(int(m) if m == int(m) else m for m in mults),
    blocks=blocks,
    affine=embedding == 2 * first,
    updown=not downs,
  )
  attend = tuple(i for i, level in enumerate(levels) if level[0].attends)
  if classifies:
    side = round((shapes["out.2.positional_embedding"][1] - 1) ** 0.5)
    net |= dict(classes=shapes["out.2.c_proj.weight"][0])
    return Network("Classifier", net, attend, channels, low_res, side << len(levels) - 1)
  (out,) = shapes["out.2.bias"]
  if out not in (channels, 2 * channels):
    raise ValueError(f"{channels} channels come in and {out} go out")
  net |= dict(labels=shapes.get("label_emb.weight", (0,))[0], learned=out > channels)
  return Network("UNet", net, attend, channels, low_res, None)


def images(inputs: int) -> tuple[int, bool]:
  """Channels of images, and whether there are two of them."""
  if inputs not in (1, 2, 3, 6):
    raise ValueError(f"{inputs} channels come in")
  return (inputs, False) if inputs % 2 else (inputs // 2, True)


def count(shapes: Shapes, side: str) -> int:
  """How many input_blocks or output_blocks there are."""
  return 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith(f"{side}_blocks."))


def encoder(shapes: Shapes, i: int) -> Encoder | None:
  """What block i is; None for a strided convolution."""
  stem = f"input_blocks.{i}"
  if f"{stem}.0.op.weight" in shapes:
    return None
  return Encoder(
    shapes[f"{stem}.0.out_layers.3.weight"][0],
    f"{stem}.1.qkv.weight" in shapes,
    f"{stem}.0.skip_connection.weight" in shapes,
  )


def before_rise(shapes: Shapes) -> int:
  """Blocks per level: the first block that rises is the last of its level."""
  number = count(shapes, "output")
  rises = [
    i
    for i in range(number)
    if any(f"output_blocks.{i}.{j}.in_layers.0.weight" in shapes for j in (1, 2))
  ]
  return rises[0] if rises else number - 1


def periods(down: list[Encoder]) -> int:
  """Blocks per level of an encoder whose residual blocks halve, too.

  Nothing marks these, but that they neither widen nor attend, and that blocks
  of one level are alike.
  """
  fits = [b for b in range(1, len(down) + 1) if (len(down) + 1) % (b + 1) == 0 and regular(down, b)]
  if len(fits) != 1:
    numbers = " or ".join(map(str, fits)) or "no number"
    raise ValueError(f"its blocks could make levels of {numbers}")
  return fits[0]


def regular(down: list[Encoder], blocks: int) -> bool:
  """Whether there may be so many blocks per level."""
  for i in range(0, len(down), blocks + 1):
    level = down[i : i + blocks]
    halves = down[i + blocks : i + blocks + 1]
    if len({b.attends for b in level}) > 1 or any(b.widens for b in level[1:]):
      return False
    if any(b.widens or b.attends for b in halves):
      return False
  return True
