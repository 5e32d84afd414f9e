"""Bring a dataset into place: download and write it for random access.

  jaxgen prepare tfds:cifar10
"""
from absl import flags

from jaxgen import cli
from jaxgen.data.prepare import prepare
from jaxgen.errors import UserError, printable

WORDS = ("tfds:NAME", "digits")


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flags.DEFINE_string("what", None, "tfds:NAME or digits", flag_values=values)
  flags.DEFINE_string("data_dir", None, "default: $JAXGEN_DATA, or "
                      "jaxgen/data in $XDG_CACHE_HOME or ~/.cache",
                      flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.what:
    raise UserError("prepare what? Such as: jaxgen prepare tfds:cifar10")
  print(printable(prepare(values.what, values.data_dir)))


if __name__ == "__main__":
  cli.run("jaxgen.prepare")
