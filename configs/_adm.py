"""What the configs of ADM and DDPM share (Dhariwal & Nichol 2021, App. I)."""

from configs import _base

IMAGENET = "tfds:imagenet2012"


def diffusion(
  source,
  size,
  *,
  steps,
  net,
  batch=256,
  lr=1e-4,
  process="Linear",
  classes=0,
  low_res=0,
  warmup=0,
  clip=None,
):
  """A model of discrete time that predicts eps; `net`: arguments of the network."""
  c = _base.base(source, steps=steps, batch=batch, size=size, classes=classes)
  c.data.flip = True
  learned = net.get("learned", False)
  objective = dict(name="diffusion.objective.hybrid", weight=1.0)
  if not learned:
    objective = dict(name="diffusion.objective.simple")
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=dict(name="nets.unet.UNet", remat=(), **net),
    process=dict(name=f"diffusion.process.{process}"),
    precond=dict(name="diffusion.precond.eps", steps=1000),
    draw_t=dict(name="diffusion.times.grid", steps=1000),
    objective=objective,
    path=dict(name="diffusion.times.spaced"),
    sampler=dict(name="diffusion.samplers.ancestral", **({} if learned else dict(frac=1.0))),
    steps=250 if learned else 1000,
    classes=classes,
    label_drop=0.0,
    bound=1.0,
  )
  if low_res:
    c.model.cond = dict(low_res=dict(name="diffusion.degrade.area", size=low_res))
  c.optim.net = dict(name="optim.adam", lr=lr, warmup=warmup, clip=clip)
  c.ema.main = decay_9999(batch)
  c.log.pictures = 10_000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def adm(*, width, mults, attend=(32, 16, 8), classes=1000, blocks=2, **net):
  """ADM's network: adaptive norms, residual resampling, learned variance."""
  net = dict(updown=True, learned=True, dtype="bfloat16") | net
  return dict(width=width, mults=mults, blocks=blocks, attend=attend, labels=classes, **net)


def ddpm(*, mults, dropout=0.0):
  """DDPM's network (Ho et al. 2020, App. B)."""
  return dict(
    width=128,
    mults=mults,
    blocks=2,
    attend=(16,),
    heads=1,
    affine=False,
    pad=(0, 1),
    eps=1e-6,
    dropout=dropout,
    dtype="bfloat16",
    embedding=dict(
      name="nets.unet.time_and_label",
      features=dict(name="nets.layers.sinusoids", sine_first=True, ends=True),
    ),
  )


def classifier(size, *, batch, steps, lr, weight_decay, mults, process, blocks=2):
  """The noisy classifier of ImageNet at `size`, with its random crops."""
  c = _base.base(IMAGENET, steps=steps, batch=batch, size=size, classes=1000)
  c.data.update(flip=True, crop=0.8)
  c.model = dict(
    name="models.classifier.Classifier",
    net=dict(
      name="nets.unet.Classifier",
      width=128,
      mults=mults,
      blocks=blocks,
      attend=(32, 16, 8),
      updown=True,
      classes=1000,
      remat=(),
      dtype="bfloat16",
    ),
    process=dict(name=f"diffusion.process.{process}"),
    precond=dict(name="diffusion.precond.eps", steps=1000),
    draw_t=dict(name="diffusion.times.grid", steps=1000),
  )
  c.optim.net = dict(name="optim.adam", lr=lr, weight_decay=weight_decay, decay="linear")
  c.ema.main = decay_9999(batch)
  c.log.pictures = 0
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def decay_9999(batch):
  """An average of decay 0.9999 an update, whose half-life is 6931 updates."""
  return dict(name="ema.half_life", images=6931.1 * batch, ramp=None)


def debug(c):
  """The same on 8x8 digits, with a small net."""
  classes = 10 if c.data.classes else 0
  c.data.update(source="digits", size=0, classes=classes, flip=False)
  c.model.net.update(width=32, mults=(1, 2), blocks=1, attend=(4,), dtype="float32")
  if "heads" not in c.model.net:
    c.model.net.head = 16
  if "objective" not in c.model:  # a classifier
    c.model.net.classes = classes
    return _base.debug(c)
  c.model.net.labels = c.model.classes = classes
  c.model.steps = 25
  if "cond" in c.model:
    c.model.cond.low_res.size = 4
  return _base.debug(c)
