"""DiT: Peebles & Xie 2023, arXiv 2212.09748, as facebookresearch/DiT has it.

On ImageNet 256x256, whose latents are 32x32 of four channels (KL-f8 of latent
diffusion, times 0.18215): published FID of `XL-2` 2.27, Inception Score 278.24
(guidance 1.5, 250 steps, 7,000,000 updates of 256 images), 9.62 without
guidance; at 512x512, `XL-2-512`, 3.04 (3,000,000 updates). After 400,000 updates and
without guidance: XL-2 19.5, B-4 68.4, S-2 68.4, S-8 153.6. Guidance is that of
the code, of three of the four channels: `--knobs channels=4` guides all.

  jaxgen import --source diffusers --checkpoint vae.safetensors \
    --config configs/ldm_kl.py:f8-pixels --workdir K
  jaxgen import --source dit --checkpoint DiT-XL-2-256x256.pt \
    --config configs/dit.py:XL-2 --config.model.codec_workdir=K --workdir W
  jaxgen sample --workdir W --guidance 1.5 --out grid.png

or trained, on latents that are written once, of images and their mirror images:

  jaxgen encode --workdir K --data tfds:imagenet2012 --flip --out imagenet
  jaxgen plan --config configs/dit.py:XL-2 --topology v5e:16x16
  jaxgen train --config configs/dit.py:XL-2 --config.model.codec_workdir=K \
    --config.data.source=latents:imagenet --workdir W

An import without a codec_workdir samples latents, float32 and scaled.

| arg | parameters | with theirs of fixed places |
| --- | --- | --- |
| S-2 | 32,865,056 | 32,963,360 |
| S-4 | 32,920,448 | 32,945,024 |
| S-8 | 33,142,016 | 33,148,160 |
| B-2 | 130,315,808 | 130,512,416 |
| B-4 | 130,426,496 | 130,475,648 |
| B-8 | 130,869,248 | 130,881,536 |
| L-2 | 457,840,672 | 458,102,816 |
| L-4 | 457,988,224 | 458,053,760 |
| L-8 | 458,578,432 | 458,594,816 |
| XL-2 | 674,834,720 | 675,129,632 |
| XL-4 | 675,000,704 | 675,074,432 |
| XL-8 | 675,664,640 | 675,683,072 |
| XL-2-512 | 674,834,720 | 676,014,368 |

On pixels and two cores: `digits` (723,844 parameters), real 8x8 digits,
and `photos` (1,282,224), patches of photographs at 32x32; with today's trunk,
`nets.dit_modern.ModernDiT`, `digits-modern` (725,412) and
`photos-modern` (1,350,192). The net is DiT's, its noise that of the U-Nets of
the same pixels (EDM), for what is published wants longer trainings: Fréchet of
500 samples, by `jaxgen evaluate` (real digits 1.64, the U-Net of
`digits_diffusion` 2.5 after 2.9e12 operations):

| digits | steps x batch, rate | operations | Fréchet |
| --- | --- | --- | --- |
| as published, 50 steps | 1500 x 64, 2e-3 | 4.5e12 | 34.7 |
| EDM | 1000 x 64, 1e-3 | 3.0e12 | 14.1 |
| EDM, `digits` | 2000 x 32, 4e-3 | 3.0e12 | 3.2 |

  jaxgen train --config configs/dit.py:digits --workdir D
  jaxgen sample --workdir D --guidance 2 --out grid.png
"""

from configs import _base, _dit

ARGS = (*_dit.LATENTS, *_dit.SMALL, "debug")
PUBLISHED = dict(
  process=dict(name="diffusion.process.Linear"),
  precond=dict(name="diffusion.precond.eps", steps=1000),
  draw_t=dict(name="diffusion.times.grid", steps=1000),
  objective=dict(name="diffusion.objective.hybrid", weight=1.0),
  path=dict(name="diffusion.times.spaced"),
  sampler=dict(name="diffusion.samplers.ancestral"),
  learned=True,
)
# As the U-Nets of the same pixels are trained and sampled.
EDM = {
  "digits": dict(
    _base.edm(0.75, -0.6, 1.0, lo=0.01, hi=20.0, rho=7.0),
    sampler=dict(name="diffusion.samplers.ancestral", eta=0.0),
    steps=25,
    learned=False,
  ),
  "photos": dict(
    _base.edm(0.5, -1.2, 1.2, lo=0.002, hi=80.0, rho=7.0),
    sampler=dict(name="diffusion.samplers.dpmpp_2m"),
    steps=18,
    learned=False,
  ),
}


def get_config(arg="XL-2"):
  """`arg`: size and patch, or one of SMALL; `debug`: a few steps of a small net."""
  if arg in _dit.LATENTS:
    return _dit.latents(arg, "dit.DiT", **PUBLISHED)
  if arg == "debug":  # what is published, and not what `digits` has
    return _dit.debug(_dit.small("digits", "dit.DiT", "", **PUBLISHED))
  parts = EDM[arg.partition("-")[0]]
  return _dit.small(arg, "dit.DiT", "dit_modern.ModernDiT", **parts)
