"""What others call the weights of DiffWave's nets: tables for both directions.

diffwave   lmnt-com/diffwave; a label, for which no code was published, is
           where the upsampler would be
wavenet    philsyn/DiffWave-unconditional and -Vocoder
"""

import re

from jaxgen.errors import UserError
from jaxgen.interop import names
from jaxgen.interop.names import Entry, Tree

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
