"""Write trained weights as a checkpoint of somebody else's code.

jaxgen export --workdir W --source adm --out x.pt
jaxgen export --workdir W --source diffusers --out model.safetensors
"""

import functools

from absl import flags

from jaxgen.convert.workdir import ALL, export_weights
from jaxgen.errors import UserError, printable
from jaxgen.monitor.results import check_file


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of the trained model")
  flag("out", None, "x.pt, .pth, .bin or .ckpt (PyTorch), or x.safetensors")
  flag(
    "source",
    None,
    "whose names they get: " + ", ".join(ALL) + "; default: those that they were imported by",
  )
  flag("ema", None, "profile of averaged weights, or none for the last ones")
  flag("disc", None, "a GAN's discriminator, where that is another file: D.pth")
  flag("bottom", None, "the bottom level's file of a prior, whose top level is --out")
  flag("back", None, "CycleGAN's other generator, whose --out is G_A")
  flags.DEFINE_integer("step", None, "of the checkpoint; default: the last", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdir or not values.out:
    raise UserError("export needs --workdir=W and --out=x.pt or .safetensors")
  for name in ("out", "disc", "bottom", "back"):
    if values[name].value:
      check_file(values[name].value, f"--{name}")
  report = export_weights(
    values.workdir,
    values.out,
    values.source,
    ema=values.ema,
    step=values.step,
    disc=values.disc,
    bottom=values.bottom,
    back=values.back,
  )
  print(
    f"{report['tensors']} tensors of step {report['step']}, averaged by "
    f"{printable(report['ema'])} -> {printable(values.out)}"
  )
  if licence := report["import"].get("licence"):
    print(printable(f"they come from {report['import']['file']}: {licence}"))
