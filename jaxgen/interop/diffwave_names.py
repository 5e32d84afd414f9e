"""What others call the weights of DiffWave's nets: tables for both directions.

diffwave   lmnt-com/diffwave; a label, for which no code was published, is
           where the upsampler would be
wavenet    philsyn/DiffWave-unconditional and -Vocoder
"""

import re
from collections.abc import Mapping
from typing import Any

from jaxgen.errors import UserError
from jaxgen.interop import names
from jaxgen.interop.names import Entry, Tree

# Whose files they are of -> our net.
WAVES = {"diffwave": "nets.diffwave.DiffWave", "wavenet": "nets.diffwave.WaveNet"}
SETS = {"diffwave": "model", "wavenet": "model_state_dict"}  # where their files have it
LAYER = re.compile(r"layer_(\d+)_(\w+)")
OUTER = {
  "diffwave": {
    "in": "input_projection",
    "step_1": "diffusion_embedding.projection1",
    "step_2": "diffusion_embedding.projection2",
    "label": "spectrogram_upsampler.embedding",
    "upsampler": "spectrogram_upsampler.conv{}",
    "skip": "skip_projection",
    "out": "output_projection",
  },
  "wavenet": {
    "in": "init_conv.0.conv",
    "step_1": "residual_layer.fc_t1",
    "step_2": "residual_layer.fc_t2",
    "skip": "final_conv.0.conv",
    "out": "final_conv.2.conv",
  },
}
INNER = {
  "diffwave": {
    "dilated": "residual_layers.{}.dilated_conv",
    "step": "residual_layers.{}.diffusion_projection",
    "cond": "residual_layers.{}.conditioner_projection",
    "out": "residual_layers.{}.output_projection",
  },
  "wavenet": {
    "dilated": "residual_layer.residual_blocks.{}.dilated_conv_layer.conv",
    "step": "residual_layer.residual_blocks.{}.fc_t",
    "upsampler": "residual_layer.residual_blocks.{}.upsample_conv2d.{}",
    "cond": "residual_layer.residual_blocks.{}.mel_conv.conv",
    "res": "residual_layer.residual_blocks.{}.res_conv",
    "skip": "residual_layer.residual_blocks.{}.skip_conv",
  },
}


def diffwave_entries(tree: Tree, source: str) -> list[Entry]:
  """The table of a `nets.diffwave` net, by the words of OUTER and INNER."""
  leaves, table = names.flat(tree), []
  for path, leaf in leaves.items():
    module, _, kind = path.rpartition("/")
    try:
      place = diffwave_place(module, source)
    except KeyError as e:
      raise UserError(f"{source} has no name for this net's {path}") from e
    normed = f"{module}/scale" in leaves
    end = {"kernel": "weight_v" if normed else "weight", "scale": "weight_g", "bias": "bias"}
    slides = leaves[f"{module}/kernel"].ndim == 4 if kind != "embedding" else False
    how = {"after": 3 if slides else 2} if kind == "scale" else {}
    if slides and kind == "kernel":  # [in, out, bands, frames] there
      how = {"axes": (2, 3, 1, 0)}
    table.append(names.entry(path, leaf, f"{place}.{end.get(kind, 'weight')}", **how))
  return table


def diffwave_place(module: str, source: str) -> str:
  """ "layer_3_dilated" -> "residual_layers.3.dilated_conv"."""
  first, *rest = module.split("/")
  # Theirs counts upsampling layers from 1, or as every other of a list.
  number = [int(layer.removeprefix("conv_")) + (source == "diffwave") for layer in rest]
  if match := LAYER.fullmatch(first):
    return INNER[source][match[2]].format(match[1], *number)
  return OUTER[source][first].format(*number)


def layout(tensors: Mapping[str, Any], source: str) -> dict[str, Any]:
  """What shapes tell of a net, as its attributes; UserError if it is none of them.

  They do not tell after how many layers dilations begin again, nor whether a
  layer passes the step's embedding on.
  """
  shapes = {name: tuple(t.shape) for name, t in tensors.items()}
  try:
    return LAYOUTS[source](shapes)
  except KeyError as e:
    raise UserError(f"this is no checkpoint of {source}: it lacks {e.args[0]}") from e
  except (IndexError, ValueError) as e:
    raise UserError(f"this is no checkpoint of {source}: {e}") from e


def diffwave_layout(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
  """lmnt's."""
  facts = dict(width=shapes["input_projection.weight"][0], mels=0, labels=0)
  facts["layers"] = count(shapes, r"residual_layers\.(\d+)\.")
  strides = upsampling(shapes, r"spectrogram_upsampler\.conv\d+\.weight")
  if strides:
    mels = shapes["residual_layers.0.conditioner_projection.weight"][1]
    facts |= dict(mels=mels, strides=strides)
  elif "spectrogram_upsampler.embedding.weight" in shapes:
    labels, dim = shapes["spectrogram_upsampler.embedding.weight"]
    facts |= dict(labels=labels, label_dim=dim)
  return facts


def wavenet_layout(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
  """philsyn's."""
  first, second = (shapes[f"residual_layer.fc_t{i}.weight"] for i in (1, 2))
  facts = dict(
    width=shapes["init_conv.0.conv.weight_v"][0],
    skip=shapes["final_conv.0.conv.weight_v"][0],
    layers=count(shapes, r"residual_layer\.residual_blocks\.(\d+)\."),
    embed=(first[1], first[0], second[0]),
    mels=0,
    labels=0,
  )
  block = "residual_layer.residual_blocks.0"
  if strides := upsampling(shapes, re.escape(block) + r"\.upsample_conv2d\.\d+\.weight_v"):
    facts |= dict(mels=shapes[f"{block}.mel_conv.conv.weight_v"][1], strides=strides)
  return facts


LAYOUTS = {"diffwave": diffwave_layout, "wavenet": wavenet_layout}


def count(shapes: Mapping[str, Any], pattern: str) -> int:
  """How many numbers there are in names that begin so."""
  return len({m[1] for m in map(re.compile(pattern).match, shapes) if m})


def upsampling(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> tuple[int, ...]:
  """Strides of the layers of those names, half as wide as their kernels."""
  return tuple(
    shape[3] // 2 for name, shape in sorted(shapes.items()) if re.fullmatch(pattern, name)
  )
