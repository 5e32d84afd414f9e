"""DDPM at 256x256, without labels: Ho et al. 2020, App. B.

Published, in 1000 ancestral steps: FID 7.89 on LSUN church, 6.36 on
bedroom. 113,673,219 parameters. Cost, in updates of 64 images: 0.5 M
(CelebA-HQ), 1.2 M (church), 2.4 M (bedroom).

  jaxgen train --config configs/ddpm_256.py:celeb_a_hq/256 --workdir W
"""

from configs import _adm

ARGS = ("lsun/church_outdoor", "lsun/bedroom", "lsun/cat", "celeb_a_hq/256", "debug")


def get_config(arg=None):
  """`arg`: the dataset, such as lsun/church_outdoor; or `debug`, on digits."""
  c = _adm.diffusion(
    f"tfds:{arg or 'lsun/church_outdoor'}",
    256,
    batch=64,
    steps=1_200_000,
    lr=2e-5,
    warmup=5000,
    clip=1.0,
    process="DDPM",
    net=_adm.ddpm(mults=(1, 1, 2, 2, 4, 4)),
  )
  return _adm.debug(c) if arg == "debug" else c
