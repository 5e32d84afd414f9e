"""R3GAN: Huang et al. 2024, "The GAN is dead; long live the GAN!"; config E.

| arg | data, labels | batch | G, D parameters | published |
| --- | --- | --- | --- | --- |
| cifar | CIFAR-10, 10 | 512 | 20,781,952, 21,280,512 | FID 1.96 |
| ffhq64 | a folder, none | 256 | 22,429,824, 22,381,440 | FID 1.95 |
| ffhq256 | a folder, none | 256 | 23,057,952, 23,009,568 | FID 2.75 |
| imagenet32 | ImageNet, 1000 | 4096 | 82,914,304, 86,548,992 | FID 1.27 |
| imagenet64 | ImageNet, 1000 | 4096 | 103,570,432, 107,205,120 | FID 2.09 |

Over the first 20 million images (ImageNet: 200) the source moves, along half a
cosine, the rate from 2e-4 to 5e-5, Adam's beta_2 from 0.9 to 0.99, gamma from
ten times its last value, and the strength of augmentation up from nothing. Here
all are constant at their last values, and nothing is cut out of images. The
source sets no end; here it is 100 million images (ImageNet: 1000). It was run
on 8 GPUs (ImageNet: 32 and 64).

  jaxgen train --config configs/r3gan.py:cifar --workdir W
  jaxgen train --config configs/r3gan.py:ffhq64 \
    --config.data.source=folder:/ffhq64 --workdir W
  jaxgen train --config configs/r3gan.py:digits --workdir W
  jaxgen train --config configs/r3gan.py:photos --workdir W
"""

from configs import _base

COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
# Widths and groups from 4x4 on, labels, batch, gamma, half-life of the average
# and chance of a transform.
SIZES = {
  "cifar": ((768,) * 4, (96,) * 4, 10, 512, 0.005, 5e6, 0.55),
  "ffhq64": ((*(768,) * 4, 384), (*(96,) * 4, 48), 0, 256, 0.2, 5e5, 0.3),
  "ffhq256": ((*(768,) * 4, 384, 192, 96), (*(96,) * 4, 48, 24, 12), 0, 256, 15.0, 5e5, 0.3),
  "imagenet32": ((1536,) * 4, (96,) * 4, 1000, 4096, 0.05, 5e7, 0.5),
  "imagenet64": ((1536,) * 5, (96,) * 5, 1000, 4096, 0.1, 5e7, 0.4),
}
SOURCES = {"cifar": "tfds:cifar10", "ffhq": "folder:ffhq", "imagenet": "tfds:imagenet2012"}
ARGS = (*SIZES, "digits", "photos", "debug")


def get_config(arg="cifar"):
  """`arg`: see above; `digits`, `photos`, minutes on a laptop; `debug`."""
  if arg == "photos":
    return photos()
  if arg in ("digits", "debug"):
    return digits(arg == "debug")
  widths, groups, classes, batch, gamma, life, p = SIZES[arg]
  dataset = arg.rstrip("0123456789")
  million = 200e6 if dataset == "imagenet" else 20e6
  c = _base.base(
    SOURCES[dataset],
    steps=int(5 * million / batch),
    batch=batch,
    size=0 if arg == "cifar" else 2 ** (len(widths) + 1),
    classes=classes,
  )
  c.data.flip = True
  model(c, widths, groups, gamma, z_dim=64, dtype="bfloat16")
  c.model.augment = dict(
    name="adversarial.ada.ADA",
    p=p,
    kimg=1e12,  # where p stays as it is
    **dict.fromkeys(COLOUR, 0.5),
  )
  adam = dict(name="optim.adam", lr=5e-5, b1=0.0, b2=0.99)
  c.optim.gen, c.optim.disc = adam, adam
  c.ema.main = dict(name="ema.half_life", images=life, ramp=life / million)
  c.log.pictures = 5000
  c.checkpoint.update(every=5000, keep_every=20_000)
  return c


def model(c, widths, groups, gamma, z_dim, channels=3, **kw):
  """Widths and groups of the generator's stages; D's are the same, reversed."""
  kw["classes"] = classes = c.data.classes
  penalty = lambda name: dict(
    name="models.gan.Penalty", fn=dict(name=f"adversarial.penalties.{name}", gamma=gamma)
  )
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(name="nets.r3gan.Generator", widths=widths, groups=groups, channels=channels, **kw),
    disc=dict(name="nets.r3gan.Discriminator", widths=widths[::-1], groups=groups[::-1], **kw),
    rule=dict(name="adversarial.losses.relativistic"),
    penalties=[penalty("r1"), penalty("r2")],
    z_dim=z_dim,
    classes=classes,
  )


def digits(debug):
  """The same rules on real digits of 8x8.

  In one group: XLA has no fast gradient of grouped convolutions for CPUs.
  """
  c = _base.base("digits", steps=1500, batch=64, classes=10)
  wide = 8 if debug else 32
  model(c, (wide,) * 2, (1,) * 2, 0.3, z_dim=16, channels=1, blocks=1)
  adam = dict(name="optim.adam", lr=2e-3, b1=0.0, b2=0.95, decay="linear")
  c.optim.gen, c.optim.disc = adam, adam
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return _base.debug(c) if debug else c


def photos():
  """The same rules on patches of photographs, 32x32, without labels.

  With DiffAugment (Zhao et al. 2020): patches are of seven photographs. Gamma is
  between those of `cifar` and `ffhq64`, and rates are for minutes, not days.
  """
  c = _base.base("photos", steps=1000, batch=32, size=32)
  c.data.flip = True
  model(c, (48, 48, 24, 12), (1,) * 4, 0.1, z_dim=64, blocks=1)
  c.model.augment = dict(name="adversarial.diffaugment.DiffAugment")
  adam = dict(name="optim.adam", lr=1e-3, b1=0.0, b2=0.95)
  c.optim.gen, c.optim.disc = adam, adam
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  c.log.update(every=50, pictures=500)
  c.checkpoint.every = 250
  return c
