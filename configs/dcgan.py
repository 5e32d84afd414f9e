"""DCGAN: Radford et al. 2016, with the layers of the PyTorch port.

`64`: LSUN bedrooms, where the paper shows its samples; FID was not yet known.
3,576,704 and 2,765,568 parameters. Five epochs of 3,033,042 images, in 118,000
updates of 128. The port and this take 4x4 convolutions, the paper 5x5. `64m`:
with minibatch discrimination (Salimans et al. 2016), 6,861,668 in D.

  jaxgen train --config configs/dcgan.py --workdir W
  jaxgen train --config configs/dcgan.py --config.data.source=folder:/faces \
    --workdir W
  jaxgen train --config configs/dcgan.py:digits --workdir W
"""

from configs import _base

ARGS = ("64", "64m", "digits", "debug")


def get_config(arg="64"):
  """`arg`: 64, 64m; `digits`, 15 seconds on a laptop; `debug`."""
  if arg in ("digits", "debug"):
    return digits(arg == "debug")
  c = _base.base("tfds:lsun/bedroom", steps=118_000, batch=128, size=64)
  model(c, z_dim=100)
  if arg == "64m":
    c.model.disc.compare = dict(name="nets.layers.Discrimination")
  adam = dict(name="optim.adam", lr=2e-4, b1=0.5, b2=0.999)
  c.optim.gen, c.optim.disc = adam, adam
  c.ema.main = dict(name="ema.half_life", images=0, ramp=None)  # none at all
  c.log.pictures = 5000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def model(c, z_dim, disc=None, **kw):
  """What both nets have, and what the discriminator has besides."""
  classes = c.data.classes
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(name="nets.dcgan_paper.Generator", classes=classes, **kw),
    disc=dict(name="nets.dcgan_paper.Discriminator", classes=classes, **(disc or {})),
    rule=dict(name="adversarial.losses.nonsaturating"),
    z_dim=z_dim,
    classes=classes,
  )


def digits(debug):
  """The same on real digits of 8x8, with labels."""
  c = _base.base("digits", steps=1500, batch=64, classes=10)
  wide = 8 if debug else 32
  model(c, z_dim=32, size=8, channels=1, width=wide, bottom=2, disc=dict(width=wide, bottom=2))
  adam = dict(name="optim.adam", lr=1e-3, b1=0.5, b2=0.999, decay="linear")
  c.optim.gen, c.optim.disc = adam, adam
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return _base.debug(c) if debug else c
