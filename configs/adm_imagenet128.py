"""ADM on ImageNet 128x128, class-conditional: Dhariwal & Nichol 2021, Table 5.

Published: FID 5.91; 2.97 guided by a classifier at scale 0.5 (250 ancestral
steps), 5.98 in 25 DDIM steps. 421,529,606 parameters. Cost: 4,360,000 updates
of 256 images.

  jaxgen train --config configs/adm_imagenet128.py --workdir W
  jaxgen sample --workdir W --classifier C --scale 0.5 --out samples.npz
"""

from configs import _adm

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a small net, on digits."""
  c = _adm.diffusion(
    _adm.IMAGENET,
    128,
    classes=1000,
    steps=4_360_000,
    net=_adm.adm(width=256, mults=(1, 1, 2, 3, 4), heads=4),
  )
  return _adm.debug(c) if arg == "debug" else c
