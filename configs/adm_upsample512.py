"""ADM-U, ImageNet 128x128 -> 512x512: Dhariwal & Nichol 2021, Table 8.

Published: FID 3.85 on samples of a guided 128-pixel model, in 250 steps.
308,835,270 parameters. Cost: 1,050,000 updates of 256 images.

  jaxgen train --config configs/adm_upsample512.py --workdir W
  jaxgen sample --workdir W --low_res small.npz --out large.npz
"""

from configs import _adm

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a small net, on digits."""
  c = _adm.diffusion(
    _adm.IMAGENET,
    512,
    classes=1000,
    steps=1_050_000,
    low_res=128,
    net=_adm.adm(width=192, mults=(1, 1, 2, 2, 4, 4), attend=(32, 16)),
  )
  return _adm.debug(c) if arg == "debug" else c
