"""MeanFlow: Geng et al. 2025, arXiv 2505.13447, and its improved form, 2512.02012.

Samples in one step, trained from scratch: no teacher. On ImageNet 256x256, whose
latents are 32x32 of four channels, published FID of one evaluation: `B-4` 11.4
(the released checkpoint); improved, `imf-B-2` 3.39, `imf-M-2` 2.27, `imf-L-2`
1.86, `imf-XL-2` 1.72, and 1.54 of two. The nets are DiT's, told two times; and
of the improved form one that is told everything by tokens. Guidance is in the
target: `config.model.model.omega` and `kappa` of the former are for training, of
the improved form `omega`, `t_min` and `t_max` are knobs.

| arg | parameters | |
| --- | --- | --- |
| B-4 | 131,165,248 | |
| B-2 | 131,091,472 | |
| M-2 | 308,019,216 | |
| L-2 | 459,137,040 | |
| XL-2 | 676,440,592 | |
| imf-B-2 | 145,596,960 | 88,948,256 without the blocks of v alone |
| imf-M-2 | 230,570,016 | 173,921,312 |
| imf-L-2 | 509,752,352 | 409,071,648 |
| imf-XL-2 | 711,113,760 | 610,433,056 |

Everything is float32, as published: a derivative in bfloat16 is noisy. The
published weights are checkpoints of flax, which `jaxgen import` does not read.

  jaxgen encode --workdir K --data tfds:imagenet2012 --flip --out imagenet
  jaxgen train --config configs/mean_flow.py:B-4 --config.model.codec_workdir=K \
    --config.data.source=latents:imagenet --workdir W

On two cores, with the U-Nets of `digits_diffusion` and `images_diffusion` told
two times: `digits` (438,673 parameters), `photos` (782,092), with `-imf` after
either (474,026 and 785,560) the improved form, whose small net is told t as well;
`stacked` (438,483), 1,000 modes; `points` (89,666), 25 Gaussians and a
perceptron.

The weight 1 / (|error|^2 + 0.01)^p makes of a mean square, for p = 1, a mean
logarithm. Of thousands of numbers these agree; of 64 (digits) or 2 (points) the
logarithm prefers modes to means. Of 1,000 digits in one step, one training each
(`jaxgen eval`; real digits 1.64):

| p | steps x batch | Fréchet | precision | recall |
| --- | --- | --- | --- | --- |
| 1 | 774 x 64 | 13.9 | 0.93 | 0.55 |
| 0.5 | 400 x 64 | 17.5 | 0.88 | 0.52 |
| 0 | 400 x 64 | 17.8 | 0.59 | 0.78 |
| improved, 1 | 513 x 64 | 33.9 | 0.96 | 0.07 |
| improved, 0.5 | 203 x 64, cut short | 25.5 | 0.88 | 0.29 |

In four steps the first has 3.1, 0.91 and 0.88. So `digits-imf` has p = 0.5, and
`stacked` untried. Points have p = 0, and times drawn
more widely, where their noise is small, too: of 32 steps 82% of the points lie
within three deviations of a mode, and all 25 have some (else 3%); of one step 6%,
and half of them are further than 0.11, where modes are 0.4 apart.

  jaxgen train --config configs/mean_flow.py:digits --workdir D
  jaxgen sample --workdir D --steps 1 --out grid.png
"""

from configs import _adm, _base, _dit

# Channels, blocks, heads.
SIZES = {"B": (768, 12, 12), "M": (1024, 16, 16), "L": (1024, 24, 16), "XL": (1152, 28, 16)}
IMPROVED = {"B": (768, 12, 12), "M": (768, 24, 12), "L": (1024, 32, 16), "XL": (1024, 48, 16)}
# Scale and interval of guidance in one step, as published.
GUIDES = {"B": (8.0, 0.4, 0.65), "M": (10.5, 0.4, 0.6), "L": (10.5, 0.4, 0.6)}
GUIDES |= {"XL": (8.0, 0.42, 0.62)}
PLAIN = ("B-4", "B-2", "M-2", "L-2", "XL-2")
LATENTS = (*PLAIN, *(f"imf-{size}-2" for size in IMPROVED))
PIXELS = ("digits", "photos", "digits-imf", "photos-imf", "stacked")
ARGS = (*LATENTS, *PIXELS, "points", "debug", "debug-imf")
EPOCH = 1_281_167  # images


def get_config(arg="B-4"):
  """`arg`: size and patch, or data; `debug`, `debug-imf`: a few steps of digits."""
  if arg in LATENTS:
    return latents(arg)
  if arg == "points":
    return points()
  if not arg.startswith("debug"):
    return pixels(arg)
  c = pixels(arg.replace("debug", "digits"))
  c.model.net.update(width=16, mults=(1,), attend=())
  if arg == "debug":
    c.model.update(omega=1.0, kappa=0.5)
  return _base.debug(c)


def latents(arg):
  """ImageNet's latents and the published recipe."""
  *improved, size, patch = arg.split("-")
  width, depth, heads = (IMPROVED if improved else SIZES)[size]
  batch, epochs = (1024, 640) if improved else (256, 240 if size == "B" else 1000)
  c = _base.base(
    "latents:imagenet", steps=epochs * EPOCH // batch, batch=batch, size=256, classes=1000
  )
  c.data.update(channels=3, flip=True)
  net = dict(width=width, depth=depth, heads=heads, patch=int(patch), labels=1001, remat=True)
  inner = dict(classes=1000, label_drop=0.1, steps=1)
  if improved:
    inner |= dict(name="models.mean_flow.ImprovedMeanFlow", guide=GUIDES[size])
    inner["net"] = dict(name="nets.imf_dit.ImfDiT", **net)
  else:
    inner |= dict(name="models.mean_flow.MeanFlow", omega=1.0, kappa=0.5)
    inner["net"] = dict(name="nets.two_times.DiT", **net)
  c.model = dict(
    name="models.latent.Latent", codec=_dit.CODEC, codec_workdir="", scale=0.18215, model=inner
  )
  warmup = 10 * EPOCH // batch if improved else 0
  c.optim.net = dict(name="optim.adam", lr=1e-4, b2=0.95, warmup=warmup)
  c.ema.main = _adm.decay_9999(batch)
  c.log.pictures = 50_000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def pixels(arg):
  """Images that two cores learn."""
  data, _, improved = arg.partition("-")
  photos, stacked = data == "photos", data == "stacked"
  if photos:
    c = _base.base("photos", steps=1000, batch=32, size=32)
    c.data.flip = True
  else:
    source = "stacked_digits" if stacked else "digits"
    c = _base.base(source, steps=1000, batch=64, classes=0 if stacked else 10)
  classes = c.data.classes
  c.model = dict(
    name=f"models.mean_flow.{'ImprovedMeanFlow' if improved else 'MeanFlow'}",
    net=dict(
      name="nets.unet.UNet",
      embedding=dict(name="nets.two_times.embedding", scale=10.0),
      width=32 if photos else 24,
      mults=(1, 2),
      blocks=1,
      patch=2 if photos else 1,
      attend=(8,) if photos else (4,),
      head=64 if photos else 24,
      least=4,
      labels=classes and classes + 1,
      learned=bool(improved),
    ),
    draw_t=dict(name="diffusion.times.logit_normal", mean=-0.4, std=1.0),
    instant=0.5 if improved else 0.75,
    power=1.0 if arg in ("digits", "photos", "photos-imf") else 0.5,
    steps=1,
    classes=classes,
    label_drop=0.1,
  )
  if improved:
    c.model.timed = True
  lr = 2e-3 if photos else 3e-3
  c.optim.net = dict(name="optim.adam", lr=lr, b2=0.95, warmup=100, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return c


def points():
  """A grid of 25 Gaussians, and a perceptron."""
  c = _base.base("points:grid25", steps=4000, batch=256)
  c.model = dict(
    name="models.mean_flow.MeanFlow",
    net=dict(name="nets.two_times.Denoiser", width=192, depth=3, scale=10.0),
    draw_t=dict(name="diffusion.times.logit_normal", mean=-0.5, std=3.0),
    instant=0.5,
    power=0.0,
    steps=1,
  )
  c.optim.net = dict(name="optim.adam", lr=3e-3, b2=0.95, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=50_000, ramp=0.1)
  return c
