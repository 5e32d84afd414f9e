"""WGAN-GP's ResNets: Gulrajani et al. 2017, Sec. 5; without labels.

| arg | data | updates of G | G, D parameters | published |
| --- | --- | --- | --- | --- |
| 32 | CIFAR-10 | 100,000 | 1,204,483, 1,053,825 | IS 7.86 |
| 64 | LSUN bedrooms | 200,000 | 12,220,675, 10,145,281 | none |
| 128 | LSUN bedrooms | 200,000 | 32,150,787, 29,025,793 | none |

The critic moves five times for each move of G, each time on 64 images. It has
no norm at 32 and layer norm above. Nets of 64 and 128 are torch-mimicry's (with
layer norm; the authors' own for 64 differ in the critic's first and last
layers). On CIFAR-10 the authors' G moves on 128 fakes, here on 64.

  jaxgen train --config configs/wgan_gp.py:32 --workdir W
  jaxgen train --config configs/wgan_gp.py:digits --workdir W
"""

from configs import _base

ARGS = ("32", "64", "128", "digits", "debug")


def get_config(arg="32"):
  """`arg`: 32, 64, 128; `digits`, a minute on a laptop; `debug`."""
  if arg in ("digits", "debug"):
    return digits(arg == "debug")
  size = int(arg)
  small = size == 32
  c = _base.base(
    "tfds:cifar10" if small else "tfds:lsun/bedroom",
    batch=64,
    steps=5 * (100_000 if small else 200_000),
    size=0 if small else size,
  )
  wide = (1024, 512, 256, 128, 64)
  model(
    c,
    *{
      32: ((128,) * 4, (128,) * 4, 2),
      64: (wide, wide[::-1], 5),
      128: ((1024, *wide), (*wide[::-1], 1024), 5),
    }[size],
    z_dim=128,
    norm="nothing" if small else "layer_norm",
  )
  adam = dict(
    name="optim.adam",
    lr=2e-4 if small else 1e-4,
    b1=0.0,
    b2=0.9,
    decay="linear" if small else "constant",
  )
  c.optim.gen, c.optim.disc = dict(adam, every=5), adam
  c.ema.main = dict(name="ema.half_life", images=0, ramp=None)  # none at all
  c.log.pictures = 10_000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def model(c, gen, disc, halvings, z_dim, gen_every=5, norm="nothing", **kw):
  """Widths of both nets, and blocks of the critic that halve."""
  classes = c.data.classes
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(name="nets.resgan.Generator", widths=gen, classes=classes, **kw),
    disc=dict(
      name="nets.resgan.Discriminator",
      widths=disc,
      halvings=halvings,
      classes=classes,
      wrap=dict(name="nets.spectral.plain"),
      norm=dict(name=f"nets.resgan.{norm}"),
      pool=dict(name="nets.resgan.mean"),
    ),
    rule=dict(name="adversarial.losses.wasserstein"),
    penalties=[
      dict(
        name="models.gan.Penalty",
        fn=dict(name="adversarial.penalties.gradient_penalty", weight=10.0),
      )
    ],
    gen_every=gen_every,
    z_dim=z_dim,
    classes=classes,
  )


def digits(debug):
  """The same rules on real digits of 8x8, with labels."""
  c = _base.base("digits", steps=2000, batch=64, classes=10)
  nets = ((8, 8), (8, 8)) if debug else ((48,) * 3, (32,) * 3)
  every = 1 if debug else 2
  model(c, *nets, 1, z_dim=32, gen_every=every, channels=1, bottom=4 if debug else 2)
  adam = dict(name="optim.adam", lr=1e-3, b1=0.0, b2=0.9, decay="linear")
  c.optim.gen, c.optim.disc = dict(adam, every=every), adam
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return _base.debug(c) if debug else c
