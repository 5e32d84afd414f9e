"""ADM on ImageNet 64x64, class-conditional: Dhariwal & Nichol 2021, Table 5.

Published: FID 2.07 (250 ancestral steps, 50,000 samples). 295,904,454
parameters. Cost: 540,000 updates of 2048 images.

  jaxgen train --config configs/adm_imagenet64.py --workdir W
  jaxgen import --source adm --checkpoint 64x64_diffusion.pt \
    --config configs/adm_imagenet64.py --workdir W
"""

from configs import _adm

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a small net, on digits."""
  c = _adm.diffusion(
    _adm.IMAGENET,
    64,
    classes=1000,
    batch=2048,
    steps=540_000,
    lr=3e-4,
    process="Cosine",
    net=_adm.adm(width=192, mults=(1, 2, 3, 4), blocks=3, dropout=0.1, split_first=True),
  )
  return _adm.debug(c) if arg == "debug" else c
