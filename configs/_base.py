"""What every config begins with.

A config file says in ARGS which arguments its `get_config` takes after a colon,
as in "configs/x.py:debug": strings, or a range of whole numbers. Where they are
many, FORM says how they are put together.
"""

from ml_collections import ConfigDict


def base(source: str, *, steps: int, batch: int, size: int = 0, classes: int = 0) -> ConfigDict:
  """A config without a model: `steps` updates of `batch` examples."""
  c = ConfigDict()
  c.seed = 0
  c.steps = steps
  c.batch = batch
  c.accumulate = 1  # equal parts in which a batch is differentiated
  c.patience = 20  # skipped (non-finite) updates in a row, then we stop
  # Devices: those along data hold the same state, those along fsdp a part of
  # it each; batches are cut over all. 0: what is left.
  c.mesh = dict(data=0, fsdp=1)
  # size: images are cropped and resized to it; 0: as they are stored.
  # rate: samples a second of sound, of which `size` are a clip; 0: of images.
  # channels: 1 grey, 3 RGB, 0 as they are stored.
  # classes: labels that the model is given; 0: none.
  # holdout: share of images without a test split that is held out as one.
  # fraction: of the examples that is trained on, drawn by chance once and for all.
  # crop: 0.8 takes random squares of 0.8 to 1 of an image; 0: the middle one.
  c.data = dict(
    source=source,
    split="train",
    size=size,
    channels=0,
    rate=0,
    classes=classes,
    holdout=0.0,
    fraction=1.0,
    flip=False,
    crop=0.0,
    workers=0,
  )
  c.model = ConfigDict()
  c.optim = ConfigDict()  # an optimiser for every group that a player moves
  c.ema = ConfigDict()  # profiles of averaged weights; "main" is sampled
  # eval: like `jaxgen eval --protocol`, every so many steps; 0: never. features:
  # inception, dinov2 or judge, the built-in one's.
  c.log = dict(
    every=100,
    pictures=1000,
    histograms=False,
    eval=dict(
      every=0,
      num=10_000,
      protocol="adm",
      ref="",
      metrics=(),
      features="inception",
      weights="",
      seed=0,
      batch=256,
    ),
  )
  c.checkpoint = dict(every=1000, keep=3, keep_every=0)
  return c


def cascade(*stages: str) -> ConfigDict:
  """A config of several: models that are trained apart and sampled as one.

  Each is a config, "configs/x.py:arg", or the workdir of a trained model.
  """
  return ConfigDict(
    dict(stages=tuple(dict(config=s) if ".py" in s else dict(workdir=s) for s in stages))
  )


def edm(sigma_data: float, mean: float, std: float, **path) -> dict:
  """Karras et al. 2022: training noise ln sigma ~ N(mean, std^2), and the path."""
  return dict(
    process=dict(name="diffusion.process.EDM"),
    precond=dict(name="diffusion.precond.edm", sigma_data=sigma_data),
    draw_t=dict(name="diffusion.times.lognormal", mean=mean, std=std),
    path=dict(name="diffusion.times.karras", **path),
  )


def debug(c: ConfigDict) -> ConfigDict:
  """The same experiment for a few steps, to see it run."""
  c.steps, c.batch = 20, 16
  c.log.every = 5
  if c.log.pictures:  # none of what makes no samples
    c.log.pictures = 10
  c.checkpoint.every = 10
  return c
