"""A noisy classifier of 8x8 digits, to guide `configs/digits_adm.py`.

Dhariwal & Nichol 2021, Sec. 4: half a U-Net with attention pooling, trained at
all noise levels on random crops while its learning rate falls to zero.

  jaxgen train --config configs/digits_guide.py --workdir C
  jaxgen sample --workdir W --classifier C --scale 2 --out guided.png
"""

from configs import _base

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a smaller net."""
  c = _base.base("digits", steps=1500, batch=128, classes=10)
  c.data.crop = 0.8
  c.model = dict(
    name="models.classifier.Classifier",
    net=dict(
      name="nets.unet.Classifier",
      width=24,
      mults=(1, 2),
      blocks=1,
      attend=(4,),
      head=24,
      least=4,
      updown=True,
      classes=10,
    ),
    process=dict(name="diffusion.process.Linear"),
    precond=dict(name="diffusion.precond.eps"),
    draw_t=dict(name="diffusion.times.grid"),
  )
  c.optim.net = dict(name="optim.adam", lr=2e-3, warmup=100, weight_decay=0.05, decay="linear")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  c.log.pictures = 0
  if arg == "debug":
    c.model.net.width = 16
    return _base.debug(c)
  return c
