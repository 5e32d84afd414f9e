"""A GAN on a folder of your own images: StyleGAN2-ADA (Karras et al. 2020b).

  jaxgen train --config configs/images_gan.py:64 --workdir W \
    --config.data.source=folder:/my/images
"""

from configs import _base, _images, _stylegan2

ARGS = _images.ARGS


def get_config(arg="32"):
  """`arg`: height and width, or one with `-small`; or `debug`."""
  size = 16 if arg == "debug" else int(arg.removesuffix("-small"))
  c, size, small = _images.base(arg, min(4096 // size, 32), min(2048 // size, 64))
  if small:
    pair(c, size, 8 if arg == "debug" else 16)
  else:
    _stylegan2.model(
      c,
      size=size,
      base=16384,
      layers=2,
      group=4,
      gamma=0.0002 * size**2 / c.batch,
      dtype="bfloat16",
      clamp=256.0,
      channels=c.data.get_ref("channels"),
    )
    c.model.augment = dict(name="adversarial.ada.ADA")
    c.model.path = dict(name="adversarial.path.PathLength")
    c.model.mixing = 0.9
    _stylegan2.optimisers(c, 0.0025)
    c.ema.main = dict(name="ema.half_life", images=10_000 * c.batch / 32, ramp=0.05)
  return _base.debug(c) if arg == "debug" else c


def pair(c, size, width):
  """DCGAN's nets, hinge, spectral norm, DiffAugment."""
  classes = c.data.get_ref("classes")
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(
      name="nets.convs.Generator",
      size=size,
      channels=c.data.get_ref("channels"),
      width=width,
      classes=classes,
    ),
    disc=dict(
      name="nets.convs.Discriminator",
      width=width,
      classes=classes,
      norm=dict(name="nets.spectral.spectral"),
    ),
    rule=dict(name="adversarial.losses.hinge"),
    augment=dict(name="adversarial.diffaugment.DiffAugment"),
    z_dim=64,
    classes=classes,
  )
  adam = dict(name="optim.adam", b1=0.0, b2=0.9)
  c.optim.gen, c.optim.disc = dict(adam, lr=2e-4), dict(adam, lr=4e-4)
  c.ema.main = dict(name="ema.half_life", images=20_000, ramp=0.1)
