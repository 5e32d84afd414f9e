"""ADM on ImageNet 256x256: Dhariwal & Nichol 2021, Table 5.

Published: FID 10.94; 4.59 guided by a classifier at scale 1.0 (250 ancestral
steps), 5.44 in 25 DDIM steps. 553,838,086 parameters; `uncond`, which knows no
labels and is guided at scale 10: 552,814,086. Cost: 1,980,000 updates of 256
images.

  jaxgen train --config configs/adm_imagenet256.py --workdir W
  jaxgen sample --workdir W --classifier C --scale 1.0 --out samples.npz
"""

from configs import _adm

ARGS = ("uncond", "debug")


def get_config(arg=None):
  """`uncond`: without labels. `debug`: a small net for a few steps, digits."""
  classes = 0 if arg == "uncond" else 1000
  c = _adm.diffusion(
    _adm.IMAGENET,
    256,
    classes=classes,
    steps=1_980_000,
    net=_adm.adm(width=256, mults=(1, 1, 2, 2, 4, 4), classes=classes),
  )
  return _adm.debug(c) if arg == "debug" else c
