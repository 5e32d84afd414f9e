"""A VAE on a folder of your own images (Kingma & Welling 2014).

  jaxgen train --config configs/images_vae.py:64 --workdir W \
    --config.data.source=folder:/my/images
"""

from configs import _base, _images

ARGS = _images.ARGS


def get_config(arg="32"):
  """`arg`: height and width, or one with `-small`; or `debug`."""
  size = 16 if arg == "debug" else int(arg.removesuffix("-small"))
  c, size, small = _images.base(arg, min(8192 // size, 128), min(4096 // size, 64))
  classes = c.data.get_ref("classes")
  c.model = dict(
    name="models.vae.VAE",
    net=dict(
      name="nets.convs.Codec",
      size=size,
      channels=c.data.get_ref("channels"),
      z_dim=64 if small else 128,
      width=16 if small else 128,
      classes=classes,
    ),
    beta=1.0,
    sigma=0.15,
    classes=classes,
  )
  c.optim.net = dict(name="optim.adam", lr=1e-3 if small else 3e-4, warmup=100, clip=100.0)
  c.ema.main = dict(name="ema.half_life", images=20_000 if small else 500_000, ramp=0.05)
  if arg == "debug":
    c.model.net.width = 8
    return _base.debug(c)
  return c
