"""Denoising diffusion GANs: Xiao et al. 2022; unconditional, in a few steps.

| arg | data | T | batch | updates | G, D parameters | published |
| --- | --- | --- | --- | --- | --- | --- |
| cifar | CIFAR-10 | 4 | 256 | 351,000 | 48,432,515, 12,741,633 | FID 3.75 |
| lsun | LSUN church, 256x256 | 4 | 64 | 937,500 | 39,726,979, 27,737,217 | |
| celeba256 | CelebA-HQ, 256x256 | 2 | 32 | 674,400 | 39,726,979, 27,737,217 | |

Batches are those of all GPUs together. Updates are 1800 epochs of 50,000 images
(the published weights of CIFAR-10 were saved after 1200), 500 of 120,000 (there,
the first of LSUN church; here, all) and 800 of 27,000 (saved after 550). Rates
fall along half a cosine to 1e-5; there, once an epoch. FID was computed there
on JPEG files.

  jaxgen train --config configs/ddgan.py:cifar --workdir W
  jaxgen import --source ddgan --checkpoint netG_1200.pth --workdir W
  jaxgen sample --workdir W --out grid.png
  jaxgen sample --workdir W --steps 2 --out early.png  (what it guesses by then)

For minutes on two CPU cores, all in T = 4 steps:

| arg | data | G, D parameters |
| --- | --- | --- |
| digits | digits of 8x8, with labels | 222,401, 69,649 |
| photos | crops of photographs, 32x32 | 534,820, 115,153 |
| stacked | digits by three, 1,000 modes | 222,915, 69,265 |
| points | a grid of 25 Gaussians; perceptrons | 38,274, 38,913 |

  jaxgen train --config configs/ddgan.py:digits --workdir W

Here digits' labels are a part of the latent, and D's are projected (Miyato &
Koyama 2018). R1 comes with every batch, as CPUs are slow where it comes with some:
a branch of XLA's took 0.7 s in place of 0.03. Squares of 2x2 pixels of photos are
positions, as in `images_diffusion`. Of 2,500 points, after 1000 updates at rates of
5e-4 and gamma 1 each of 25 Gaussians had 88 to 119; at gamma 0.02 and z of 2 all had
some then, but 10 had none after 2000; at 1e-3 and 0.2 one had 982 (one run each).
They do not stay: after the 10,000 updates of `jaxgen modes` 9 of 25 are left.
Fréchet of digits after 300 updates, one run each, by rates of G and D and gamma:
1e-3, 1e-3 and 0.02: 42; 3e-3, 2e-3 and 0.02: 124; 2e-3, 4e-3 and 0.02: 128; 2e-4,
1e-3 and 0.1: 164; 5e-4, 2e-3 and 0.02: 168; 5e-4, 1e-3 and 0.005: 271. Weights of R1
for photos were not compared.
"""

from configs import _base

# Data, height, T, batch, updates, rates of G and D, weight of R1, batches from one
# to the next, updates in which averages forget half (decays of 0.9999 and 0.999),
# what nets of the generator differ in.
CIFAR = dict(width=128, mults=(1, 2, 2, 2), z_layers=4)
LARGE = dict(width=64, mults=(1, 1, 2, 2, 4, 4), z_layers=3)
PUBLISHED = {
  "cifar": ("tfds:cifar10", 32, 4, 256, 351_000, (1.6e-4, 1.25e-4), 0.02, 15, 6931.125, CIFAR),
  "lsun": (
    "tfds:lsun/church_outdoor",
    256,
    4,
    64,
    937_500,
    (1.6e-4, 1e-4),
    1.0,
    10,
    692.8005,
    LARGE,
  ),
  "celeba256": ("tfds:celeb_a_hq/256", 256, 2, 32, 674_400, (2e-4, 1e-4), 2.0, 10, 6931.125, LARGE),
}
# Source, updates, batch, height, classes, then of the nets: patch, widths of G and
# D, multipliers of both.
SMALL = {
  "digits": ("digits", 600, 64, 0, 10, 1, (32, 12), (1,), (2, 4)),
  "stacked": ("stacked_digits", 1500, 64, 0, 0, 1, (32, 12), (1,), (2, 4)),
  "photos": ("photos", 500, 32, 32, 0, 2, (24, 12), (1, 2), (2, 4, 4)),
}
ARGS = (*PUBLISHED, *SMALL, "points", "points-debug", "debug")


def get_config(arg="cifar"):
  """`arg`: see above; `debug`: a few steps of smaller nets, on digits."""
  if arg in PUBLISHED:
    return published(*PUBLISHED[arg])
  name = arg.removesuffix("-debug")
  c = points() if name == "points" else small(*SMALL["digits" if arg == "debug" else arg])
  if arg == name != "debug":
    return c
  if name == "points":
    c.model.gen.width = c.model.disc.width = 32
  else:
    c.model.gen.update(width=8, z_width=16)
    c.model.disc.width = 4
  return _base.debug(c)


def published(source, size, steps, batch, updates, rates, gamma, lazy, life, net):
  """As published; the last Adam of both is that of 1e-5."""
  c = _base.base(source, steps=updates, batch=batch, size=size)
  c.data.flip = True
  net = dict(net, blocks=2, attend=(16,), z_width=256)
  disc = dict(width=64, t_width=256)
  if size == 32:
    disc |= dict(mults=(2, 4, 8, 8), halve_first=False, zero_last=True)
  model(c, net, disc, steps, gamma, lazy, z_dim=100)
  for group, lr in zip(("gen", "disc"), rates, strict=True):
    c.optim[group] = dict(
      name="optim.adam", lr=lr, b1=0.5, b2=0.9, decay="cosine_to", end=1e-5 / lr
    )
  c.ema.main = dict(name="ema.half_life", images=batch * life, ramp=None)
  c.log.pictures = 5000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def small(source, updates, batch, size, classes, patch, widths, mults, mults_disc):
  """For minutes: means in place of filters; the middle alone attends."""
  c = _base.base(source, steps=updates, batch=batch, size=size, classes=classes)
  c.data.flip = source == "photos"
  both = dict(patch=patch, taps=(1, 1))
  gen = dict(width=widths[0], mults=mults, blocks=1, attend=(), z_width=64, z_layers=2)
  disc = dict(width=widths[1], mults=mults_disc, halve_first=False, zero_last=True, t_width=32)
  model(c, gen | both, disc | both, 4, 0.05 if source == "photos" else 0.02, 1, z_dim=32)
  rates(c, 1e-3, 1e-3)
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return c


def points():
  """Perceptrons, as those of `points_gan`."""
  c = _base.base("points:grid25", steps=4000, batch=256)
  wide = dict(width=128, depth=3)
  game(
    c,
    dict(name="nets.ddgan_mlp.PointGenerator", **wide),
    dict(name="nets.ddgan_mlp.PointDiscriminator", **wide),
    steps=4,
    gamma=1.0,
    lazy=1,
    z_dim=8,
  )
  rates(c, 5e-4, 5e-4)
  c.ema.main = dict(name="ema.half_life", images=50_000, ramp=0.1)
  return c


def rates(c, gen, disc):
  """Adam as published, falling to zero."""
  adam = dict(name="optim.adam", b1=0.5, b2=0.9, decay="cosine")
  c.optim.gen, c.optim.disc = dict(adam, lr=gen), dict(adam, lr=disc)


def model(c, gen, disc, steps, gamma, lazy, z_dim):
  """Of images: both nets and their game."""
  labels = dict(classes=c.data.classes)
  game(
    c,
    dict(name="nets.ncsnpp.NCSNpp", **gen, **labels),
    dict(name="nets.ddgan_disc.PairDiscriminator", **disc, **labels),
    steps,
    gamma,
    lazy,
    z_dim,
  )


def game(c, gen, disc, steps, gamma, lazy, z_dim):
  """The model."""
  c.model = dict(
    name="models.denoising_gan.DenoisingGAN",
    gen=gen,
    disc=disc,
    chain=dict(name="diffusion.denoising_chain.DenoisingChain", steps=steps),
    rule=dict(name="adversarial.losses.nonsaturating"),
    gamma=gamma,
    lazy=lazy,
    z_dim=z_dim,
    classes=c.data.classes,
  )
