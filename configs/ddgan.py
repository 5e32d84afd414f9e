"""Denoising diffusion GANs: Xiao et al. 2022, in one to eight steps."""

from configs import _base

ARGS = ("cifar", "lsun", "celeba256", "digits", "photos", "points", "stacked", "debug")
# Source, size, T, batch, updates, rates of G and D, R1's weight and interval, decay
# of the average, widths and layers of the nets.
CIFAR = dict(width=128, mults=(1, 2, 2, 2), z_layers=4)
LARGE = dict(width=64, mults=(1, 1, 2, 2, 4, 4), z_layers=3)
PUBLISHED = {
  "cifar": ("tfds:cifar10", 0, 4, 256, 351_000, 1.6e-4, 1.25e-4, 0.02, 15, 0.9999, CIFAR),
  "lsun": ("tfds:lsun/church_outdoor", 256, 4, 64, 937_500, 1.6e-4, 1e-4, 1.0, 10, 0.999, LARGE),
  "celeba256": ("tfds:celeb_a_hq/256", 256, 2, 32, 674_400, 2e-4, 1e-4, 2.0, 10, 0.9999, LARGE),
}
SMALL_D = dict(mults=(2, 4, 8, 8), halve_first=False, zero_last=True)


def get_config(arg="cifar"):
  """`arg`: see above; `debug`: a few steps of smaller nets, on digits."""
  if arg in PUBLISHED:
    return published(*PUBLISHED[arg])
  if arg == "points":
    return points()
  return small(arg)


def published(source, size, steps, batch, updates, lr_gen, lr_disc, gamma, lazy, decay, net):
  """As published."""
  c = _base.base(source, steps=updates, batch=batch, size=size)
  c.data.flip = True
  disc = dict(width=64, t_width=256) | (SMALL_D if not size else {})
  model(c, dict(net, blocks=2, attend=(16,), z_width=256), disc, steps, gamma, lazy, z_dim=100)
  for group, lr in (("gen", lr_gen), ("disc", lr_disc)):
    c.optim[group] = dict(
      name="optim.adam", lr=lr, b1=0.5, b2=0.9, decay="cosine_to", end=1e-5 / lr
    )
  c.ema.main = dict(name="ema.half_life", images=batch * half_life(decay), ramp=None)
  c.log.pictures = 5000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def half_life(decay):
  """Updates after which an average with this decay has forgotten half."""
  import math

  return math.log(0.5) / math.log(decay)


def model(c, gen, disc, steps, gamma, lazy, z_dim, classes=0):
  """Both nets and their game."""
  c.model = dict(
    name="models.denoising_gan.DenoisingGAN",
    gen=dict(name="nets.ncsnpp.NCSNpp", classes=classes, **gen),
    disc=dict(name="nets.ddgan_disc.PairDiscriminator", classes=classes, **disc),
    chain=dict(name="diffusion.denoising_chain.DenoisingChain", steps=steps),
    rule=dict(name="adversarial.losses.nonsaturating"),
    gamma=gamma,
    lazy=lazy,
    z_dim=z_dim,
    classes=classes,
  )


def small(arg):
  if arg == "photos":
    c = _base.base("photos", steps=1500, batch=32, size=32)
    c.data.flip = True
    patch, width, dwidth, attend = 2, 24, 8, (8,)
    gamma, lr = 0.05, (1e-3, 1e-3)
  else:
    stacked = arg == "stacked"
    c = _base.base(
      "stacked_digits" if stacked else "digits", steps=1000, batch=64, classes=0 if stacked else 10
    )
    patch, width, dwidth, attend = 1, 24, 16, (4,)
    gamma, lr = 0.05, (1e-3, 1e-3)
  model(
    c,
    dict(width=width, mults=(1, 2), blocks=1, attend=attend, z_width=64, z_layers=2, patch=patch),
    dict(width=dwidth, mults=(2, 4, 4), halve_first=False, zero_last=True, t_width=64, patch=patch),
    4,
    gamma,
    4,
    z_dim=32,
    classes=c.data.classes,
  )
  adam = dict(name="optim.adam", b1=0.0, b2=0.9, decay="cosine")
  c.optim.gen, c.optim.disc = dict(adam, lr=lr[0]), dict(adam, lr=lr[1])
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  if arg == "debug":
    c.model.gen.width = c.model.disc.width = 8
    return _base.debug(c)
  return c


def points():
  """An MLP pair on a grid of 25 Gaussians."""
  c = _base.base("points:grid25", steps=4000, batch=256)
  c.model = dict(
    name="models.denoising_gan.DenoisingGAN",
    gen=dict(name="nets.ddgan_mlp.PointGenerator", width=128, depth=3),
    disc=dict(name="nets.ddgan_mlp.PointDiscriminator", width=128, depth=3),
    chain=dict(name="diffusion.denoising_chain.DenoisingChain", steps=4),
    rule=dict(name="adversarial.losses.nonsaturating"),
    gamma=0.05,
    lazy=1,
    z_dim=2,
  )
  adam = dict(name="optim.adam", b1=0.0, b2=0.9, decay="linear")
  c.optim.gen, c.optim.disc = dict(adam, lr=5e-4), dict(adam, lr=1e-3)
  c.ema.main = dict(name="ema.half_life", images=50_000, ramp=0.1)
  return c
