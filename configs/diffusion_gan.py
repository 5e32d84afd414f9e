"""Diffusion-GAN: Wang et al. 2022; noise of random times before D, which is told t.

| arg | data | batch | G, D parameters | published FID |
| --- | --- | --- | --- | --- |
| cifar | CIFAR-10, without labels | 64 | 19,947,539, 23,085,056 | 3.19 |
| stl10 | a folder, 64x64 | 64 | 25,456,664, 28,853,248 | 11.53 |
| celeba64 | a folder, 64x64 | 64 | 25,456,664, 28,853,248 | 1.69 |
| lsun | a folder, 256x256 | 64 | 24,767,458, 26,365,504 | bedroom 3.65, church 3.17 |

FIDs are those of the released Diffusion-StyleGAN2. Its training costs about what
StyleGAN2's does; CIFAR-10 took 4 GPUs and 50 million images. Settings are those
of the code: `cifar`, `stl10` (for `celeba64` it tells none, so that these are
used), and StyleGAN2's `paper256` for `lsun`. Where it draws noise of other times
for data and fakes, here both have the same: losses are equal in the mean.

  jaxgen train --config configs/diffusion_gan.py --workdir W
  jaxgen train --config configs/diffusion_gan.py:lsun \
    --config.data.source=folder:/bedroom256 --workdir W
  jaxgen train --config configs/diffusion_gan.py:photos --workdir W
  jaxgen import --source nvlabs --checkpoint diffusion-stylegan2-cifar10.pkl \
    --config configs/diffusion_gan.py --workdir W

`digits`, `photos`, `points` and `stacked` take minutes on two CPU cores; T can go
its whole way in fewer images than the code's 100,000 where they see few. `photos`
keeps the DiffAugment of `images_gan`'s small nets in front of the noise.

Any GAN here whose discriminator can be `timed` takes it (nets stylegan2, r3gan,
convs, mlp): --config.model.augment.name=adversarial.noising.Noising
--config.model.disc.timed=true. Another augmentation may come before the noise,
as augment.before.
"""

from configs import _base, _stylegan2

# Thousand images, group of the minibatch deviation, channels times height,
# gamma, half-life of the average and its ramp, layers of the mapping network.
SIZES = {
  "cifar": (32, 50_000, 32, 32768, 0.01, 500e3, 0.05, 2),
  "stl10": (64, 50_000, 32, 32768, 0.05, 500e3, 0.05, 2),
  "celeba64": (64, 50_000, 32, 32768, 0.05, 500e3, 0.05, 2),
  "lsun": (256, 25_000, 8, 16384, 1.0, 20e3, None, 8),
}
# Source, steps, batch, size, labels.
SMALL = {
  "digits": ("digits", 1200, 128, 0, 10),
  "photos": ("photos", 1000, 64, 32, 0),
  "points": ("points:grid25", 6000, 256, 0, 0),
  "stacked": ("stacked_digits", 3000, 64, 0, 0),
}
ARGS = (*SIZES, *SMALL, "debug")


def get_config(arg="cifar"):
  """`arg`: see above; `digits`, `photos`, `points`, `stacked`: minutes; `debug`."""
  if arg not in SIZES:
    return small(arg)
  size, kimg, group, base, gamma, life, ramp, layers = SIZES[arg]
  cifar = arg == "cifar"
  c = _base.base(
    "tfds:cifar10" if cifar else f"folder:{arg}",
    steps=1000 * kimg // 64,
    batch=64,
    size=0 if cifar else size,
  )
  c.data.channels = 3
  _stylegan2.model(
    c, size=size, base=base, layers=layers, group=group, gamma=gamma, dtype="bfloat16", clamp=256.0
  )
  if cifar:
    c.model.disc.arch = "orig"
  else:
    c.model.path = dict(name="adversarial.path.PathLength")
    c.model.mixing = 0.9
  noising(c)
  _stylegan2.optimisers(c, 0.0025)
  c.ema.main = dict(name="ema.half_life", images=life, ramp=ramp)
  c.log.pictures = 5000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def noising(c, **kw):
  """The diffusion before D, of which it is told."""
  c.model.augment = dict(name="adversarial.noising.Noising", **kw)
  c.model.disc.timed = True


def small(arg):
  """The nets of `digits_gan`, `images_gan` and `modes`, with the diffusion between."""
  source, steps, batch, size, classes = SMALL.get(arg, SMALL["digits"])
  c = _base.base(source, steps=steps, batch=batch, size=size, classes=classes)
  if arg == "points":
    points(c, 128)
  else:
    images(c, {"debug": 8, "photos": 16}.get(arg, 32))
  c.log.pictures = 500
  c.checkpoint.every = 500
  return _base.debug(c) if arg == "debug" else c


def images(c, width):
  """DCGAN's nets with spectral norm and hinge (Miyato et al. 2018)."""
  classes = c.data.classes
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(
      name="nets.convs.Generator",
      size=c.data.size or 8,
      channels=1 if c.data.source == "digits" else 3,
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
    z_dim=64,
    classes=classes,
  )
  noising(c, kimg=20.0)
  adam = dict(name="optim.adam", b1=0.0, b2=0.9)
  c.optim.gen, c.optim.disc = dict(adam, lr=2e-4), dict(adam, lr=4e-4)
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  if c.data.source == "stacked_digits":  # more to learn, and as many steps again
    c.optim.gen.update(lr=4e-4, decay="linear")
    c.optim.disc.update(lr=8e-4, decay="linear")
  if c.data.source == "photos":
    c.data.flip = True
    c.model.augment.before = dict(name="adversarial.diffaugment.DiffAugment")


def points(c, width):
  """MLPs under the first rule, with no penalty, and noise as wide as modes are apart.

  In 5000 steps 56% of samples were within 3 standard deviations of 14 modes; with
  sigma 0.05 and R1, 40% of 5. R1 and R2 with the relativistic rule: 16% of 15,
  with gamma 0.1 and sigma 0.05 5% of 11. One run each, of 4000 to 5000 steps.
  """
  net = dict(width=width, depth=3)
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(name="nets.mlp.Generator", **net),
    disc=dict(name="nets.mlp.Discriminator", **net),
    rule=dict(name="adversarial.losses.nonsaturating"),
    z_dim=2,
  )
  noising(c, sigma=0.5)
  adam = dict(name="optim.adam", b1=0.0, b2=0.9)
  c.optim.gen, c.optim.disc = dict(adam, lr=2e-4), dict(adam, lr=4e-4)
  c.ema.main = dict(name="ema.half_life", images=50_000, ramp=0.1)
