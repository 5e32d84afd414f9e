"""ADM on ImageNet 512x512, class-conditional: Dhariwal & Nichol 2021, Table 5.

Published: FID 23.24; 7.72 guided by a classifier at scale 4.0 (250 ancestral
steps). 558,997,638 parameters. Cost: 1,940,000 updates of 256 images. It was
sampled in float32 (`--config.model.net.dtype=float32` on import or training).

  jaxgen train --config configs/adm_imagenet512.py --workdir W
  jaxgen sample --workdir W --classifier C --scale 4.0 --out samples.npz
"""

from configs import _adm

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a small net, on digits."""
  c = _adm.diffusion(
    _adm.IMAGENET,
    512,
    classes=1000,
    steps=1_940_000,
    net=_adm.adm(width=256, mults=(0.5, 1, 1, 2, 2, 4, 4)),
  )
  return _adm.debug(c) if arg == "debug" else c
