"""A class-conditional GAN on real 8x8 digits: hinge and spectral norm.

A DCGAN-style pair (Radford et al. 2016) with the rules of SNGAN (Miyato et al.
2018) and projection (Miyato & Koyama 2018).

  jaxgen train --config configs/digits_gan.py --workdir W
"""

from configs import _base

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a smaller net."""
  c = _base.base("digits", steps=1200, batch=128, classes=10)
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(name="nets.convs.Generator", size=8, channels=1, width=32, classes=10),
    disc=dict(
      name="nets.convs.Discriminator",
      width=32,
      classes=10,
      norm=dict(name="nets.spectral.spectral"),
    ),
    rule=dict(name="adversarial.losses.hinge"),
    gen_every=1,
    z_dim=32,
    classes=10,
  )
  adam = dict(name="optim.adam", b1=0.0, b2=0.9, decay="linear")
  c.optim.gen = dict(adam, lr=2e-4)
  c.optim.disc = dict(adam, lr=4e-4)
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  if arg == "debug":
    c.model.gen.width = c.model.disc.width = 16
    return _base.debug(c)
  return c
