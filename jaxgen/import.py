"""Make a workdir of somebody's checkpoint, without running their code.

  jaxgen import --source adm --checkpoint 64x64_diffusion.pt \
    --config configs/adm_imagenet64.py --workdir W

Then `sample`, `evaluate` and `train` (fine-tuning) take W like any other. With
no config, what the file does not say is assumed, and said.
"""
import functools
import pathlib
import sys

from absl import flags

from jaxgen import cli
from jaxgen.errors import UserError, printable
from jaxgen.exchange import bring
from jaxgen.interop.gans import GANS
from jaxgen.interop.sources import SOURCES
from jaxgen.progress import Progress

CONFIGS = ("config",)


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("source", None, "whose code it is of: " + ", ".join(SOURCES | GANS))
  flag("checkpoint", None, "x.pt, .pth, .bin or .safetensors")
  flag("workdir", None, "to be made")
  flag("key", None, "which of several sets of weights: ema, state_dict, ...")
  flag("disc", None, "a GAN's discriminator, where it is another file: D.pth")
  flag("licence", "", "a note that stays with the weights")
  flags.DEFINE_integer("size", 0, "height of images, if the config does not "
                       "say", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not (values.source and values.checkpoint and values.workdir):
    raise UserError("import needs --source=adm, --checkpoint=x.pt and "
                    "--workdir=W; a --config is best given, too")
  bars = []

  def seen(n: int, total: int) -> None:
    bars or bars.append(Progress(total, 1, unit="weights", stream=sys.stderr))
    bars[0].at(n)
    if n == total:
      bars[0].end()

  bring(values.checkpoint, values.workdir, values.source, values.config,
        key=values.key, size=values.size, licence=values.licence,
        disc=values.disc, seen=seen,
        say=lambda line: print(f"jaxgen: {printable(line)}",
                               file=sys.stderr))
  print(printable(f"{pathlib.Path(values.checkpoint).name} -> "
                  f"{values.workdir}, step 0"))


if __name__ == "__main__":
  cli.run("jaxgen.import")
