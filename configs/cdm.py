"""CDM: cascaded diffusion on ImageNet, Ho et al. 2022 (JMLR 23, 47:1-33).

Published, without a classifier: FID 1.48 at 64x64 (32 -> 64), 3.52 at 128x128
and 4.88 at 256x256, against the training set. No code was published: where the
paper leaves a choice open, the blocks are ADM's (adaptive norms, residual
resampling), and the level s of augmentation is embedded as times are. 64 -> 128
takes the network of 64 -> 256.

  cdm.py:32      base                 825,505,542 parameters
  cdm.py:64      32 -> 64             751,690,758, noise s ~ U[0, 1] on 32x32
  cdm.py:64to128 64 -> 128            575,611,907, noise and blur on 64x64
  cdm.py:64to256 64 -> 256            575,611,907, noise and blur on 64x64
  cdm.py         the whole, 32 -> 64 -> 256; cdm.py:128: 32 -> 64 -> 128
  cdm.py:digits  4 -> 8 on real digits: digits4, digits8, and digits8plain,
                 trained without noise; a few minutes on a laptop

  jaxgen train --config configs/cdm.py:digits --workdir C        (all stages)
  jaxgen train --config configs/cdm.py --workdir C --stage 1     (one of them)
  jaxgen sample --workdir C --labels 3 --knobs level_1=0.2 --out x.png
  jaxgen sweep --workdir C --over level_1=0,.1,.3,.5 --over truncate_1=0,1 \
    --out sweep
"""

from configs import _adm, _base


def get_config(arg="256"):
  """See above."""
  if arg in CASCADES:
    return _base.cascade(*(f"configs/cdm.py:{a}" for a in CASCADES[arg]))
  if arg in ("32", "64"):
    return low(int(arg))
  if arg in ("64to128", "64to256"):
    return high(int(arg[4:]))
  c = digits(
    *{"digits4": (4,), "digits8": (8, 4), "debug": (8, 4), "digits8plain": (8, 4, False)}[arg]
  )
  if arg == "debug":
    c.model.net.update(width=16, head=16)
    return _base.debug(c)
  return c


CASCADES = {
  "256": ("32", "64", "64to256"),
  "128": ("32", "64", "64to128"),
  "digits": ("digits4", "digits8"),
}
ARGS = (*CASCADES, "32", "64", "64to128", "64to256", "digits4", "digits8", "digits8plain", "debug")


def augment(process, blur=0.0):
  """Noise of all levels on small images."""
  return dict(name="diffusion.conditioning.Noisy", process=process, blur=blur)


def low(size):
  """32x32, and 32 -> 64: cosine schedule of 4000 steps, hybrid loss."""
  up = size == 64
  c = _adm.diffusion(
    _adm.IMAGENET,
    size,
    classes=1000,
    batch=2048,
    steps=400_000 if up else 700_000,
    process="Cosine",
    low_res=32 if up else 0,
    net=_adm.adm(
      width=256, mults=(1, 2, 3, 4), blocks=5 if up else 6, attend=(16, 8), heads=4, dropout=0.1
    ),
  )
  return of_steps(c, 4000, up and 0.0)


def high(size):
  """64 -> 128 or 256: linear schedule of 2000 steps, told as a noise level."""
  c = _adm.diffusion(
    _adm.IMAGENET,
    size,
    classes=1000,
    batch=1024,
    steps=500_000,
    low_res=64,
    net=_adm.adm(width=128, mults=(1, 2, 4, 8, 8), blocks=3, attend=(16,), heads=1, learned=False),
  )
  c = of_steps(c, 2000, 0.5)
  c.model.precond = dict(name="diffusion.precond.sr3")
  c.model.net.embedding = dict(name="nets.unet.level_and_label")
  c.model.draw_t = dict(name="diffusion.times.uniform", lo=1 / 2000)
  c.model.update(path=dict(name="diffusion.times.even"), steps=100)
  return c


def of_steps(c, steps, blur):
  """With a process of so many steps; blur False: no augmentation."""
  c.model.process.steps = steps
  c.model.precond.steps = c.model.draw_t.steps = steps
  if blur is not False:
    c.model.augment = augment(c.model.process.to_dict(), blur)
  return c


def digits(size, low_res=0, noisy=True):
  """Class-conditional digits of 4x4, or 4 -> 8."""
  c = _base.base("digits", steps=2000, batch=64, classes=10, size=0 if size == 8 else size)
  process = dict(name="diffusion.process.Cosine")
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=dict(
      name="nets.unet.UNet",
      width=32,
      attend=(4,),
      head=32,
      least=4,
      labels=10,
      mults=(1, 2) if size == 8 else (2,),
      updown=True,
      blocks=1 if size == 8 else 2,
    ),
    process=process,
    precond=dict(name="diffusion.precond.v"),
    draw_t=dict(name="diffusion.times.uniform"),
    path=dict(name="diffusion.times.karras"),
    sampler=dict(name="diffusion.samplers.dpmpp_2m"),
    steps=20,
    classes=10,
    label_drop=0.0,
    bound=1.0,
  )
  if low_res:
    c.model.cond = dict(low_res=dict(name="diffusion.degrade.area", size=low_res))
    if noisy:
      c.model.augment = augment(process)
  c.optim.net = dict(name="optim.adam", lr=2e-3, warmup=100, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=20_000, ramp=0.1)
  return c
