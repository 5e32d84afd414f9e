"""VQ-VAE-2 on images of 256 x 256 (Razavi et al. 2019): two maps of codes.

1,388,867 parameters, and 132,096 numbers of the codebooks' state; 32 x 32 codes
above 64 x 64, of 512 each. Net and recipe are of rosinality/vq-vae-2-pytorch,
whose FFHQ model had 560 epochs: 306,250 steps of 128 images, which are taken
for ImageNet, too. The paper's mean squared errors, of its own, larger nets on
ImageNet, are not to be compared.

  jaxgen train --config configs/vqvae2.py:ffhq --workdir W \
    --config.data.source=folder:/ffhq
  jaxgen train --config configs/vqvae2.py:digits --workdir W

As published, what no latent chose in the first step is lost for good. With
`--config.model.revive=1` codes begin at latents of the first batch, and again at
others once fewer than one in a batch chooses them; `digits` (8 x 8: 2 x 2 codes
above 4 x 4) and `photos` (32 x 32: 4 x 4 above 8 x 8), for minutes on two CPU
cores, do so below one half. 2000 steps of `digits` are 7e11 operations, with
reconstructions of a PSNR of 26.0 and a Fréchet distance of 1.69 (real test
digits: 1.64); one code above 2 x 2, of 64, had 15.6 and 43 after 600 steps.
"""

from configs import _base, _vqvae2

ARGS = ("imagenet", "ffhq", "digits", "photos", "debug")


def get_config(arg="imagenet"):
  """`arg`: see above; or `debug`, a few steps on digits."""
  if arg in _vqvae2.SMALL:
    return small(arg)
  c = _vqvae2.experiment(arg, steps=306_250, batch=128)
  c.model = _vqvae2.codec(arg) | dict(commitment=0.25, decay=0.99, count=0.0, revive=0.0)
  c.optim.net = dict(name="optim.adam", lr=3e-4)
  c.log.pictures = 5000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def small(arg):
  """A smaller net on built-in data."""
  c = _vqvae2.experiment(arg, steps=2000, batch=32)
  c.model = _vqvae2.codec(arg) | dict(count=0.0, revive=0.5)
  c.optim.net = dict(name="optim.adam", lr=1e-3, warmup=50, decay="cosine")
  c.log.update(every=50, pictures=500)
  return _base.debug(c) if arg == "debug" else c
