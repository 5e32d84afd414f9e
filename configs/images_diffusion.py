"""Diffusion on a folder of your own images: EDM (Karras et al. 2022).

  jaxgen train --config configs/images_diffusion.py:64 --workdir W \
    --config.data.source=folder:/my/images
  jaxgen sample --workdir W --out grid.png

With `--config.data.classes=10` it learns the labels of ten subfolders, a tenth
of them dropped, for `--guidance`; grey images are `--config.data.channels=1`.

| arg | parameters | batch | net after |
| --- | --- | --- | --- |
| 32 | 58,036,739 | 128 | EDM, CIFAR-10 |
| 64 | 63,087,235 | 32 | EDM, AFHQv2 and FFHQ |
| 128 | 94,997,763 | 32 | ADM at 128, half as wide |
| 256 | 80,645,635 | 16 | Choi et al. 2022, FFHQ at 256 |
| 32-small | 761,356 | 32 | |
| 64-small | 1,197,580 | 16 | |
| 128-small | 1,218,352 | 16 | |
| 256-small | 1,301,440 | 16 | |

What a train step needs of a v5e's 15.75 GiB, by `jaxgen plan --topology
v5e:1x1` (optimisation level O1); 64 and 128 were not planned.

| arg | needs |
| --- | --- |
| 32 | 6.5 GiB |
| 256 | 10.2 GiB |

Any number from 4 to 1024 is a size, and takes the net of the next in the table
(above 256: that of 256). Blocks are ADM's, with adaptive norms. Noise, path and
averages are EDM's (half-life 500,000 images, at most a twentieth of those seen,
so that any end is a good one). Rates: DDPM's 2e-4, ADM's 1e-4 from 128 on.
Few images: dropout, 0.13 as EDM has it for CIFAR-10 (AFHQv2's 15,000 images got
0.25, FFHQ's 70,000 0.05), and from 128 on ADM's 0.1. Images are mirrored and
nothing else: what is done to them would show in samples, unless the net was
told of it (App. F.2). Mirroring does show, by intent: --config.data.flip=false
where left and right matter.

`-small` is for minutes on two CPU cores. It sees squares of 2x2 pixels (4x4 at
128, 8x8 at 256) as one (Hoogeboom et al. 2023, Sec. 3.3), and is sampled in 18
evaluations of DPM-Solver++ where the others take 35 of Heun's. At 32 a step of
64 takes 0.9 s of one core, so that a batch is 32. Rate and warm-up are those of
`photos.py`: after 60 steps of 64 of `photos` the loss was at 0.77, with 1e-3 and
100 steps of warm-up at 0.82 (one run each). Averages remember a tenth of the
training, twice as much as the others', for it is short.
"""

from configs import _base, _images

ARGS = (range(4, 1025), *_images.ARGS)
# By the largest size: width, multipliers, blocks, how often it is halved before
# attention, dropout, learning rate, batch.
NETS = {
  48: (128, (2, 2, 2), 4, (1,), 0.13, 2e-4, 128),
  96: (128, (1, 2, 2, 2), 4, (2,), 0.13, 2e-4, 32),
  192: (128, (1, 1, 2, 3, 4), 2, (3, 4), 0.1, 1e-4, 32),
  1024: (128, (1, 1, 2, 2, 4, 4), 1, (4,), 0.1, 1e-4, 16),
}
SMALL = {
  48: (32, (1, 2), 1, (1,), 0.05, 2e-3, 32),
  96: (32, (1, 2, 2), 1, (2,), 0.05, 2e-3, 16),
  192: (32, (1, 2, 2), 1, (2,), 0.05, 2e-3, 16),
  1024: (32, (1, 2, 2), 1, (2,), 0.05, 2e-3, 16),
}
PATCH = {32: 2, 64: 2, 128: 4, 256: 8}


def get_config(arg="32"):
  """`arg`: height and width, 4 at least, or one with `-small`; or `debug`."""
  small = arg == "debug" or arg.endswith("-small")
  size = 16 if arg == "debug" else int(arg.removesuffix("-small"))
  nets = SMALL if small else NETS
  width, mults, blocks, halvings, dropout, lr, batch = nets[min(n for n in nets if n >= size)]
  c, size, _ = _images.base(arg, batch, batch)
  classes = c.data.get_ref("classes")
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=dict(
      name="nets.unet.UNet",
      width=width,
      mults=mults,
      blocks=blocks,
      patch=(patch := PATCH.get(size, 1) if small else 1),
      attend=tuple(-(-(size // patch) // 2**n) for n in halvings),
      head=64,
      least=4,
      labels=_images.with_none(classes),
      dropout=dropout,
      remat=(),
      dtype="float32" if small else "bfloat16",
    ),
    **_base.edm(0.5, -1.2, 1.2, lo=0.002, hi=80.0, rho=7.0),
    sampler=dict(name="diffusion.samplers.dpmpp_2m" if small else "diffusion.samplers.heun"),
    steps=18,
    classes=classes,
    label_drop=0.1,
    bound=1.0,
  )
  c.optim.net = dict(name="optim.adam", lr=lr, warmup=50 if small else 1000, clip=1.0)
  c.ema.main = dict(name="ema.half_life", images=500_000, ramp=0.1 if small else 0.05)
  if arg == "debug":
    c.model.net.update(width=16, mults=(1, 2), attend=(8,))
    return _base.debug(c)
  return c
