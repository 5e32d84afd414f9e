"""Diffusion on a folder of your own images: EDM (Karras et al. 2022).

  jaxgen train --config configs/images_diffusion.py:64 --workdir W \
    --config.data.source=folder:/my/images
"""

from configs import _base, _images

ARGS = (range(4, 1025), *_images.ARGS)
# By the largest size: width, multipliers, blocks, how often it is halved before
# attention, dropout, learning rate, batch.
NETS = {
  48: (128, (2, 2, 2), 4, (1,), 0.13, 2e-4, 128),
  96: (128, (1, 2, 2, 2), 4, (2,), 0.13, 2e-4, 64),
  192: (128, (1, 1, 2, 3, 4), 2, (3, 4), 0.1, 1e-4, 32),
  1024: (128, (1, 1, 2, 2, 4, 4), 1, (4,), 0.1, 1e-4, 16),
}
SMALL = {
  48: (24, (1, 2, 2), 1, (2,), 0.05, 1e-3, 64),
  96: (16, (1, 2, 3, 4), 1, (3,), 0.05, 1e-3, 32),
  192: (16, (1, 1, 2, 3, 4), 1, (4,), 0.05, 1e-3, 16),
  1024: (16, (1, 1, 2, 2, 3, 4), 1, (5,), 0.05, 1e-3, 8),
}


def get_config(arg="32"):
  """`arg`: height and width, 4 at least, or one with `-small`; or `debug`."""
  small = arg == "debug" or arg.endswith("-small")
  size = 16 if arg == "debug" else int(arg.removesuffix("-small"))
  nets = SMALL if small else NETS
  width, mults, blocks, halvings, dropout, lr, batch = nets[min(n for n in nets if n >= size)]
  c, size, _ = _images.base(arg, batch, batch)
  classes = c.data.get_ref("classes")
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=dict(
      name="nets.unet.UNet",
      width=width,
      mults=mults,
      blocks=blocks,
      attend=tuple(-(-size // 2**n) for n in halvings),
      head=64,
      least=4,
      labels=_images.with_none(classes),
      dropout=dropout,
      remat=(),
      dtype="float32" if small else "bfloat16",
    ),
    **_base.edm(0.5, -1.2, 1.2, lo=0.002, hi=80.0, rho=7.0),
    sampler=dict(name="diffusion.samplers.dpmpp_2m" if small else "diffusion.samplers.heun"),
    steps=18,
    classes=classes,
    label_drop=0.1,
    bound=1.0,
  )
  c.optim.net = dict(name="optim.adam", lr=lr, warmup=100 if small else 1000, clip=1.0)
  c.ema.main = dict(name="ema.half_life", images=500_000, ramp=0.1 if small else 0.05)
  if arg == "debug":
    c.model.net.update(width=16, mults=(1, 2), attend=(8,))
    return _base.debug(c)
  return c
