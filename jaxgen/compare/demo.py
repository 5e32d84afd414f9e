"""Diffusion model, GAN or VAE? On real digits, from nothing, in minutes.

  jaxgen demo --out demo

Trains the three families, judges them and writes demo/report.html.
"""

from absl import flags

from jaxgen.compare.comparison import compare

FAMILIES = ("digits_diffusion", "digits_gan", "digits_vae")

IN_BUCKETS = ("out",)  # flags that take gs://bucket/name


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flags.DEFINE_string("out", "demo", "folder of the report", flag_values=values)
  flags.DEFINE_bool("debug", False, "a few steps each, to see it run", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  suffix = ":debug" if values.debug else ""
  compare([f"configs/{name}.py{suffix}" for name in FAMILIES], (), values.out)
