"""Autoencoders of latent diffusion with Gaussian latents (Rombach et al. 2022).

| arg | latents of 256 x 256 | parameters | steps | published rFID, PSNR |
| --- | --- | --- | --- | --- |
| f4 | 64 x 64 x 3 | 55,312,063 | 176,991 | 0.27, 27.53 |
| f8 | 32 x 32 x 4 | 83,653,863 | 246,803 | 0.90, 24.19 |
| f16 | 16 x 16 x 16 | 69,610,963 | 442,998 | 0.87, 24.08 |
| f32 | 8 x 8 x 64 | 103,880,131 | 406,763 | 2.04, 22.27 |

Numbers are of OpenImages, rFID on ImageNet's validation images, from the
README of the published code; the paper's are in its Table 8. Beside these
parameters there are 2,765,633 of the discriminator, which begins at step
50,001, and 14,716,160 of LPIPS (VGG16), which do not move: set
$JAXGEN_LPIPS_NET and $JAXGEN_LPIPS_LIN to your files of them. `f8-pixels` and
the like do without: |x - x'| and the discriminator.

The rate is 4.5e-6 for each image of a batch, as published; how many devices
that was is not said, and 24 images are 12, twice accumulated, on one of them.

  jaxgen train --config configs/ldm_kl.py:f8 --workdir W \
    --config.data.source=folder:/openimages
  jaxgen train --config configs/ldm_kl.py:digits --workdir W
  jaxgen eval --workdir W                    (PSNR, SSIM, rFID: how they come about)

`digits` (8 x 8, latents of 4 x 4 x 4) and `photos` (32 x 32, latents of 8 x 8 x
4) are for minutes on two CPU cores, without LPIPS. Their divergence weighs 0.03,
which holds latents near N(0, 1) place by place. After the 1000 steps of `digits`
reconstructions have a PSNR of 25.7 and a Fréchet distance of 1.70, where real
test digits have 1.64. `digits-judge` and `photos-judge` look through the layers
of a classifier beside pixels, which is trained first, from `configs/judge.py` or
`configs/photos_judge.py:32`:

  jaxgen train --config configs/judge.py --workdir J
  jaxgen train --config configs/ldm_kl.py:digits-judge --workdir W \
    --config.model.judge_workdir=J

The built-in judge of `jaxgen eval` is such a classifier, too: it flatters who
was trained to please its like.
"""

from configs import _autoencoder, _base

STEPS = {"f4": 176_991, "f8": 246_803, "f16": 442_998, "f32": 406_763}
SMALL = ("digits", "photos", "digits-judge", "photos-judge", "debug")
ARGS = (*STEPS, *(f"{size}-pixels" for size in STEPS), *SMALL)


def get_config(arg="f8"):
  """`arg`: see above; or `debug`, a few steps on digits."""
  if arg in SMALL:
    c = _autoencoder.small_kl(arg)
    return _base.debug(c) if arg == "debug" else c
  latents = dict(name="models.codec.KL", weight=1e-6)
  size, _, pixels = arg.partition("-")
  net, steps = _autoencoder.kl_net(size), STEPS[size]
  return _autoencoder.published(
    net, latents, steps, start=50_001, disc_weight=0.5, perceptual=not pixels
  )
