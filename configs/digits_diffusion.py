"""Diffusion on real 8x8 digits, class-conditional: EDM (Karras et al. 2022).

Sampled by DDIM (Song et al. 2021) in 25 steps; `--sampler heun` is EDM's own.
`flow`: a rectified flow, its times drawn logit-normally (Esser et al. 2024).

  jaxgen train --config configs/digits_diffusion.py --workdir W
  jaxgen train --config configs/digits_diffusion.py:flow --workdir F
"""

from configs import _base

ARGS = ("flow", "debug")
EDM = dict(
  _base.edm(0.75, -0.6, 1.0, lo=0.01, hi=20.0, rho=7.0),
  sampler=dict(name="diffusion.samplers.ancestral", eta=0.0),
)
FLOW = dict(
  process=dict(name="diffusion.process.Flow"),
  precond=dict(name="diffusion.precond.flow"),
  draw_t=dict(name="diffusion.times.logit_normal", mean=0.0, std=1.0),
  path=dict(name="diffusion.times.even"),
  sampler=dict(name="diffusion.samplers.euler"),
)


def get_config(arg=None):
  """`flow`: see above; `debug`: a few steps of a smaller net."""
  c = _base.base("digits", steps=1000, batch=64, classes=10)
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=dict(
      name="nets.unet.UNet",
      width=24,
      mults=(1, 2),
      blocks=1,
      attend=(4,),
      head=24,
      least=4,
      labels=11,
    ),
    **(FLOW if arg == "flow" else EDM),
    steps=25,
    classes=10,
    label_drop=0.1,
    bound=1.0,
  )
  c.optim.net = dict(name="optim.adam", lr=3e-3, warmup=100, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  if arg == "debug":
    c.model.net.width = 16
    return _base.debug(c)
  return c
