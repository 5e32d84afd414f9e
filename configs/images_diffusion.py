"""Diffusion on a folder of your own images, without labels: EDM at 32x32.

  jaxgen train --config configs/images_diffusion.py --workdir W \
    --config.data.source=folder:/my/images

`images_diffusion.py:64` is the same at 64x64. Networks of published size are
configs of their own; this one is for a look at one's own data.
"""

from configs import _base

ARGS = (range(4, 1025), "debug")


def get_config(arg="32"):
  """`arg`: height and width, 4 at least, or `debug`."""
  size = 16 if arg == "debug" else int(arg)
  c = _base.base("folder:images", size=size, steps=50_000, batch=64)
  c.data.update(flip=True, channels=3)
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=dict(
      name="nets.unet.UNet",
      width=64,
      mults=(1, 2, 2),
      blocks=2,
      attend=(-(-size // 4),),
      head=64,
      least=4,
      dropout=0.1,
      remat=(),
    ),
    **_base.edm(0.5, -1.2, 1.2, lo=0.002, hi=80.0, rho=7.0),
    sampler=dict(name="diffusion.samplers.heun"),
    steps=18,
    bound=1.0,
  )
  c.optim.net = dict(name="optim.adam", lr=3e-4, warmup=1000, clip=1.0)
  c.ema.main = dict(name="ema.half_life", images=500_000, ramp=0.05)
  if arg == "debug":
    c.model.net.update(width=16, mults=(1, 2), blocks=1, attend=(8,))
    return _base.debug(c)
  return c
