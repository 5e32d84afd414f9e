"""EDM2: Karras et al. 2024, arXiv 2312.02696, config G of NVlabs/edm2.

On ImageNet: `img512-*` on latents 64x64x4 of the Stable Diffusion autoencoder,
`img64-*` on pixels. FIDs are those of the published code, 32 steps of Heun (63
evaluations); guided ones by a smaller net without labels, of averages of the
same width. Autoguidance got S to 1.34, XXL to 1.25, and S at 64 to 1.01.

| arg | parameters | 2^20 images | rate | FID, guided |
| --- | --- | --- | --- | --- |
| img512-xxs | 31,309,029 | 2048 | 0.017 | |
| img512-xs | 124,713,253 | 2048 | 0.012 | 3.53, 2.91 |
| img512-s | 280,212,837 | 2048 | 0.010 | 2.56, 2.23 |
| img512-m | 497,807,781 | 2048 | 0.009 | 2.25, 2.01 |
| img512-l | 777,498,085 | 1792 | 0.008 | 2.06, 1.88 |
| img512-xl | 1,119,283,749 | 1280 | 0.007 | 1.96, 1.85 |
| img512-xxl | 1,523,164,773 | 896 | 0.0065 | 1.91, 1.81 |
| img64-s | 280,209,381 | 1024 | 0.010 | 1.58 |
| img64-m | 497,803,173 | 2048 | 0.009 | 1.43 |
| img64-l | 777,492,325 | 1024 | 0.008 | 1.33 |
| img64-xl | 1,119,276,837 | 640 | 0.007 | 1.33 |

With `-uncond` after the name there are no labels: 124,201,253 parameters of
`img512-xs-uncond`. Batches are of 2048. The autoencoder's pixels begin at 0
there, so that it takes `low`:

  jaxgen import --source diffusers --checkpoint sd-vae-ft-mse.safetensors \
    --config configs/ldm_kl.py:f8-pixels --config.model.net.low=0.0 --workdir K
  jaxgen import --source edm2 --checkpoint edm2-img512-xs.pkl \
    --config configs/edm2.py:img512-xs --config.model.codec_workdir=K --workdir W
  jaxgen sample --workdir W --out grid.png

A worse net of the same latents, imported likewise to G, guides with `--worse G
--auto 1.4`. Or trained, on latents that are written once:

  jaxgen encode --workdir K --data tfds:imagenet2012 --out imagenet
  jaxgen train --config configs/edm2.py:img512-xs --config.model.codec_workdir=K \
    --config.data.source=latents:imagenet --workdir W

Averages are power functions of widths 0.05 and 0.1, kept every 2^23 images, of
which `--ema 0.13` makes another width afterwards; a pickle holds one. Losses are
means over latents where the published code takes sums, and Adam's eps is as much
smaller. A gradient that is not finite skips the update, where theirs has zeros.

On two cores: `digits` (406,819 parameters) and `photos` (728,235), of widths
like those of `digits_diffusion` and `images_diffusion:32-small`. Rates are of
weights of unit rms, where a step of 0.03 turns as one of 0.003 does in a U-Net;
here they end at zero, as the other small configs' do. Squared error of F on digits:

| step of 64 images | rate 0.01, 1 / sqrt after 200 | 0.02, after 100 | 0.03, cosine | U-Net |
| --- | --- | --- | --- | --- |
| 100 | 0.57 | 0.47 | 0.45 | 0.44 |
| 300 | 0.40 | 0.37 | 0.36 | 0.35 |
| 400 | | 0.34 | 0.33 | 0.33 |

After 3e12 operations of training the last two score 2.0 and 2.1 (Fréchet of 500
digits in 8 steps of DPM-Solver++, mean of two seeds). `photos` was not trained.

  jaxgen train --config configs/edm2.py:digits --workdir D
  jaxgen sample --workdir D --guidance 2 --out grid.png
"""

from configs import _base, _dit

# Channels, rate, dropout, 2^20 images at 512 and at 64.
SIZES = {
  "xxs": (64, 0.017, 0.0, 2048, None),
  "xs": (128, 0.012, 0.0, 2048, None),
  "s": (192, 0.010, 0.0, 2048, 1024),
  "m": (256, 0.009, 0.1, 2048, 2048),
  "l": (320, 0.008, 0.1, 1792, 1024),
  "xl": (384, 0.007, 0.1, 1280, 640),
  "xxl": (448, 0.0065, 0.1, 896, None),
}
OF_512 = tuple(f"img512-{size}" for size in SIZES)
OF_64 = tuple(f"img64-{size}" for size, row in SIZES.items() if row[-1])
SMALL = ("digits", "photos")
ARGS = (*OF_512, *OF_64, *(f"{arg}-uncond" for arg in OF_512 + OF_64), *SMALL, "debug")
BATCH = 2048
# Of the autoencoder's latents: z -> (z - mean) / std * 0.5.
MEAN, STD = (5.81, 3.25, 0.12, -2.15), (4.17, 4.62, 3.71, 3.28)
HEUN = dict(sampler=dict(name="diffusion.samplers.heun"), steps=32)
DIGITS = dict(
  _base.edm(0.75, -0.6, 1.0, lo=0.01, hi=20.0, rho=7.0),
  sampler=dict(name="diffusion.samplers.ancestral", eta=0.0),
  steps=25,
)
PHOTOS = dict(
  _base.edm(0.5, -1.2, 1.2, lo=0.002, hi=80.0, rho=7.0),
  sampler=dict(name="diffusion.samplers.dpmpp_2m"),
  steps=18,
)


def get_config(arg="img512-xs"):
  """`arg`: pixels and size, `-uncond` without labels; or one of SMALL, or `debug`."""
  if arg.startswith("img"):
    return published(*arg.split("-"))
  if arg == "debug":
    c = small("digits")
    c.model.net.update(width=16, head=16)
    return _base.debug(c)
  return small(arg)


def published(data, size, uncond=None):
  """The published recipe: `data` is img512 or img64, `size` one of SIZES."""
  latents = data == "img512"
  width, lr, dropout, *millions = SIZES[size]
  classes = 0 if uncond else 1000
  steps = millions[not latents] * 2**20 // BATCH
  source, side = ("latents:imagenet", 512) if latents else ("tfds:imagenet2012", 64)
  c = _base.base(source, steps=steps, batch=BATCH, size=side, classes=classes)
  c.data.channels = 3
  noise = (-0.4, 1.0) if latents else (-0.8, 1.6)
  net = dict(width=width, mults=(1, 2, 3, 4), blocks=3, attend=(16, 8), head=64)
  net |= dict(dropout=dropout, remat=True, dtype="bfloat16")
  inner = model(net, classes, 0.0, _base.edm(0.5, *noise, lo=0.002, hi=80.0, rho=7.0) | HEUN)
  c.model = inner
  if latents:
    c.model = dict(
      name="models.latent.Latent",
      codec=_dit.CODEC | dict(net=_dit.CODEC["net"] | dict(low=0.0)),
      codec_workdir="",
      mean=MEAN,
      scale=tuple(0.5 / std for std in STD),
      model=inner,
    )
  numbers = 64 * 64 * (4 if latents else 3)  # of a loss, which is their mean here
  c.optim.net = adam(lr, 10e6 / BATCH, 70_000 if latents else 35_000, eps=1e-8 / numbers)
  c.ema.main = dict(name="ema.power", width=0.05)
  c.ema.wide = dict(name="ema.power", width=0.1)
  c.log.pictures = 2**16
  c.checkpoint.update(every=2**12, keep_every=2**23 // BATCH)
  return c


def small(arg):
  """A config of SMALL: pixels, and a net that two cores train."""
  if arg == "digits":
    c = _base.base("digits", steps=860, batch=64, classes=10)
    net = dict(width=24, mults=(1, 2), blocks=1, attend=(4,), head=24)
    c.model = model(net, 10, 0.1, DIGITS)
  else:
    c = _base.base("photos", steps=1000, batch=32, size=32)
    c.data.flip = True
    net = dict(width=32, mults=(1, 2), blocks=1, attend=(8,), head=64, patch=2)
    c.model = model(net, 0, 0.0, PHOTOS)
  c.model.bound = 1.0
  c.optim.net = adam(0.03, 50, 200) | dict(decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return c


def model(net, classes, drop, parts):
  """A diffusion of that net; with labels to drop it knows one for "none"."""
  labels = classes and classes + (drop > 0)
  return (
    dict(
      name="models.diffusion.Diffusion",
      net=dict(name="nets.edm2.EDM2", labels=labels) | net,
      classes=classes,
      label_drop=drop,
    )
    | parts
  )


def adam(lr, warmup, after, **kw):
  """Their optimiser, which keeps weights at unit rms; rates count updates."""
  decay = dict(warmup=warmup, decay="inverse_sqrt", after=after)
  return dict(name="optim.adam", lr=lr, b2=0.99, unit_rms=True) | decay | kw
