"""A cascade on real photographs, 16 -> 32 -> 64, that a laptop trains.

Patches of the photographs that scikit-learn and scikit-image ship: seven to
train on, three to test on. A base of 16x16 and two upsamplers with
conditioning augmentation (Ho et al. 2022); small networks, half an hour in all.

  jaxgen train --config configs/photos.py --workdir C
  jaxgen sample --workdir C --knobs level_1=0.1,level_2=0.1 --out x.png
  jaxgen evaluate --workdir C/1,C/2 --picture up.png     (test photographs, 4x)
  jaxgen sample --workdir C/1,C/2 --low_res folder --out larger
"""

from configs import _base

SIZES = ("16", "32", "64")
ARGS = (*SIZES, "debug")


def get_config(arg=None):
  """`arg`: one of the stages 16, 32, 64; or `debug`, a few steps of 32."""
  if arg is None:
    return _base.cascade(*(f"configs/photos.py:{size}" for size in SIZES))
  size = 32 if arg == "debug" else int(arg)
  net, steps = {
    16: (dict(width=48, mults=(1, 2), blocks=1, attend=(8,)), 2000),
    32: (dict(width=32, mults=(1, 2), blocks=1, attend=()), 2000),
    64: (dict(width=24, mults=(1, 2, 2), blocks=1, attend=()), 1200),
  }[size]
  c = _base.base("photos", steps=steps, batch=16, size=size)
  c.data.flip = True
  up = size > 16
  sigma_data = 0.1 if up else 0.5  # of what is left to say, in units of x
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=dict(name="nets.unet.UNet", head=24, least=4, updown=True, **net),
    **_base.edm(sigma_data, -2.8 if up else -1.2, 1.2, hi=10.0 if up else 80.0),
    sampler=dict(name="diffusion.samplers.dpmpp_2m"),
    steps=20,
    bound=1.0,
  )
  if up:
    c.model.cond = dict(low_res=dict(name="diffusion.degrade.area", size=size // 2))
    c.model.augment = dict(
      name="diffusion.conditioning.Noisy",
      hi=0.15,
      blur=0.5 if size == 64 else 0.0,
      process=dict(name="diffusion.process.EDM"),
    )
    c.model.around = dict(name="diffusion.degrade.enlarged")
  c.optim.net = dict(name="optim.adam", lr=2e-3, warmup=50, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  if arg == "debug":
    c.model.net.update(width=16)
    return _base.debug(c)
  return c
