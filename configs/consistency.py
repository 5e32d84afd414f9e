"""Consistency models: from noise to x_0 in one to eight evaluations.

| arg | parameters | after | published FID of 1, 2 evaluations |
| --- | --- | --- | --- |
| cd_imagenet64 | 295,899,267 | Song et al. 2023, Alg. 2, distillation | 6.20 of 1 |
| ct_imagenet64 | 295,899,267 | Alg. 3, training without a teacher | |
| edm_imagenet64 | 295,899,267 | the teacher of the first | |
| cd_bedroom, ct_bedroom, edm_bedroom | 526,304,771 | the same, LSUN at 256 | |
| ict_cifar | 57,117,955 | Song & Dhariwal 2024, improved training | 2.83 of 1 |
| ect_cifar | 57,117,955 | Geng et al. 2024, tuning of a teacher | 3.86, 2.15 |

What differs: Song et al. compare by LPIPS, which these configs leave for the
mean square (their code's l2), as LPIPS wants weights of others. On CIFAR-10 both
papers have EDM's DDPM++ of 55.7 million; here blocks are ADM's, with ADM's
resampling. A teacher of `ect_cifar` is that net as a diffusion model of
`precond.edm`. Averages: 0.99994 and, of the last two, 0.99993 and 0.9993.

  jaxgen train --config configs/consistency.py:edm_imagenet64 --workdir T
  jaxgen train --config configs/consistency.py:cd_imagenet64 --workdir W \
    --config.model.teacher_workdir=T
  jaxgen import --source consistency --checkpoint cd_imagenet64_l2.pt \
    --config configs/consistency.py:ct_imagenet64 --workdir I
  jaxgen sample --workdir I --respacing 0,22/40 --out x.npz

On two cores; nets are those of `digits_diffusion`, `images_diffusion:32-small`,
`points_diffusion` and `modes:stacked-diffusion`:

| arg | what | begins with |
| --- | --- | --- |
| digits, photos, points, stacked | tuning in stages, of which the first are denoising | noise |
| digits-ect, photos-ect | tuning in stages | a teacher |
| digits-cd, photos-cd | distillation, 18 levels | a teacher |
| digits-pd, photos-pd | progressive distillation (Salimans & Ho 2022), 32 steps to 1 | a teacher |

  jaxgen train --config configs/consistency.py:digits --workdir W
  jaxgen train --config configs/digits_diffusion.py --workdir T
  jaxgen train --config configs/consistency.py:digits-ect --workdir W \
    --config.model.teacher_workdir=T
  jaxgen train --config configs/images_diffusion.py:32-small --workdir P \
    --config.data.source=photos --config.steps=3000
  jaxgen train --config configs/consistency.py:photos-ect --workdir W \
    --config.model.teacher_workdir=P
  jaxgen sample --workdir W --steps 1 --out grid.png

Tried on `points` (2,000 steps, one seed each; share of samples within a mode, of
1, 2 and 4 evaluations): in stages .17, .32, .73, improved training with 10 to 160
levels .08, .22, .67; t drawn about e^-2 in place of e^-1.1 .05, .34, .76. All keep
the 25 modes. Of the former with two evaluations the last at a t of 0.19 or 0.08 in
place of 0.8 made .65, .69: hence `bend`, a knob. Fréchet of 1,000 digits from a
teacher after 400 steps at a rate of 1e-3, of 1, 2 and 4 evaluations: 3.3, 3.0, 3.2;
of 500, after 389 at the 3e-3 that it has now, mean of two seeds: 4.5, 3.7, 4.0.
Photos, `-cd` and `-pd` were not tuned.

`--respacing 0,22/40` takes two of Karras' 40 points, and `jumps` any number.
Schedules are shares of config.steps, so that any number of steps is a training.
"""

from configs import _adm, _base

FULL = ("cd_imagenet64", "ct_imagenet64", "edm_imagenet64", "cd_bedroom", "ct_bedroom")
SMALL = ("digits", "photos", "points", "stacked")
TAUGHT = ("ect", "cd", "pd")
ARGS = (
  *FULL,
  *("edm_bedroom", "ict_cifar", "ect_cifar"),
  *SMALL,
  *(f"{data}-{rule}" for data in SMALL[:2] for rule in TAUGHT),
  "debug",
)
BEDROOM = "tfds:lsun/bedroom"


def get_config(arg="digits"):
  """`arg`: see above; `debug`: a few steps of a small net, with a target net."""
  if arg.partition("_")[0] in ("cd", "ct", "edm"):
    return published(*arg.split("_"))
  if arg.endswith("_cifar"):
    return cifar(arg.removesuffix("_cifar"))
  data, _, rule = arg.partition("-")
  c = small("digits" if arg == "debug" else data, rule or "ecm")
  if data == "points":  # its modes are narrow: of two evaluations the last is at 0.1
    c.model.path.bend = 2.0
  if arg == "debug":
    c.model.net.update(width=16, split_first=True)
    c.model.decay = dict(name="diffusion.time_pairs.constant", mu=0.9)
    return _base.debug(c)
  return c


def small(data, rule):
  """What `digits_diffusion`, `images_diffusion:32-small` and others are, in few steps."""
  net, ends, sigma_data = NETS[data]
  if data == "photos":
    c = _base.base("photos", steps=1000, batch=32, size=32)
    c.data.flip = True
  elif data == "points":
    c = _base.base("points:grid25", steps=4000, batch=256)
  else:
    digits = data == "digits"
    source = "digits" if digits else "stacked_digits"
    c = _base.base(source, steps=1000 if digits else 3000, batch=64, classes=10 * digits)
  c.model = model(c, net, RULES[rule](c, sigma_data, ends), bound=None if data == "points" else 1.0)
  c.optim.net = dict(name="optim.adam", lr=LR[data], warmup=50, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return c


def model(c, net, rule, **fields):
  """A consistency model by one of RULES."""
  return dict(
    name="models.consistency.Consistency",
    net=net,
    process=dict(name="diffusion.process.EDM"),
    classes=c.data.classes,
    steps=2,
    **({"label_drop": 0.1} | fields),
    **rule,
  )


def published(kind, data):
  """Of Song et al. 2023: `edm` is the teacher of `cd`."""
  small = data == "imagenet64"
  net = dict(width=192, mults=(1, 2, 3, 4), blocks=3)
  if not small:
    net = dict(width=256, mults=(1, 1, 2, 2, 4, 4), affine=False, classes=0)
  steps, batch = (800_000, 2048) if small else (1_000_000, 256)
  if small and kind == "cd":
    steps = 600_000
  c = _base.base(
    _adm.IMAGENET if small else BEDROOM,
    steps=steps,
    batch=batch,
    size=64 if small else 256,
    classes=1000 if small else 0,
  )
  c.data.flip = small
  net = dict(name="nets.unet.UNet", remat=(), **_adm.adm(split_first=True, learned=False, **net))
  ends, scale = dict(lo=0.002, hi=80.0), 250.0
  if kind == "edm":
    c.model = dict(
      name="models.diffusion.Diffusion",
      net=net,
      **_base.edm(0.5, -1.2, 1.2, rho=7.0, **ends),
      sampler=dict(name="diffusion.samplers.heun"),
      steps=40,
      classes=c.data.classes,
      label_drop=0.0,
      bound=1.0,
    )
    c.model.precond.scale = scale
  else:
    rule = cd(c, 0.5, ends, n=40, scale=scale)
    if kind == "ct":
      rule = ct(c, 0.5, ends, n_1=200 if small else 150, scale=scale)
    ts, of = ((0, 22), 40) if small else ((0, 17), 40)
    if kind == "ct":
      ts, of = ((0, 106), 201) if small else ((0, 67), 151)
    rule["path"] = dict(name="diffusion.times.chosen", ts=ts, of=of, rho=7.0, **ends)
    c.model = model(c, net, rule, bound=1.0, label_drop=0.0)
  rates = {"cd": (8e-6, 1e-5), "ct": (1e-4, 5e-5), "edm": (1e-4, 1e-4)}
  c.optim.net = dict(name="optim.radam", lr=rates[kind][not small])
  c.ema.main = dict(name="ema.half_life", images=round(11_552.1 * batch), ramp=None)
  c.log.pictures = 10_000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def cifar(kind):
  """Unconditional CIFAR-10."""
  batch, steps, dropout = (1024, 400_000, 0.3) if kind == "ict" else (128, 200_000, 0.2)
  c = _base.base("tfds:cifar10", steps=steps, batch=batch)
  c.data.flip = True
  net = dict(
    name="nets.unet.UNet",
    width=128,
    mults=(2, 2, 2),
    blocks=4,
    attend=(16,),
    heads=1,
    affine=False,
    updown=True,
    eps=1e-6,
    dropout=dropout,
    remat=(),
    dtype="bfloat16",
  )
  ends = dict(lo=0.002, hi=80.0)
  if kind == "ict":
    rule = ict(c, 0.5, ends)
  else:
    rule = ect(c, 0.5, ends, q=256.0, stages=1)
  c.model = model(c, net, rule, bound=1.0)
  c.optim.net = dict(name="optim.radam", lr=1e-4)
  decay = 0.99993 if kind == "ict" else 0.9993
  c.ema.main = dict(name="ema.half_life", images=HALF[decay] * batch, ramp=None)
  c.log.pictures = 10_000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def jumping(ends):
  """The few points to sample at, and how."""
  return dict(
    path=dict(name="diffusion.times.jumps", **ends, rho=7.0),
    sampler=dict(name="diffusion.samplers.consistency", lo=ends["lo"]),
  )


def boundary(sigma_data, ends, scale):
  """x_0 = x_t at the least level."""
  return dict(name="diffusion.precond.boundary", sigma_data=sigma_data, lo=ends["lo"], scale=scale)


def ct(c, sigma_data, ends, n_1=150, scale=0.25):
  """Consistency training, as it was first."""
  levels = dict(name="diffusion.time_pairs.progressive", steps=c.get_ref("steps"), n_0=2, n_1=n_1)
  return dict(
    jumping(ends),
    precond=boundary(sigma_data, ends, scale),
    draw_t=dict(name="diffusion.time_pairs.neighbours", levels=levels, **ends),
    decay=dict(name="diffusion.time_pairs.adaptive", levels=levels, mu=0.95, n_0=2),
  )


def ict(c, sigma_data, ends, n_1=1280):
  """Improved consistency training."""
  levels = dict(name="diffusion.time_pairs.doubled", steps=c.get_ref("steps"), n_0=10, n_1=n_1)
  return dict(
    jumping(ends),
    precond=boundary(sigma_data, ends, 0.25),
    draw_t=dict(name="diffusion.time_pairs.neighbours", levels=levels, mean=-1.1, std=2.0, **ends),
    weighting=dict(name="diffusion.time_pairs.inverse_gap"),
    distance=dict(name="diffusion.time_pairs.pseudo_huber", c=0.00054),
  )


def ect(c, sigma_data, ends, teacher=True, **draw):
  """Easy consistency tuning; without a teacher it begins as denoising."""
  precond = dict(name="diffusion.precond.edm", sigma_data=sigma_data)
  draw = dict(stages=8, mean=-1.1, std=2.0, hi=ends["hi"]) | draw
  return dict(
    jumping(ends),
    precond=precond,
    draw_t=dict(name="diffusion.time_pairs.shrinking", steps=c.get_ref("steps"), **draw),
    weighting=dict(name="diffusion.time_pairs.inverse_gap"),
    distance=dict(name="diffusion.time_pairs.pseudo_huber", c=0.0),
    **(taught(precond) if teacher else {}),
  )


def cd(c, sigma_data, ends, n=18, scale=0.25):
  """Consistency distillation."""
  del c
  levels = dict(name="diffusion.time_pairs.fixed", n=n)
  return dict(
    jumping(ends),
    precond=boundary(sigma_data, ends, scale),
    draw_t=dict(name="diffusion.time_pairs.neighbours", levels=levels, **ends),
    target=dict(name="diffusion.time_pairs.distillation"),
    decay=dict(name="diffusion.time_pairs.constant", mu=0.95),
    **taught(dict(name="diffusion.precond.edm", sigma_data=sigma_data, scale=scale)),
  )


def pd(c, sigma_data, ends):
  """Progressive distillation: rounds of 32 steps, 16, 8, 4 and, twice as long, 2 and 1."""
  precond = dict(name="diffusion.precond.edm", sigma_data=sigma_data)
  levels = dict(name="diffusion.time_pairs.halved", every=c.get_ref("steps") // 8, n_0=32)
  return dict(
    path=dict(name="diffusion.times.jumps", **ends, rho=7.0),
    sampler=dict(name="diffusion.samplers.euler"),
    precond=precond,
    draw_t=dict(name="diffusion.time_pairs.strides", levels=levels, **ends),
    target=dict(name="diffusion.time_pairs.two_in_one"),
    decay=dict(name="diffusion.time_pairs.renewed", levels=levels),
    **taught(precond),
  )


def taught(precond):
  """A teacher whose net has this preconditioning."""
  return dict(teacher=precond, teacher_workdir="")


RULES = {"ecm": lambda *of: ect(*of, teacher=False), "ect": ect, "cd": cd, "pd": pd}
HALF = {0.99993: 9902, 0.9993: 990}  # updates in which an average of this decay halves
LR = {"digits": 3e-3, "photos": 2e-3, "points": 2e-3, "stacked": 3e-3}
UNET = dict(name="nets.unet.UNet", mults=(1, 2), blocks=1, least=4)
# Net, ends of the levels, sigma_data: as the teachers have them.
NETS = {
  "digits": (dict(UNET, width=24, attend=(4,), head=24, labels=11), dict(lo=0.01, hi=20.0), 0.75),
  "photos": (
    dict(UNET, width=32, patch=2, attend=(8,), head=64, labels=0, dropout=0.05),
    dict(lo=0.002, hi=80.0),
    0.5,
  ),
  "points": (dict(name="nets.mlp.Denoiser", width=128, depth=3), dict(lo=0.002, hi=20.0), 0.5),
  "stacked": (dict(UNET, width=24, attend=(4,), head=16), dict(lo=0.01, hi=20.0), 0.75),
}
