"""What the configs of diffusion transformers share: sizes, data, recipe."""

from configs import _adm, _autoencoder, _base

# Channels, blocks, heads (Peebles & Xie 2023, Table 1).
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}
PATCHES = (2, 4, 8)
LATENTS = (*(f"{size}-{patch}" for size in SIZES for patch in PATCHES), "XL-2-512")
SMALL = ("digits", "digits-modern", "photos", "photos-modern")
# Of what is trained on two cores: channels, blocks, heads, patch, labels.
NETS = {"digits": (96, 4, 4, 2, 10), "photos": (128, 4, 4, 4, 0)}
# KL-f8 of `ldm_kl.py`: what encoding and decoding read of it.
CODEC = dict(
  name="models.codec.Autoencoder",
  net=_autoencoder.kl_net("f8"),
  latents=dict(name="models.codec.KL"),
)


def latents(arg, net, learned, **parts):
  """ImageNet's latents and the published recipe.

  Args:
    arg: One of LATENTS.
    net: Path of the net in `nets`.
    learned: Whether it predicts variances, too.
    **parts: Of the diffusion.
  """
  size, patch, *larger = arg.split("-")
  width, depth, heads = SIZES[size]
  steps = 3_000_000 if larger else 7_000_000
  size = 512 if larger else 256
  c = _base.base("latents:imagenet", steps=steps, batch=256, size=size, classes=1000)
  c.data.update(channels=3, flip=True)
  inner = model(net, width, depth, heads, int(patch), 1000)
  inner["net"].update(remat=True, unroll=1, dtype="bfloat16", learned=learned)
  guide = dict(name="diffusion.guidance.first_channels", channels=3)
  c.model = dict(
    name="models.latent.Latent",
    codec=CODEC,
    codec_workdir="",
    scale=0.18215,
    model=inner | parts | dict(guide=guide),
  )
  c.optim.net = dict(name="optim.adam", lr=1e-4)
  c.ema.main = _adm.decay_9999(256)
  c.log.pictures = 50_000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def small(arg, net, modern, learned, **parts):
  """A config of SMALL: pixels, and a net that two cores train; see `latents`."""
  name, _, trunk = arg.partition("-")
  width, depth, heads, patch, classes = NETS[name]
  if name == "digits":
    c, lr = _base.base("digits", steps=2000, batch=32, classes=classes), 4e-3
  else:
    c, lr = _base.base("photos", steps=2000, batch=16, size=32), 2e-3
    c.data.flip = True
  c.model = model(modern if trunk else net, width, depth, heads, patch, classes) | parts
  c.model.net.learned = learned
  c.model.bound = 1.0
  c.optim.net = dict(name="optim.adam", lr=lr, warmup=100, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=20_000, ramp=0.1)
  return c


def model(net, width, depth, heads, patch, classes):
  """A model without its diffusion; blocks unrolled, as small ones want it."""
  return dict(
    name="models.diffusion.Diffusion",
    net=dict(
      name=f"nets.{net}",
      width=width,
      depth=depth,
      heads=heads,
      patch=patch,
      labels=classes and classes + 1,
      remat=False,
      unroll=depth,
      dtype="float32",
    ),
    steps=250,
    classes=classes,
    label_drop=0.1,
  )


def debug(c):
  """The same for a few steps, with a smaller net."""
  c.model.net.update(width=32, depth=1, unroll=1, heads=2)
  return _base.debug(c)
