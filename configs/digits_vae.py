"""A class-conditional VAE on real 8x8 digits (Kingma & Welling 2014).

jaxgen train --config configs/digits_vae.py --workdir W
"""

from configs import _base

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a smaller net."""
  c = _base.base("digits", steps=1200, batch=128, classes=10)
  c.model = dict(
    name="models.vae.VAE",
    net=dict(name="nets.convs.Codec", size=8, channels=1, z_dim=16, width=32, classes=10),
    beta=1.0,
    sigma=0.25,
    classes=10,
  )
  c.optim.net = dict(name="optim.adam", lr=1e-3, warmup=100, clip=10.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  if arg == "debug":
    c.model.net.width = 16
    return _base.debug(c)
  return c
