"""DDPM on CIFAR-10, without labels: Ho et al. 2020, Table 1.

Published: FID 3.17, IS 9.46 (1000 ancestral steps, 50,000 samples).
35,746,307 parameters. Cost: 800,000 updates of 128 images.

  jaxgen train --config configs/ddpm_cifar10.py --workdir W
"""

from configs import _adm

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a small net, on digits."""
  c = _adm.diffusion(
    "tfds:cifar10",
    0,
    batch=128,
    steps=800_000,
    lr=2e-4,
    warmup=5000,
    clip=1.0,
    process="DDPM",
    net=_adm.ddpm(mults=(1, 2, 2, 2), dropout=0.1),
  )
  return _adm.debug(c) if arg == "debug" else c
