"""Latent diffusion on real 8x8 digits (Rombach et al. 2022, Sec. 3.2).

The codec is trained first, and its averaged weights stay as they are:

  jaxgen train --config configs/ldm_kl.py:digits --workdir K
  jaxgen train --config configs/digits_latent.py --workdir W --config.model.codec_workdir=K

1000 steps are 1.2e12 operations, and 8e11 the codec's before: Fréchet of 500
samples 2.1 by `jaxgen evaluate`, real digits 1.64, `digits_diffusion` 2.5 after
2.9e12.

`vae`: over the 16 numbers of `configs/digits_vae.py`, by an MLP. `debug` wants
the codec of `configs/ldm_kl.py:debug`.
"""

from configs import _autoencoder, _base

ARGS = ("vae", "debug")
# What is for encoding and decoding, as it was trained.
VAE = dict(
  name="models.vae.VAE",
  net=dict(name="nets.convs.Codec", size=8, channels=1, z_dim=16, width=32, classes=10),
  classes=10,
)


def get_config(arg=None):
  """`vae`: see above; `debug`: a few steps of a smaller net."""
  c = _base.base("digits", steps=1000, batch=64, classes=10)
  if arg == "vae":
    codec = VAE
    net = dict(name="nets.mlp.Denoiser", width=256, depth=4, classes=10)
  else:
    codec = _autoencoder.small_kl(arg or "digits").model.to_dict()
    codec = {k: codec[k] for k in ("name", "net", "latents")}
    net = dict(
      name="nets.unet.UNet", width=32, mults=(1, 2), blocks=1, attend=(4,), head=32, labels=11
    )
  c.model = dict(
    name="models.latent.Latent",
    codec=codec,
    codec_workdir="",
    model=dict(
      name="models.diffusion.Diffusion",
      net=net,
      # Of latents that are scaled to a variance of 1.
      **_base.edm(1.0, -0.4, 1.2, lo=0.01, hi=30.0, rho=7.0),
      sampler=dict(name="diffusion.samplers.heun"),
      steps=8,
      classes=10,
      label_drop=0.1,
    ),
  )
  c.optim.net = dict(name="optim.adam", lr=3e-3, warmup=100, clip=1.0, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  if arg == "debug":
    c.model.model.net.width = 16
    c.model.model.net.head = 16
    return _base.debug(c)
  return c
