"""A VAE on a grid of 25 Gaussians: an MLP.

jaxgen train --config configs/points_vae.py --workdir W
"""

from configs import _base

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a smaller net."""
  c = _base.base("points:grid25", steps=4000, batch=256)
  c.model = dict(
    name="models.vae.VAE",
    net=dict(name="nets.mlp.Codec", z_dim=2, width=256, depth=3),
    beta=1.0,
    sigma=0.03,
  )
  c.optim.net = dict(name="optim.adam", lr=1e-3, clip=100.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=50_000, ramp=0.1)
  if arg == "debug":
    c.model.net.width = 32
    return _base.debug(c)
  return c
