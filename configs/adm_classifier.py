"""The noisy classifiers that guide ADM: Dhariwal & Nichol 2021, Sec. 4, App. I.

One for each resolution of ImageNet: 64 (65,438,568 parameters), 128
(42,568,040), 256 (54,096,360) and 512 (54,448,360). Cost: 300,000 updates of
1024 images of 64x64; of 256 images 300,000 at 128x128, 500,000 above.

  jaxgen train --config configs/adm_classifier.py:64 --workdir C
  jaxgen sample --workdir W --classifier C --scale 1.0 --out samples.npz
"""

from configs import _adm

ARGS = ("64", "128", "256", "512", "debug")


def get_config(arg=None):
  """`arg`: 64, 128 (if not said), 256, 512; or `debug`, on digits."""
  size = int(arg) if arg and arg != "debug" else 128
  mults = {
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
  }[size]
  c = _adm.classifier(
    size,
    mults=mults,
    blocks=4 if size == 64 else 2,
    process="Cosine" if size == 64 else "Linear",
    batch=1024 if size == 64 else 256,
    steps=300_000 if size <= 128 else 500_000,
    lr=6e-4 if size == 64 else 3e-4,
    weight_decay=0.2 if size == 64 else 0.05,
  )
  return _adm.debug(c) if arg == "debug" else c
