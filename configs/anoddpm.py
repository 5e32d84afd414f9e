"""AnoDDPM: diffusion with simplex noise, to find anomalies (Wyatt et al. 2022).

  jaxgen train --config configs/anoddpm.py:photos --workdir W
  jaxgen anomaly --workdir W --data folder:/parts --fraction 0.25 --out scores.csv

Partial diffusion hides what is strange under noise and draws it anew as it ought
to be. Gaussian noise hides what is small, simplex noise (see diffusion/simplex.py)
what is large, too.

`256`: the authors' chain of 1000 linear steps on 256x256 grey images, without
labels; the net is DDPM's (their own differs in its attention). `photos` (32x32)
and `digits` (8x8): EDM's noise levels and small nets, minutes on a laptop.
`-gauss`: the same with Gaussian noise.
"""

from configs import _adm, _base

ARGS = (
  *(f"{size}{noise}" for size in ("256", "photos", "digits") for noise in ("", "-gauss")),
  "debug",
)
# On 8x8 pixels a quarter of the side is nothing but white noise.
FREQUENCY = {"256": 0.25, "photos": 0.5, "digits": 1.0, "debug": 1.0}


def get_config(arg="digits"):
  """`arg`: 256, photos or digits, maybe with -gauss; `debug`: a few steps."""
  kind, _, gauss = arg.partition("-")
  c = published() if kind == "256" else small(kind)
  if not gauss:
    c.model.noise = dict(name="diffusion.simplex.simplex", frequency=FREQUENCY[kind])
  return _base.debug(c) if arg == "debug" else c


def published():
  """The authors' chain and batch, and DDPM's net."""
  c = _adm.diffusion(
    "folder:images", 256, batch=1, steps=900_000, net=_adm.ddpm(mults=(1, 1, 2, 2, 4, 4))
  )
  c.data.update(flip=False, channels=1)
  return c


def small(kind):
  """A small UNet at EDM's noise levels."""
  photos = kind == "photos"
  c = _base.base(
    kind if photos else "digits",
    steps=1500 if photos else 1000,
    batch=32 if photos else 64,
    size=32 if photos else 0,
  )
  net = dict(
    width=16 if kind == "debug" else 24,
    mults=(1, 2, 2) if photos else (1, 2),
    blocks=1,
    head=24 if kind != "debug" else 16,
    least=4,
  )
  levels = (
    _base.edm(0.5, -0.9, 1.2, lo=0.01, hi=40.0)
    if photos
    else _base.edm(0.75, -0.6, 1.0, lo=0.01, hi=20.0)
  )
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=dict(name="nets.unet.UNet", attend=() if photos else (4,), **net),
    **levels,
    sampler=dict(name="diffusion.samplers.ancestral", eta=1.0),
    steps=25,
    bound=1.0,
  )
  c.optim.net = dict(name="optim.adam", lr=3e-3, warmup=100, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return c
