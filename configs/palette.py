"""Palette: diffusion of images from images (Saharia et al. 2022).

  palette.py:colour        grey -> colour, 256 pixels          62,641,347 parameters
  palette.py:inpaint       a box that is missing -> filled
  palette.py:uncrop        the middle -> what is around it
  palette.py:jpeg          JPEGs of quality 5 to 30 -> as they were
  palette.py:pairs         pairs that the data bring
  palette.py:photos-grey   grey -> colour photographs of 32 pixels that ship
  palette.py:photos-edges  edges -> colour, likewise
  palette.py:photos-hole   inpainting of these
  palette.py:photos-jpeg   JPEGs of quality 5 to 30 of these, restored

Net and numbers are those of Janspiry/Palette-Image-to-Image-Diffusion-Models, as there
is no official code: ADM's blocks, gamma in the embedding, training at levels between
those of 2000 betas of 1e-6 to 1e-2, sampling by 1000 of 1e-4 to 0.09. (The source is
an input of 3 channels there; of grey ones and of edges it has 1 here, so that the
net has 1,152 parameters fewer.) The paper's net is ADM's of 552 M parameters.

Published: the port's FID on CelebA-HQ, inpainting of the middle 5.79, of free forms
5.40. The paper's on ImageNet: colourisation 15.78, uncropping 3.53 (Places2), JPEG of
quality 5 8.3. As there, a quality of 5 to 30 is drawn for each image and step; samples
are of quality 10, unless `jaxgen translate --degrade --quality 5` says another.

  jaxgen train --config configs/palette.py:colour \
    --config.data.source=folder:photos --workdir W
  jaxgen translate --workdir W --data grey --out colour --truth originals
  jaxgen translate --workdir W --data photos --masks masks --out filled
  jaxgen translate --workdir J --data jpegs --out restored
"""

from configs import _adm, _base

TASKS = ("colour", "inpaint", "uncrop", "jpeg", "pairs")
SMALL = ("photos-grey", "photos-edges", "photos-hole", "photos-jpeg")
ARGS = (*TASKS, *SMALL, "debug")


def get_config(arg="colour"):
  """`arg`: as above; `debug`: a few steps of `photos-hole`, of a smaller net."""
  if arg in ("debug", *SMALL):
    return small("photos-hole" if arg == "debug" else arg, arg == "debug")
  source = "pairs:A,B" if arg == "pairs" else "folder:images"
  c = _base.base(source, steps=1_000_000, batch=64, size=256)
  c.data.update(flip=True, channels=3)
  c.model = model(
    dict(width=64, mults=(1, 2, 4, 8), blocks=2, attend=(), head=32, dropout=0.2),
    **task(arg),
    sampling=dict(steps=1000, beta_1=1e-4, beta_T=0.09),
  )
  c.optim.net = dict(name="optim.adam", lr=5e-5)
  c.ema.main = _adm.decay_9999(c.batch)
  c.log.pictures = 10_000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def task(arg):
  """What the source is, and where there is a hole."""
  fn = lambda name, **kw: dict(name=name, **kw)
  whole = fn("models.palette.whole")
  return {
    "colour": dict(cond=dict(source=fn("diffusion.degrade.grey"))),
    "edges": dict(cond=dict(source=fn("diffusion.degrade.edges", gain=3.0))),
    "jpeg": dict(
      cond=dict(source=fn("diffusion.degrade.jpeg", quality=10.0)),
      draw_source=fn("diffusion.degrade.jpegs", lo=5.0, hi=30.0),
    ),
    "pairs": dict(cond=dict(source=fn("models.translation.from_data"))),
    "inpaint": dict(
      cond=dict(source=whole, keep=fn("models.palette.centre_kept")),
      hole=fn("diffusion.degrade.boxes", lo=0.25, hi=0.5),
    ),
    "uncrop": dict(
      cond=dict(source=whole, keep=fn("models.palette.border_kept")),
      hole=fn("models.palette.borders", lo=0.4, hi=0.6),
    ),
  }[arg]


def model(net, sampling, cond, **more):
  """A diffusion model at Palette's levels; `sampling`: of the chain."""
  return dict(
    name="models.palette.Palette",
    net=dict(name="nets.source_unet.SourceUNet", updown=True, remat=(), **net),
    process=dict(name="diffusion.noise_ratio.Ratio"),
    precond=dict(name="diffusion.noise_ratio.level"),
    draw_t=dict(name="diffusion.noise_ratio.between", steps=2000, beta_1=1e-6, beta_T=1e-2),
    objective=dict(name="diffusion.objective.simple"),
    path=dict(name="diffusion.noise_ratio.chain", **sampling),
    sampler=dict(name="diffusion.samplers.ancestral"),
    steps=sampling["steps"],
    bound=1.0,
    cond=cond,
    **more,
  )


def small(arg, debug):
  """Minutes on a core. The same game at EDM's noise levels, which learns in fewer steps.

  Where the source is the grey image, the net has to say its colours alone, and of a
  JPEG what that lost. (The chain above, trained as long, leaves noise in its images.)
  """
  c = _base.base("photos", steps=900, batch=16, size=32)
  c.data.flip = True
  name = {
    "photos-grey": "colour",
    "photos-edges": "edges",
    "photos-hole": "inpaint",
    "photos-jpeg": "jpeg",
  }[arg]
  near = name in ("colour", "jpeg")  # the source is x, but for some of it
  c.model = dict(
    name="models.palette.Palette",
    net=dict(
      name="nets.source_unet.SourceUNet",
      width=24,
      mults=(1, 2),
      blocks=1,
      attend=(),
      head=24,
      least=4,
      updown=True,
    ),
    **_base.edm(0.15 if near else 0.5, -2.0 if near else -1.2, 1.2, hi=20.0 if near else 80.0),
    sampler=dict(name="diffusion.samplers.dpmpp_2m"),
    steps=20,
    bound=1.0,
    **task(name),
  )
  if near:
    c.model.around = dict(name="models.palette.source_as_mean")
  c.optim.net = dict(name="optim.adam", lr=2e-3, warmup=50, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=5_000, ramp=0.1)
  c.log.pictures = 900
  if debug:
    c.model.net.update(width=8, mults=(1,), head=8)
    return _base.debug(c)
  return c
