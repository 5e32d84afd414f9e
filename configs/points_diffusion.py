"""Diffusion on a grid of 25 Gaussians: an MLP, for minutes or tests.

jaxgen train --config configs/points_diffusion.py --workdir W
"""

from configs import _base

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a smaller net."""
  c = _base.base("points:grid25", steps=4000, batch=256)
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=dict(name="nets.mlp.Denoiser", width=128, depth=3),
    **_base.edm(0.5, -2.0, 1.5, lo=0.002, hi=20.0, rho=7.0),
    sampler=dict(name="diffusion.samplers.heun"),
    steps=32,
  )
  c.optim.net = dict(name="optim.adam", lr=2e-3, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=50_000, ramp=0.1)
  if arg == "debug":
    c.model.net.width = 32
    return _base.debug(c)
  return c
