"""Make a workdir of somebody's checkpoint, without running their code.

  jaxgen import --source adm --checkpoint 64x64_diffusion.pt \
    --config configs/adm_imagenet64.py --workdir W

Then `sample`, `evaluate` and `train` (fine-tuning) take W like any other. With
no config, ADM's published checkpoints are known by their shapes; of others,
what no file says must be told:

  jaxgen import --source adm --checkpoint ema_0.9999_200000.pt --size 64 \
    --heads 4 --attention_order legacy --schedule cosine --workdir W

A prior of codes has a file for each of its levels, and a codec in a workdir:

  jaxgen import --source pixelsnail --checkpoint top.pt --bottom bottom.pt \
    --config configs/vqvae2_prior.py:ffhq --config.model.codec_workdir=K --workdir W

So has a vocoder to train on, whose discriminators are another file:

  jaxgen import --source hifigan --checkpoint g_02500000 --disc do_02500000 --workdir W

And CycleGAN has one for each way:

  jaxgen import --source cyclegan --checkpoint latest_net_G_A.pth \
    --back latest_net_G_B.pth --workdir W
"""

import functools
import pathlib
import sys

from absl import flags

from jaxgen import files
from jaxgen.convert.published import Facts
from jaxgen.convert.workdir import ALL, import_weights
from jaxgen.errors import UserError, printable
from jaxgen.monitor.progress import Progress

CONFIGS = ("config",)
IN_BUCKETS = ("workdir", "checkpoint", "disc", "bottom", "back")  # flags that take gs://bucket/name


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("source", None, "whose code it is of: " + ", ".join(ALL))
  flag("checkpoint", None, "x.pt, .pth, .bin, .ckpt, .safetensors, or a folder of diffusers")
  flag("workdir", None, "to be made")
  flag("key", None, "which of several sets of weights: ema, state_dict, ...")
  flag("disc", None, "a GAN's discriminator, where it is another file: D.pth")
  flag("bottom", None, "the bottom level's file of a prior, whose top level is --checkpoint")
  flag("back", None, "CycleGAN's other generator, whose --checkpoint is G_A")
  flag("licence", "", "a note that stays with the weights")
  flag(
    "attention_order",
    None,
    "of channels in a U-Net's attention: new or "
    "legacy (--use_new_attention_order of guided-diffusion)",
  )
  flag("schedule", None, "of the noise: linear or cosine")
  number = functools.partial(flags.DEFINE_integer, flag_values=values)
  number("size", 0, "height of images, if the config does not say")
  number("heads", None, "of a U-Net's attention, how many (--num_heads)")
  number("head_channels", None, "or of how many channels each (--num_head_channels)")
  number("heads_up", None, "how many on the way up, if it is another number (--num_heads_upsample)")


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not (values.source and values.checkpoint and values.workdir):
    raise UserError(
      "import needs --source=adm, --checkpoint=x.pt and --workdir=W; a --config is best given, too"
    )
  bar = None

  def progress(n: int, total: int) -> None:
    nonlocal bar
    bar = bar or Progress(total, 1, unit="weights", stream=sys.stderr)
    bar.at(n)
    if n == total:
      bar.end()

  weights = {
    name: values[name].value and str(files.local(values[name].value))
    for name in ("checkpoint", "disc", "bottom", "back")
  }
  import_weights(
    weights.pop("checkpoint"),
    values.workdir,
    values.source,
    values.config,
    key=values.key,
    size=values.size,
    licence=values.licence,
    **weights,
    facts=Facts(
      values.heads, values.head_channels, values.heads_up, values.attention_order, values.schedule
    ),
    progress=progress,
    log=lambda line: print(f"jaxgen: {printable(line)}", file=sys.stderr),
  )
  print(printable(f"{pathlib.Path(values.checkpoint).name} -> {values.workdir}, step 0"))
