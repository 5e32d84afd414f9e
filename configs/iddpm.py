"""Improved DDPM: Nichol & Dhariwal 2021, as openai/improved-diffusion has it.

On ImageNet 64x64 without labels (121,063,942 parameters), published FID 19.2
and 3.53 bits per dimension at most (L_hybrid, 4000 steps); `imagenet64_cond`,
with labels (273,049,350); `cifar10` (52,546,438), FID 2.94 by L_hybrid, and `cifar10_vlb`,
the same by L_vlb with importance-sampled times (Sec. 3.3), 2.94 bits;
`lsun`, 256x256 bedrooms (113,676,678); `upsample`, 64x64 -> 256x256 with
labels (279,792,390). Its checkpoints trained by L_vlb are of the same nets.
Cost: 1,500,000 updates of 128 images on ImageNet, 500,000 on CIFAR-10.

  jaxgen train --config configs/iddpm.py --workdir W
  jaxgen import --source adm --checkpoint cifar10_uncond_50M_500K.pt \
    --config configs/iddpm.py:cifar10 --workdir W
"""

from configs import _adm

SHARED = dict(width=128, attend=(16, 8), blocks=2, heads=4, affine=True, dropout=0.0)
COSINE = dict(blocks=3, process="Cosine", rescaled=True)
MODELS = {
  None: COSINE,
  "imagenet64_cond": dict(
    COSINE, width=192, classes=1000, rescaled=False, batch=2048, lr=3e-4, training=250_000
  ),
  "cifar10": dict(
    COSINE, source="tfds:cifar10", size=32, mults=(1, 2, 2, 2), dropout=0.3, training=500_000
  ),
  "lsun": dict(
    source="tfds:lsun/bedroom",
    size=256,
    mults=(1, 1, 2, 2, 4, 4),
    attend=(16,),
    heads=1,
    affine=False,
    steps=1000,
    training=1_200_000,
  ),
  "upsample": dict(
    size=256,
    mults=(1, 1, 2, 2, 4, 4),
    width=192,
    classes=1000,
    low_res=64,
    batch=256,
    lr=3e-4,
    training=500_000,
  ),
}
# As `cifar10`, trained for the bound itself on times drawn by importance.
MODELS["cifar10_vlb"] = dict(MODELS["cifar10"], vlb=True)
ARGS = (*(k for k in MODELS if k), "debug")


def get_config(arg=None):
  """`arg`: one of MODELS; or `debug`, a few steps of a small net, on digits."""
  return _adm.debug(model()) if arg == "debug" else model(**MODELS[arg])


def model(
  *,
  source=_adm.IMAGENET,
  size=64,
  mults=(1, 2, 3, 4),
  classes=0,
  low_res=0,
  process="Linear",
  steps=4000,
  rescaled=False,
  vlb=False,
  batch=128,
  lr=1e-4,
  training=1_500_000,
  **net,
):
  """One of the models; `rescaled`: times are embedded as if of 1000 steps."""
  net = SHARED | dict(mults=mults, labels=classes, learned=True, dtype="bfloat16") | net
  c = _adm.diffusion(
    source,
    size,
    classes=classes,
    batch=batch,
    steps=training,
    lr=lr,
    process=process,
    low_res=low_res,
    net=net,
  )
  c.model.process.steps = steps
  c.model.precond.update(steps=steps, scale=1000 / steps if rescaled else 1.0)
  c.model.draw_t.steps = steps
  if vlb:
    c.model.objective = dict(name="diffusion.objective.bound", weight=float(steps))
    c.model.draw_t = dict(name="diffusion.importance.SecondMoment", steps=steps)
  return c
