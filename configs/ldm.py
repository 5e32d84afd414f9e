"""Latent diffusion on 256x256 images: Rombach et al. 2022, arXiv 2112.10752.

As CompVis/latent-diffusion has it: a U-Net over the latents of a codec that was
trained before, which learns eps; classes are tokens that it attends to.

| arg | U-Net | latents, codec | FID | points, eta |
| --- | --- | --- | --- | --- |
| cin256-v2 | 400,920,579 | 64 x 64 x 3, ldm_vq:f4 | 3.60 | 250, 1 |
| cin256 | 394,984,196 | 32 x 32 x 4, ldm_vq:f8 | 15.82 | 200, 1 |
| celebahq | 274,056,163 | 64 x 64 x 3, ldm_vq:f4 | 5.11 | 200, 0 |
| ffhq | 274,056,163 | 64 x 64 x 3, ldm_vq:f4 | 4.98 | 200, 1 |
| bedrooms | 274,056,163 | 64 x 64 x 3, ldm_vq:f4 | 2.95 | 200, 1 |
| churches | 294,966,916 | 32 x 32 x 4, ldm_kl:f8 | 4.02 | 400, 0 |

Beside these parameters there is a token of 512 for each label: 1000, and of
`cin256-v2` one more for "none", which makes guidance possible; its number is
with guidance 1.5. Which share of labels was dropped for it is not published;
here it is a tenth. Nor do the published configs say how many updates there were:
those here are a guess.

`churches` divides latents by their standard deviation and learns from
|eps - eps'|; of the others the scale is 1. Sampling is the published code's
DDIM, which begins at index 1 and whose last step leaves the noise of index 0.
It takes more points than it is asked for where 1000 is no multiple: of 400, 500.

  jaxgen train --config configs/ldm_vq.py:f4 --workdir K \
    --config.data.source=folder:/openimages
  jaxgen train --config configs/ldm.py:cin256-v2 --workdir W \
    --config.model.codec_workdir=K
  jaxgen import --source ldm --checkpoint model.ckpt \
    --config configs/ldm.py:cin256-v2 --workdir W
  jaxgen sample --workdir W --steps 250 --eta 1 --guidance 1.5 --out samples.npz
  jaxgen plan --config configs/ldm.py:cin256-v2 --topology v5e:4x4

`photos` (32 x 32) is for two CPU cores, over the codec of the same name; of
digits there is `digits_latent`:

  jaxgen train --config configs/ldm_kl.py:photos --workdir K
  jaxgen train --config configs/ldm.py:photos --workdir W --config.model.codec_workdir=K
"""

from configs import _adm, _autoencoder, _base

FACES = dict(width=224, mults=(1, 2, 3, 4), attend=(32, 16, 8), head=32)
CROSS = dict(transformer=dict(name="nets.spatial_transformer.transformer", depth=1), token=512)
FOLDER = "folder:images"
# Codecs' nets, as `ldm_vq` and `ldm_kl` have them.
F4, F8 = (_autoencoder.vq_net(size) for size in ("f4", "f8"))
KL8 = _autoencoder.kl_net("f8")
# Data, codec, U-Net; updates, images, rate; points and eta.
MODELS = {
  "cin256-v2": (
    _adm.IMAGENET,
    F4,
    dict(width=192, mults=(1, 2, 3, 5), attend=(32, 16, 8), heads=1, labels=1001, **CROSS),
    (178_000, 1200, 1e-4),
    (250, 1.0),
  ),
  "cin256": (
    _adm.IMAGENET,
    F8,
    dict(width=256, mults=(1, 2, 4), attend=(32, 16, 8), head=32, labels=1000, **CROSS),
    (2_000_000, 64, 6.4e-5),
    (200, 1.0),
  ),
  "celebahq": (FOLDER, F4, FACES, (410_000, 48, 9.6e-5), (200, 0.0)),
  "ffhq": (FOLDER, F4, FACES, (635_000, 42, 8.4e-5), (200, 1.0)),
  "bedrooms": ("tfds:lsun/bedroom", F4, FACES, (1_900_000, 48, 9.6e-5), (200, 1.0)),
  "churches": (
    "tfds:lsun/church_outdoor",
    KL8,
    dict(
      width=192, mults=(1, 2, 2, 4, 4), attend=(32, 16, 8, 4), heads=8, affine=True, updown=True
    ),
    (500_000, 96, 5e-5),
    (500, 0.0),
  ),
}
ARGS = (*MODELS, "photos", "debug")


def get_config(arg="cin256-v2"):
  """`arg`: see above; or `debug`, a few steps, over `configs/ldm_kl.py:debug`."""
  return published(arg, *MODELS[arg]) if arg in MODELS else small(arg)


def published(arg, source, codec, net, recipe, sampling):
  """One of MODELS."""
  (steps, batch, lr), (points, eta) = recipe, sampling
  classes = 1000 if "labels" in net else 0
  c = _base.base(source, steps=steps, batch=batch, size=256, classes=classes)
  c.data.update(flip=True, channels=3)
  net = dict(blocks=2, affine=False, remat=(), dtype="bfloat16") | net
  # The published latents of codes are not scaled.
  kind, scale = ("KL", None) if codec is KL8 else ("VQ", 1.0)
  c.model = model(codec, kind, scale, net, classes, points, eta)
  c.model.model.label_drop = 0.1 if arg == "cin256-v2" else 0.0
  warmup = 0
  if arg == "churches":
    c.model.model.error = dict(name="diffusion.objective.absolute")
    c.model.model.process.beta_T = 0.0155
    warmup = 10_000
  c.optim.net = dict(name="optim.adam", lr=lr, weight_decay=0.01, warmup=warmup)
  # Their decay of 0.9999 grows as (1 + n) / (10 + n).
  c.ema.main = _adm.decay_9999(batch) | dict(ramp=0.077)
  c.log.pictures = 10_000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def small(arg):
  """A net that two cores train, with a transformer where there are classes."""
  photos = arg == "photos"
  if photos:
    c = _base.base("photos", steps=2000, batch=32, size=32)
    net = dict(width=64, mults=(1, 2), attend=(4,), head=32)
  else:
    c = _base.base("digits", steps=1500, batch=64, classes=10)
    net = dict(width=32, mults=(1, 2), attend=(4,), head=16, labels=11, **CROSS) | dict(token=32)
  c.data.flip = photos
  codec = _autoencoder.small_kl(arg)
  net = dict(blocks=1, affine=False) | net
  c.model = model(codec.model.net, "KL", None, net, c.data.classes, 50, 0.0)
  c.optim.net = dict(name="optim.adam", lr=1e-3, warmup=100, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=20_000, ramp=0.1)
  if arg == "debug":
    c.model.model.net.update(width=16, mults=(1,), attend=(), token=8)
    return _base.debug(c)
  return c


def model(codec, kind, scale, net, classes, points, eta):
  """Of a codec what encodes and decodes, and diffusion of its latents."""
  return dict(
    name="models.latent.Latent",
    codec=dict(
      name="models.codec.Autoencoder", net=codec, latents=dict(name=f"models.codec.{kind}")
    ),
    codec_workdir="",
    scale=scale,
    model=dict(
      name="models.diffusion.Diffusion",
      net=dict(name="nets.unet.UNet", **net),
      process=dict(name="diffusion.process.LDM"),
      precond=dict(name="diffusion.precond.eps", steps=1000),
      draw_t=dict(name="diffusion.times.grid", steps=1000),
      error=dict(name="diffusion.objective.squared"),
      path=dict(name="diffusion.times.ldm"),
      sampler=dict(name="diffusion.samplers.ancestral_ldm", eta=eta),
      steps=points,
      classes=classes,
      label_drop=0.1,
    ),
  )
