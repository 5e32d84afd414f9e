"""StyleGAN2 (Karras et al. 2020a), as StyleGAN2-ADA's code trains it (2020b).

| arg | the code's name | data, labels | batch | G, D parameters |
| --- | --- | --- | --- | --- |
| 256 | paper256 | a folder, none | 64 | 24,767,458, 24,001,089 |
| 1024 | stylegan2 ("config F") | a folder, none | 32 | 30,370,060, 29,012,513 |
| cifar | cifar | CIFAR-10, 10 | 64 | 20,215,315, 23,089,664 |

Published: FID 2.84 of FFHQ at 1024 (2020a, Table 1), 2.42 of CIFAR-10 with
labels (2020b). Adaptive augmentation is on for CIFAR-10, where 50,000 images
are few; `256` and `1024` are as for FFHQ, whose 140,000 (with mirror images) do
not need it: --config.model.augment.name=adversarial.ada.ADA for fewer.
`cifar_diffaugment` augments by a fixed strength instead (Zhao et al. 2020). The four
highest resolutions compute in bfloat16 (the source: float16).

  jaxgen train --config configs/stylegan2.py \
    --config.data.source=folder:/ffhq256 --workdir W
  jaxgen train --config configs/stylegan2.py:cifar --workdir W
  jaxgen train --config configs/stylegan2.py:digits --workdir W
  jaxgen sample --workdir W --psi 0.7 --out grid.png
  jaxgen import --source nvlabs --checkpoint ffhq.pkl \
    --config configs/stylegan2.py:1024 --workdir W
"""

from configs import _base, _stylegan2

# Thousand images, batch, group of the minibatch deviation, channels times
# height, learning rate, gamma, half-life of the average and its ramp, layers of
# the mapping network.
SIZES = {
  "256": (25_000, 64, 8, 16384, 0.0025, 1.0, 20e3, None, 8),
  "1024": (25_000, 32, 4, 32768, 0.002, 10.0, 10e3, None, 8),
  "cifar": (100_000, 64, 32, 32768, 0.0025, 0.01, 500e3, 0.05, 2),
}
SIZES["cifar_diffaugment"] = SIZES["cifar"]
AUGMENT = {
  "cifar": "adversarial.ada.ADA",
  "cifar_diffaugment": "adversarial.diffaugment.DiffAugment",
}
ARGS = (*SIZES, "digits", "debug")


def get_config(arg="256"):
  """`arg`: see above; `digits`, minutes on a laptop; `debug`."""
  if arg in ("digits", "debug"):
    return digits(arg == "debug")
  kimg, batch, group, base, lr, gamma, life, ramp, layers = SIZES[arg]
  cifar = arg.startswith("cifar")
  c = _base.base(
    "tfds:cifar10" if cifar else f"folder:ffhq{arg}",
    steps=1000 * kimg // batch,
    batch=batch,
    size=0 if cifar else int(arg),
    classes=10 if cifar else 0,
  )
  c.data.update(flip=not cifar, channels=3)
  _stylegan2.model(
    c,
    size=32 if cifar else int(arg),
    base=base,
    layers=layers,
    group=group,
    gamma=gamma,
    dtype="bfloat16",
    clamp=256.0,
  )
  if cifar:
    c.model.augment = dict(name=AUGMENT[arg])
    c.model.disc.arch = "orig"
  else:
    c.model.path = dict(name="adversarial.path.PathLength")
    c.model.mixing = 0.9
  _stylegan2.optimisers(c, lr)
  c.ema.main = dict(name="ema.half_life", images=life, ramp=ramp)
  c.log.pictures = 5000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def digits(debug):
  """Those of `cifar` on real digits of 8x8, for a short training.

  Weights of equalised layers are of size 1, so that steps of this length are
  to them what 0.0025 is where they have a million batches.
  """
  c = _base.base("digits", steps=3000, batch=64, classes=10)
  wide = 16 if debug else 64
  _stylegan2.model(c, size=8, channels=1, wide=wide, base=4 * wide, layers=2, group=4, gamma=5.0)
  _stylegan2.optimisers(c, 0.01, decay="linear")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return _base.debug(c) if debug else c
