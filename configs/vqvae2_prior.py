"""Priors of VQ-VAE-2's codes: PixelSNAIL, twice (Razavi et al. 2019, Sec. 3.2).

Of 32 x 32 codes with attention, 84,873,280 parameters, and of 64 x 64 below
them without, 89,762,816: nets and recipe of rosinality/vq-vae-2-pytorch, whose
codes have no labels; `imagenet` tells every gated block one of 1000 (93,065,280
and 97,954,816). The paper's own priors are larger: the 3.40 nats (top) and 3.41
(bottom) of its codes are not to be compared, nor its FID of about 31.

The codec is trained first, and both levels then learn from the same batches:

  jaxgen train --config configs/vqvae2.py:ffhq --workdir K \
    --config.data.source=folder:/ffhq
  jaxgen encode --workdir K --data folder:/ffhq --flip --out codes
  jaxgen train --config configs/vqvae2_prior.py:ffhq --workdir W \
    --config.data.source=latents:codes --config.model.codec_workdir=K
  jaxgen sample --workdir W --knobs temperature_bottom=0.9 --out grid.png

`digits` and `photos` are for minutes on two CPU cores, over the codecs of
`configs/vqvae2.py` of the same names. `digits`: 1500 steps are 2.2e12 operations,
Fréchet of 500 samples 7.8 by `jaxgen evaluate`, with `--temperature 0.8` 6.2; of
real digits 1.64.
"""

from configs import _base, _vqvae2

ARGS = ("imagenet", "ffhq", "digits", "photos", "debug")


def get_config(arg="imagenet"):
  """`arg`: see above; or `debug`, a few steps on digits, over `vqvae2:debug`."""
  published = arg in ("imagenet", "ffhq")
  # Epochs of the published recipe: 420 of FFHQ's 70,000 images.
  c = _vqvae2.experiment(arg, steps=918_750 if published else 1500, batch=32)
  c.data.classes = {"imagenet": 1000, "digits": 10, "debug": 10}.get(arg, 0)
  codec = _vqvae2.codec(arg)
  side = (c.data.size or 8) // 2 ** (codec["net"].get("halvings", 2) + 1)
  c.model = dict(
    name="models.latent.Latent",
    codec=codec,
    codec_workdir="",
    model=dict(
      name="models.hierarchy.Hierarchy",
      top=level((side, side), codec["codes"], c.data.classes, published),
      bottom=level((2 * side, 2 * side), codec["codes"], c.data.classes, published, 1),
    ),
  )
  lr = dict(lr=3e-4) if published else dict(lr=1e-3, warmup=50, clip=1.0, decay="cosine")
  c.optim.top, c.optim.bottom = (dict(name="optim.adam", **lr) for _ in range(2))
  if published:
    c.log.pictures = 5000
    c.checkpoint.update(every=5000, keep_every=50_000)
    return c
  c.ema.main = dict(name="ema.half_life", images=5_000, ramp=0.1)
  c.log.update(every=50, pictures=500)
  return _base.debug(c) if arg == "debug" else c


def level(shape, codes, classes, published, below=0):
  """A prior of maps of `shape`; `below` the top it reads that, not attends."""
  small = dict(width=64, side=3, blocks=2, res_blocks=2, hidden=64, cond_width=32)
  return dict(
    name="models.autoregressive.Autoregressive",
    net=dict(
      name="nets.pixelsnail.PixelSNAIL",
      shape=shape,
      codes=codes,
      attention=not below,
      cond_blocks=below and (3 if published else 1),
      labels=classes,
      **({} if published else small),
    ),
    classes=classes,
  )
