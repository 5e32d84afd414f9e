"""What the configs for one's own images share: `images_diffusion` and others.

Labels are given to the model with `--config.data.classes=10` alone, and grey
images are `--config.data.channels=1`: what nets have to know of them refers to
these fields.
"""

from configs import _base

SIZES = ("32", "64", "128", "256")
ARGS = (*SIZES, *(f"{size}-small" for size in SIZES), "debug")


def base(arg, batch, small_batch):
  """A config without a model, its size, and whether the nets are small.

  The learning rate is constant and `steps` only a bound: what is sampled are
  averages whose memory grows with the training, so any step is a good end.
  """
  small = arg == "debug" or arg.endswith("-small")
  size = 16 if arg == "debug" else int(arg.removesuffix("-small"))
  c = _base.base("folder:images", steps=1_000_000, batch=small_batch if small else batch, size=size)
  c.data.update(flip=True, channels=3)
  c.log.every = 50
  return c, size, small


def with_none(classes):
  """Rows of an embedding that also knows "no label"; 0 without classes.

  Of a number or of a reference to one: 2n // (n + 1) is 1, or 0 if n is.
  """
  return classes + 2 * classes // (classes + 1)
