"""Write trained weights as a checkpoint of somebody else's code.

jaxgen export --workdir W --source adm --out x.pt
jaxgen export --workdir W --source diffusers --out model.safetensors

Or a sampler as a program that jax alone runs, with its weights in x.npz:

jaxgen export --workdir W --source stablehlo --out x.stablehlo [--steps 20]
"""

import functools

from absl import flags

from jaxgen.convert import stablehlo
from jaxgen.convert.workdir import ALL, export_weights
from jaxgen.errors import UserError, printable
from jaxgen.monitor.results import check_file
from jaxgen.sampling.presets import CHOICES, KNOBS, knobs_from_flags
from jaxgen.sampling.sampler import load

PROGRAM = "stablehlo"
# Flags of a program alone.
OF_PROGRAMS = ("batch", "with_noise", "knobs", *(set(CHOICES) - {"ema", "step"}), *KNOBS)
IN_BUCKETS = (  # flags that take gs://bucket/name
  *("workdir", "classifier", "worse"),
  *("out", "disc", "bottom", "back"),
)


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of the trained model")
  flag("out", None, "x.pt, .pth, .bin or .ckpt (PyTorch), x.safetensors, or x.stablehlo")
  flag(
    "source",
    None,
    f"whose names they get: {', '.join(ALL)}; default: those that they were imported by; or "
    f"{PROGRAM}, a sampler as a program",
  )
  flag("ema", None, "profile of averaged weights, or none for the last ones")
  flag("disc", None, "a GAN's discriminator, where that is another file: D.pth")
  flag("bottom", None, "the bottom level's file of a prior, whose top level is --out")
  flag("back", None, "CycleGAN's other generator, whose --out is G_A")
  flags.DEFINE_integer("step", None, "of the checkpoint; default: the last", flag_values=values)
  define_program_flags(values)


def define_program_flags(values: flags.FlagValues) -> None:
  """Flags of `--source stablehlo`; those of sampling are as in `jaxgen sample`."""
  of = f"of {PROGRAM}: "
  flag = functools.partial(flags.DEFINE_string, default=None, flag_values=values)
  integer = functools.partial(flags.DEFINE_integer, default=None, flag_values=values)
  integer("batch", help=of + "samples of a call; default: any number")
  integer("guide_step", help=of + "of the guide's checkpoint")
  flags.DEFINE_bool("with_noise", False, of + "the noise is an input", flag_values=values)
  flag("knobs", help=of + "any others, such as those of a cascade's stages")
  for name in ("sampler", "respacing", "classifier", "worse", "guide_ema"):
    flag(name, help=of + "as in `jaxgen sample`")
  for name, text in KNOBS.items():
    flags.DEFINE_float(name, None, f"{of}default of {text}", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdir or not values.out:
    raise UserError("export needs --workdir=W and --out=x.pt or .safetensors")
  if values.source == PROGRAM:
    return export_program(values)
  for name in OF_PROGRAMS:
    if values[name].present:
      raise UserError(f"--{name} is for --source={PROGRAM}: weights alone have none")
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


def export_program(values: flags.FlagValues) -> None:
  """`--source stablehlo`."""
  for name in ("disc", "bottom"):
    if values[name].value:
      raise UserError(f"--{name} is of weights: --source={PROGRAM} writes what samples")
  stablehlo.check_files(values.out)  # before the work
  model = load(values.workdir, **{k: values[k].value for k in CHOICES})
  knobs = knobs_from_flags(values)
  info = stablehlo.export_sampler(model, values.out, values.batch, values.with_noise, **knobs)
  print(
    f"a sampler of step {model.card['step']} for {', '.join(info['platforms'])}, batch "
    f"{info['batch']}, inputs {', '.join(info['inputs'])} -> {printable(values.out)}, "
    f"{len(info['weights'])} arrays beside it in .npz"
  )
