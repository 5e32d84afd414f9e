"""GAN-Control: slices of the latents for attributes (Shoshan et al. 2021).

Two phases: a GAN that gives each attribute a slice of its own, then encoders
from an attribute's value to its slice of w.

  jaxgen train --config configs/gan_control.py:digits --workdir G
  jaxgen train --config configs/gan_control.py:digits-encoder --workdir E \
    --config.model.generator_workdir=G
  jaxgen control --workdir E --set slant=0.3,thickness=2 --out x.png

| arg | data | slices of z, w |
| --- | --- | --- |
| digits | 8 x 8, labels are the class | slant 16, thickness 16, other 32 |
| digits-judge | the same without labels | class 32, slant 16, thickness 16, other 16 |
| photos | patches of 16 x 16 | colour 16, contrast 16, other 32 |
| ffhq | a folder, 512 x 512 | id 128, expression, orientation, gamma, age, hair, other 64 |

Each has an encoder, `digits-encoder` and so on. Slant, thickness, colour and
contrast are statistics of an image, see `adversarial.predictors`; the class of
`digits-judge` is what a classifier says, which is trained first:

  jaxgen train --config configs/judge.py --workdir J
  jaxgen train --config configs/gan_control.py:digits-judge --workdir G \
    --config.model.judge_workdir=J

After one training of `digits` and of its encoder, 200 samples that were asked for
the slant of a real one missed it by 0.10 of its standard deviation, and of
thickness by 0.19; as they came they did by 1.4 and 1.8. The other attribute moved
by 0.12 and 0.06. By guidance of `digits_diffusion` it was 0.10 and 0.14, and 0.35
and 0.27, with 25 passes of the net in place of two; but its digits look better,
by Fréchet distances of 8 and 9 against 18 and 24. The larger an attribute's
weight, the better it is met, and the worse are the digits: with weights of 5 and
8 there were none.

`ffhq` is as published: StyleGAN2 with R1 of gamma 1 every 16th batch and path
lengths every 4th, no mixing of styles, rates 0.002, 800,000 batches of 16, G
31,203,047 and D 28,982,849 parameters. Slices have fixed places in a batch, as
in the published config; `places=None` draws 2 to 12 places anew each time,
which the code can, too. It looks through six published networks (ArcFace,
ESR-9, Hopenet, a 3D model of faces, DEX, a segmentation of hair), whose weights
are not here: a module `faces` of your own has to have the functions named
below, from images in [-1, 1] to features, and $JAXGEN_PREDICTORS=faces allows
them.
"""

from configs import _base, _stylegan2

SMALL = ("digits", "digits-judge", "photos")
ARGS = tuple(f"{arg}{part}" for arg in (*SMALL, "ffhq", "debug") for part in ("", "-encoder"))
# Attribute, size, places in a batch of 16, function, distance; lo, hi, weight.
FFHQ = (
  ("id", 128, (0, 4), "identity", "sum_of_squares", (0.5, 1.8, 0.25)),
  ("expression", 64, (4, 6), "expression", "mean_absolute", (0.6, 1.8, 0.2)),
  ("orientation", 64, (6, 8), "pose", "mean_absolute", (0.25, 2.75, 0.2)),
  ("gamma", 64, (8, 10), "illumination", "mean_absolute", (0.0, 0.08, 1.5)),
  ("age", 64, (10, 12), "age", "mean_absolute", (0.4, 1.4, 0.15)),
  ("hair", 64, (12, 14), "hair", "mean_absolute_of_parts", (0.0, 0.2, 0.4)),
)
# Of the built-in data: size, lo, hi, weight. Two real images are 0.14 (slant), 0.21,
# 0.46 and 0.08 apart.
STATISTICS = {
  "slant": (16, 0.02, 0.18, 1.0),
  "thickness": (16, 0.03, 0.25, 1.0),
  "colour": (16, 0.03, 0.6, 0.2),
  "contrast": (16, 0.01, 0.15, 0.8),
}


def get_config(arg="ffhq"):
  """`arg`: see above; or `debug`, a few steps of a smaller net on digits."""
  data = arg.removesuffix("-encoder")
  c = ffhq() if data == "ffhq" else small(data)
  if arg != data:
    c = encoder(c, data)
  return _base.debug(c) if data == "debug" else c


def ffhq():
  """As published."""
  c = _base.base("folder:ffhq512", steps=800_000, batch=16, size=512)
  c.data.update(flip=True, channels=3)
  groups = [
    group(
      name,
      size,
      dict(name="models.gan_control.UserFunction", function=f"faces.{function}"),
      *limits,
      distance=dict(name=f"adversarial.contrastive.{distance}"),
      places=places,
    )
    for name, size, places, function, distance, limits in FFHQ
  ]
  groups.append(group("other", 64, places=(14, 16)))
  model(c, groups, size=512, base=32768, wide=512, group=4, gamma=1.0, layers=8, hidden=256)
  c.model.path = dict(name="adversarial.path.PathLength")
  _stylegan2.optimisers(c, 0.002)
  c.ema.main = dict(name="ema.half_life", images=10_000)
  c.log.pictures = 5000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def small(data):
  """For minutes of one core."""
  photos = data == "photos"
  if photos:
    c = _base.base("photos", steps=1200, batch=16, size=16)
    c.data.update(flip=True, channels=3)
  else:
    c = _base.base("digits", steps=2500, batch=64, classes=0 if data == "digits-judge" else 10)
  attributes = ("colour", "contrast") if photos else ("slant", "thickness")
  groups = [statistic(name) for name in attributes]
  if data == "digits-judge":
    net = dict(name="nets.convs.Classifier", width=32, features=64, classes=10)
    judge = dict(name="models.gan_control.Judge", net=net)
    groups.insert(0, group("class", 32, judge, 0.3, 3.0, 0.3))
  groups.append(group("other", 16 if data == "digits-judge" else 32))
  wide = 16 if data == "debug" else 64
  model(
    c,
    groups,
    size=16 if photos else 8,
    channels=3 if photos else 1,
    base=(8 if photos else 4) * wide,
    wide=wide,
    group=4,
    gamma=1.0 if photos else 5.0,
    layers=2,
    hidden=64,
  )
  _stylegan2.optimisers(c, 0.01, decay="linear")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return c


def statistic(name):
  """A group of STATISTICS."""
  size, *limits = STATISTICS[name]
  function = dict(name=f"adversarial.predictors.{name}")
  return group(name, size, dict(name="models.gan_control.Statistic", function=function), *limits)


def group(attribute, size, predictor=None, lo=0.0, hi=1.0, weight=1.0, **kw):
  """An attribute with its slice."""
  return dict(
    name="models.gan_control.Group",
    attribute=attribute,
    size=size,
    predictor=predictor,
    lo=lo,
    hi=hi,
    weight=weight,
    **kw,
  )


def model(c, groups, *, hidden, layers, wide, **kw):
  """StyleGAN2 with a split mapping; `wide` are its channels at the most."""
  _stylegan2.model(c, layers=layers, wide=wide, **kw)
  sizes = [g["size"] for g in groups]
  mapper = dict(
    name="nets.split_mapping.split",
    names=[g["attribute"] for g in groups],
    sizes=sizes,
    hidden=hidden,
    layers=layers,
    classes=c.data.get_ref("classes"),
    labelled="other",
  )
  c.model.gen.update(mapper=mapper, w_dim=sum(sizes))
  c.model.update(name="models.gan_control.GANControl", groups=groups, z_dim=sum(sizes))


def encoder(c, data):
  """The second phase, over the generator of the first.

  As published: four layers, L1, batches of 128, Adam of 0.002 with the moments
  and the rate of a lazy penalty that it does not have.
  """
  ours = data != "ffhq"
  generator = c.model
  groups = [g for g in generator.groups if g["predictor"] is not None]
  names = [g["attribute"] for g in groups]
  sizes = [g["size"] for g in groups]
  c.steps, c.batch = 1500 if ours else 800_000, 128
  c.model = dict(
    name="models.control_encoder.ControlEncoder",
    generator=generator,
    net=dict(
      name="nets.split_mapping.AttributeEncoder",
      names=names,
      sizes=sizes,
      hidden=64 if ours else 512,
      layers=4,
    ),
    generator_workdir="",
    standardise=ours,
  )
  del c.optim.gen, c.optim.disc
  lr, decay = (0.01, "cosine") if ours else (0.002, "constant")
  c.optim.encoder = dict(name="optim.adam", lr=lr, b1=0.0, b2=0.99, lazy=4, decay=decay)
  return c
