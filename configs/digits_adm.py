"""ADM in small, on real 8x8 digits: 1000 steps, learned variances, hybrid loss.

Dhariwal & Nichol 2021 with labels dropped, so that it can be guided without a
classifier (and with one, `configs/digits_guide.py`); for trying every sampler
at every number of steps in minutes.

  jaxgen train --config configs/digits_adm.py --workdir W
  jaxgen sweep --workdir W --out sweep
"""

from configs import _base

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a smaller net."""
  c = _base.base("digits", steps=3000, batch=64, classes=10)
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
      updown=True,
      learned=True,
    ),
    process=dict(name="diffusion.process.Linear"),
    precond=dict(name="diffusion.precond.eps"),
    draw_t=dict(name="diffusion.times.grid"),
    objective=dict(name="diffusion.objective.hybrid"),
    path=dict(name="diffusion.times.spaced"),
    sampler=dict(name="diffusion.samplers.ancestral"),
    steps=250,
    classes=10,
    label_drop=0.1,
    bound=1.0,
  )
  c.optim.net = dict(name="optim.adam", lr=2e-3, warmup=100, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=20_000, ramp=0.1)
  if arg == "debug":
    c.model.net.width = 16
    return _base.debug(c)
  return c
