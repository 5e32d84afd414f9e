"""A VAE on a folder of your own images (Kingma & Welling 2014).

  jaxgen train --config configs/images_vae.py:64 --workdir W \
    --config.data.source=folder:/my/images
  jaxgen sample --workdir W --temperature 0.8 --out grid.png

With `--config.data.classes=10` it learns the labels of ten subfolders; grey
images are `--config.data.channels=1`.

| arg | parameters | batch |
| --- | --- | --- |
| 32 | 21,883,395 | 128 |
| 64 | 28,964,867 | 128 |
| 128 | 36,046,339 | 64 |
| 256 | 43,127,811 | 32 |
| 32-small | 671,139 | 64 |
| 64-small | 2,116,899 | 32 |
| 128-small | 7,367,715 | 16 |
| 256-small | 14,449,187 | 8 |

256 needs 12.5 GiB of a v5e's 15.75 (`jaxgen plan --topology v5e:1x1`); the
others have at most half as many pixels in a batch.

One vector z of 128 numbers, as RAE has for CIFAR-10 (Ghosh et al. 2020, App.;
its widths, too: 128 at full size, doubled at every halving, here up to 512).
The decoder's sigma follows the error (Rybkin et al. 2021): no weight of the KL
term has to be chosen for the data. One level of latents makes blurry samples;
the deep hierarchies that do not (Child 2021) are another kind of net.
Adam's rate is 3e-4, of `-small` 1e-3 as in `digits_vae`.

`-small` is for minutes on two CPU cores: at 32 a step of 64 takes 0.35 s of one
core, at 256 one of 8 takes 3.8 s. On `photos` sigma fell from 0.5 to 0.35 in
100 steps and to 0.29 in 200, while the KL term rose to 66 and 86 nats: z is
used from the start.
"""

from configs import _base, _images

ARGS = _images.ARGS


def get_config(arg="32"):
  """`arg`: height and width, or one with `-small`; or `debug`."""
  size = 16 if arg == "debug" else int(arg.removesuffix("-small"))
  c, size, small = _images.base(arg, min(8192 // size, 128), min(2048 // size, 64))
  classes = c.data.get_ref("classes")
  c.model = dict(
    name="models.vae.VAE",
    net=dict(
      name="nets.convs.Codec",
      size=size,
      channels=c.data.get_ref("channels"),
      z_dim=64 if small else 128,
      width=16 if small else 128,
      classes=classes,
    ),
    beta=1.0,
    sigma=None,
    classes=classes,
  )
  c.optim.net = dict(name="optim.adam", lr=1e-3 if small else 3e-4, warmup=100, clip=100.0)
  c.ema.main = dict(name="ema.half_life", images=20_000 if small else 500_000, ramp=0.05)
  if arg == "debug":
    c.model.net.width = 8
    return _base.debug(c)
  return c
