"""SNGAN: Miyato et al. 2018; with labels, Miyato & Koyama 2018.

Networks, batches and rates of the released code (pfnet-research).

| arg | data, labels | updates of G | G, D parameters | published |
| --- | --- | --- | --- | --- |
| 32 | CIFAR-10, none | 50,000 | 4,276,739, 1,053,825 | FID 21.7, IS 8.22 |
| 32c | CIFAR-10, 10 | 50,000 | 4,304,387, 1,055,105 | FID 17.5, IS 8.62 |
| 64 | ImageNet, 1000 | 250,000 | 17,974,915, 11,165,441 | none |
| 128 | ImageNet, 1000 | 450,000 | 41,996,931, 30,041,857 | FID 27.6, IS 29.7 |

D moves five times for each move of G, each time on 64 images. Where this is not
the released code: there, G moves on 128 fakes for CIFAR-10, and for ImageNet
the rate falls to zero over the last 50,000 updates; here it is constant.

  jaxgen train --config configs/sngan.py:32c --workdir W
  jaxgen train --config configs/sngan.py:digits --workdir W
"""

from configs import _base

ARGS = ("32", "32c", "64", "128", "digits", "debug")
STEPS = {32: 50_000, 64: 250_000, 128: 450_000}


def get_config(arg="32"):
  """`arg`: 32, 32c, 64, 128; `digits`, a minute on a laptop; `debug`."""
  if arg in ("digits", "debug"):
    return digits(arg == "debug")
  size = int(arg.removesuffix("c"))
  classes = {"32": 0, "32c": 10}.get(arg, 1000)
  c = _base.base(
    "tfds:cifar10" if size == 32 else "tfds:imagenet2012",
    batch=64,
    steps=5 * STEPS[size],
    size=0 if size == 32 else size,
    classes=classes,
  )
  wide = (1024, 512, 256, 128, 64)
  model(
    c,
    *{
      32: ((256,) * 4, (128,) * 4, 2),
      64: (wide, wide[::-1], 5),
      128: ((1024, *wide), (*wide[::-1], 1024), 5),
    }[size],
    z_dim=128,
  )
  adam = dict(
    name="optim.adam", lr=2e-4, b1=0.0, b2=0.9, decay="linear" if size == 32 else "constant"
  )
  c.optim.gen, c.optim.disc = dict(adam, every=5), adam
  c.ema.main = dict(name="ema.half_life", images=0, ramp=None)  # none at all
  c.log.pictures = 10_000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def model(c, gen, disc, halvings, z_dim, gen_every=5, **kw):
  """Widths of both nets, and blocks of D that halve."""
  classes = c.data.classes
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(name="nets.resgan.Generator", widths=gen, classes=classes, **kw),
    disc=dict(name="nets.resgan.Discriminator", widths=disc, halvings=halvings, classes=classes),
    rule=dict(name="adversarial.losses.hinge"),
    gen_every=gen_every,
    z_dim=z_dim,
    classes=classes,
  )


def digits(debug):
  """The same rules on real digits of 8x8."""
  c = _base.base("digits", steps=1000, batch=128, classes=10)
  nets = ((8, 8), (8, 8)) if debug else ((48,) * 3, (32,) * 3)
  every = 1 if debug else 2
  model(c, *nets, 1, z_dim=32, gen_every=every, channels=1, bottom=4 if debug else 2)
  adam = dict(name="optim.adam", lr=1e-3, b1=0.0, b2=0.9, decay="linear")
  c.optim.gen, c.optim.disc = dict(adam, every=every), adam
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return _base.debug(c) if debug else c
