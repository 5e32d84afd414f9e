"""ADM on LSUN 256x256, without labels: Dhariwal & Nichol 2021, Table 5.

Published: FID 1.90 (bedroom), 5.57 (cat), 2.57 (horse), in 1000 ancestral
steps. 552,814,086 parameters. Batches of 256 images.

  jaxgen train --config configs/adm_lsun.py:cat --workdir W
"""

from configs import _adm

ARGS = ("bedroom", "cat", "horse", "debug")


def get_config(arg=None):
  """`arg`: bedroom (if not said), cat, horse; or `debug`, on digits."""
  c = _adm.diffusion(
    f"tfds:lsun/{arg or 'bedroom'}",
    256,
    steps=500_000,
    net=_adm.adm(width=256, mults=(1, 1, 2, 2, 4, 4), classes=0, dropout=0.1),
  )
  c.model.steps = 1000
  return _adm.debug(c) if arg == "debug" else c
