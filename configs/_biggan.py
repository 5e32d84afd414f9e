"""What the configs of BigGAN and BigGAN-deep share (Brock et al. 2019)."""

from configs import _base

EVERY = 2  # batches for each move of the generator


def game(
  size,
  net,
  *,
  gen,
  disc,
  z_dim,
  lr,
  classes=1000,
  batch=2048,
  steps=300_000,
  source="tfds:imagenet2012",
):
  """A pair of `net`'s two networks; App. C.

  Args:
    size: Height of the images; 0: as they are stored.
    net: "nets.biggan" or "nets.biggan_deep".
    gen: Attributes of the generator.
    disc: Likewise.
    z_dim: Length of z.
    lr: Learning rates of the generator and the discriminator.
    classes: Of the data.
    batch: Images of one move.
    steps: Batches.
    source: Of the data.
  """
  c = _base.base(source, steps=steps, batch=batch, size=size, classes=classes)
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(name=f"{net}.Generator", classes=classes, **gen),
    disc=dict(name=f"{net}.Discriminator", classes=classes, **disc),
    rule=dict(name="adversarial.losses.hinge"),
    gen_penalty=dict(name="adversarial.penalties.orthogonal", weight=1e-4),
    gen_every=EVERY,
    z_dim=z_dim,
    classes=classes,
  )
  adam = dict(name="optim.adam", b1=0.0, b2=0.999, eps=1e-6)
  c.optim.gen = dict(adam, lr=lr[0], every=EVERY)
  c.optim.disc = dict(adam, lr=lr[1])
  # 0.9999 a move of the generator; the ramp ends where the authors begin.
  life = 6931.1 * EVERY
  c.ema.main = dict(name="ema.half_life", images=life * batch, ramp=life / (20_000 * EVERY))
  c.log.pictures = 5000
  c.checkpoint.update(every=2000, keep_every=20_000)
  return c


def digits(net, *, gen, disc, arg):
  """Small nets on real digits of 8x8: the same rules, faster rates."""
  c = game(
    0,
    net,
    gen=dict(size=8, channels=1, embed=16, attend=(), **gen),
    disc=dict(attend=(), **disc),
    z_dim=32,
    lr=(4e-4, 8e-4),
    classes=10,
    batch=64,
    steps=2400,
    source="digits",
  )
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  c.log.pictures = 1000
  c.checkpoint.update(every=1000, keep_every=0)
  return _base.debug(c) if arg == "debug" else c


def photos(net, *, gen, disc):
  """Small nets on patches of photographs, for minutes on two cores.

  Without labels: every chunk of z sets the norms alone. Rates are those of
  `images_gan`'s small pair, as is DiffAugment (Zhao et al. 2020): patches are of
  seven photographs.
  """
  c = game(
    32,
    net,
    gen=dict(size=32, embed=0, attend=(), **gen),
    disc=dict(attend=(), **disc),
    z_dim=64,
    lr=(2e-4, 4e-4),
    classes=0,
    batch=64,
    steps=1000,
    source="photos",
  )
  c.data.flip = True
  c.model.augment = dict(name="adversarial.diffaugment.DiffAugment")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  c.log.update(every=50, pictures=500)
  c.checkpoint.update(every=250, keep_every=0)
  return c
