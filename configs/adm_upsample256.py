"""ADM-U, ImageNet 64x64 -> 256x256: Dhariwal & Nichol 2021, Table 8.

Published: FID 3.94 on samples of a guided 64-pixel model, in 250 steps.
311,795,910 parameters. Cost: 500,000 updates of 256 images.

  jaxgen train --config configs/adm_upsample256.py --workdir W
  jaxgen sample --workdir W --low_res small.npz --out large.npz
"""

from configs import _adm

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a small net, on digits."""
  c = _adm.diffusion(
    _adm.IMAGENET,
    256,
    classes=1000,
    steps=500_000,
    low_res=64,
    net=_adm.adm(width=192, mults=(1, 1, 2, 2, 4, 4), heads=4),
  )
  return _adm.debug(c) if arg == "debug" else c
