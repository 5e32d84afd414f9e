"""Autoencoders of latent diffusion with codes (Rombach et al. 2022).

VQGAN (Esser et al. 2021) of fewer, larger maps of latents:

| arg | latents of 256 x 256, codes | parameters | steps | published rFID, PSNR |
| --- | --- | --- | --- | --- |
| f4 | 64 x 64 x 3, 8192 | 55,322,782 | 533,066 | 0.58, 27.43 |
| f4-noattn | the same, no attention | 53,219,486 | 658,131 | 1.06, 25.21 |
| f8 | 32 x 32 x 4, 16384 | 67,717,295 | 971,043 | 1.14, 23.07 |
| f8-n256 | the same, 256 | 67,652,783 | 1,608,649 | 1.49, 22.35 |
| f16 | 16 x 16 x 8, 16384 | 69,593,371 | 1,101,166 | 5.15, 20.83 |

What the numbers are of, the rate and LPIPS: see `ldm_kl`; `f8-pixels` and the
like do without LPIPS. The discriminator has three layers of stride 2 (f8 and
f16: two) and begins at the step that the published runs had, from 0 to 250,001.

  jaxgen train --config configs/ldm_vq.py:f4 --workdir W \
    --config.data.source=folder:/openimages
  jaxgen train --config configs/ldm_vq.py:photos --workdir W

`digits` (8 x 8, 4 x 4 codes of 64) and `photos` (32 x 32, 8 x 8 codes of 256)
are for minutes on two CPU cores, without LPIPS; with `digits-judge` and
`photos-judge` see `ldm_kl`.
"""

from configs import _autoencoder, _base

# Steps; of the discriminator: its start, weight and layers.
RECIPES = {
  "f4": (533_066, 0, 0.75, 3),
  "f4-noattn": (658_131, 11, 0.75, 3),
  "f8": (971_043, 1, 0.6, 2),
  "f8-n256": (1_608_649, 250_001, 0.75, 2),
  "f16": (1_101_166, 250_001, 0.75, 2),
}
SMALL = ("digits", "photos", "digits-judge", "photos-judge", "debug")
ARGS = (*RECIPES, *(f"{size}-pixels" for size in RECIPES), *SMALL)


def get_config(arg="f4"):
  """`arg`: see above; or `debug`, a few steps on digits."""
  latents = dict(name="models.codec.VQ", weight=1.0, beta=0.25)
  if arg in SMALL:
    c = _autoencoder.small(arg, "VQNet", latents, codes=256 if arg[:6] == "photos" else 64)
    return _base.debug(c) if arg == "debug" else c
  size = arg.removesuffix("-pixels")
  net, (steps, start, weight, layers) = _autoencoder.vq_net(size), RECIPES[size]
  return _autoencoder.published(
    net, latents, steps, start=start, disc_weight=weight, layers=layers, perceptual=size == arg
  )
