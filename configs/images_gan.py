"""A GAN on a folder of your own images, few or many: StyleGAN2-ADA.

  jaxgen train --config configs/images_gan.py:64 --workdir W \
    --config.data.source=folder:/my/images
  jaxgen sample --workdir W --psi 0.7 --out grid.png

With `--config.data.classes=10` it learns the labels of ten subfolders; grey
images are `--config.data.channels=1`.

| arg | G, D parameters | batch |
| --- | --- | --- |
| 32 | 19,947,539, 21,507,073 | 32 |
| 64 | 22,243,608, 23,407,361 | 32 |
| 128 | 22,949,277, 23,882,369 | 32 |
| 256 | 23,191,522, 24,001,089 | 16 |
| 32-small | 233,267, 277,137 | 64 |
| 64-small | 661,939, 850,961 | 32 |
| 128-small | 661,147, 721,353 | 16 |
| 256-small | 2,108,315, 2,622,665 | 8 |

A train step of 32 needs 1.4 GiB of a v5e's 15.75, by `jaxgen plan --topology
v5e:1x1` (optimisation level O1); the larger ones were not planned.

Of the designs here this one has published results for thousands of images,
not tens of thousands (Karras et al. 2020b); R3GAN has none below 50,000. All
numbers are those of its code's configuration `auto` on one device: batch
4096 / size, at most 32; R1 with gamma 0.0002 size^2 / batch; rates 0.0025; half
the channels of `stylegan2.py:1024`; two layers of mapping; averages of half-life
10,000 images for a batch of 32. Augmentation adapts to D: it is nothing where
images are many, and does not leak while p stays below 0.8 (Sec. 2.2). Path
lengths and mixed styles are left out, as in Karras et al. 2021 (config D).
Mirroring does leak, by intent: --config.data.flip=false where left and right
matter.

`-small` is for minutes on two CPU cores: DCGAN's nets with spectral norm and
hinge (Miyato et al. 2018), the rates of `digits_gan`, and DiffAugment at its
fixed strength (Zhao et al. 2020), for ADA takes 500,000 images to find its own.
At 32 a step of 64 takes about 0.5 s of one core. From 128 on nets are half as
wide: as wide as at 64, a step of 8 at 256 took 5.7 s of one core. After 120
steps of 64 on `photos` samples were as diverse as data, at a loss of D of 1.93.
With 1e-3 for both they scored better (a Fréchet distance of 38 against 48, real
test photographs 36), but D told nothing apart from step 30 on: not taken. One
run each.
"""

from configs import _base, _images, _stylegan2

ARGS = _images.ARGS


def get_config(arg="32"):
  """`arg`: height and width, or one with `-small`; or `debug`."""
  size = 16 if arg == "debug" else int(arg.removesuffix("-small"))
  c, size, small = _images.base(arg, min(4096 // size, 32), min(2048 // size, 64))
  if small:
    pair(c, size, 16 if arg != "debug" and size <= 64 else 8)
  else:
    _stylegan2.model(
      c,
      size=size,
      base=16384,
      layers=2,
      group=4,
      gamma=0.0002 * size**2 / c.batch,
      dtype="bfloat16",
      clamp=256.0,
      channels=c.data.get_ref("channels"),
    )
    c.model.augment = dict(name="adversarial.ada.ADA")
    _stylegan2.optimisers(c, 0.0025)
    c.ema.main = dict(name="ema.half_life", images=10_000 * c.batch / 32, ramp=0.05)
  return _base.debug(c) if arg == "debug" else c


def pair(c, size, width):
  """DCGAN's nets, hinge, spectral norm, DiffAugment."""
  classes = c.data.get_ref("classes")
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(
      name="nets.convs.Generator",
      size=size,
      channels=c.data.get_ref("channels"),
      width=width,
      classes=classes,
    ),
    disc=dict(
      name="nets.convs.Discriminator",
      width=width,
      classes=classes,
      norm=dict(name="nets.spectral.spectral"),
    ),
    rule=dict(name="adversarial.losses.hinge"),
    augment=dict(name="adversarial.diffaugment.DiffAugment"),
    z_dim=64,
    classes=classes,
  )
  adam = dict(name="optim.adam", b1=0.0, b2=0.9)
  c.optim.gen, c.optim.disc = dict(adam, lr=2e-4), dict(adam, lr=4e-4)
  c.ema.main = dict(name="ema.half_life", images=20_000, ramp=0.1)
