"""A GAN with everything that is carried from step to step, for kill.py.

ADA's p, spectral vectors, the mean style, the path lengths' mean, averages,
and lazy penalties on every 16th and every 4th batch.
"""

from configs import stylegan2


def get_config():
  """A few minutes of digits, a checkpoint amid every cycle of turns."""
  c = stylegan2.get_config("debug")
  c.model.disc = dict(name="nets.biggan.Discriminator", width=8, classes=10, attend=())
  c.model.augment = dict(name="adversarial.ada.ADA", kimg=1.0, p=0.2)
  c.model.path = dict(name="adversarial.path.PathLength")
  c.log.pictures = 0
  c.steps, c.checkpoint.every = 40, 3
  return c
