"""pix2pix: images of images, learned from pairs (Isola et al. 2017).

  pix2pix.py:256           U-Net-256, PatchGAN of 70 pixels    54,413,955 + 2,768,705
  pix2pix.py:128           U-Net-128, images of 128 pixels     41,828,995 + 2,768,705
  pix2pix.py:resnet9       ResNet of 9 blocks, 256 pixels      11,383,427 + 2,768,705
  pix2pix.py:resnet6       ResNet of 6 blocks, 128 pixels       7,841,411 + 2,768,705
  pix2pix.py:photos-edges  edges -> colour photographs of 32 pixels that ship
  pix2pix.py:photos-grey   grey -> colour, likewise

Numbers are parameters of the generator and the discriminator, with batch norm. Of
ResNets with instance norm (model.gen.norm) they are 11,378,179 and 7,837,699; of the
pixels' discriminator (nets.patchgan.PixelGAN) 9,024.

Recipe of junyanz/pytorch-CycleGAN-and-pix2pix: batch 1, Adam 2e-4 (0.5, 0.999), 100
epochs at that rate and 100 down to zero, dropout, L1 x 100. 200 epochs are config.steps:
80,000 of the 400 facades. Crops are squares of 256/286 of the short side, where that
code stretches images to 286 x 286. Its other options: model.rule
(adversarial.patch_rules: cross_entropy "vanilla", squares "lsgan", critic "wgangp"),
model.gen.dropout=0, model.gen.norm, model.disc.norm, model.disc.layers,
model.sees_source, model.l1_weight.

Published FCN score on Cityscapes, labels -> photographs: 0.66 of pixels. The
small configs are of batch 16, and so sample by running averages.

  jaxgen train --config configs/pix2pix.py \
    --config.data.source=sides:facades,ba --workdir W    (labels are the right halves)
  jaxgen train --config configs/pix2pix.py:128 --config.data.source=pairs:maps,photos ..
  jaxgen translate --workdir W --data labels --out photos --truth originals
  jaxgen import --source pix2pix --checkpoint latest_net_G.pth --workdir W
"""

from configs import _base

PUBLISHED = {
  "256": (256, dict(name="nets.pix2pix_unet.TranslatorUNet", downs=8)),
  "128": (128, dict(name="nets.pix2pix_unet.TranslatorUNet", downs=7)),
  "resnet9": (256, dict(name="nets.resnet_translator.TranslatorResNet", blocks=9)),
  "resnet6": (128, dict(name="nets.resnet_translator.TranslatorResNet", blocks=6)),
}
SMALL = ("photos-edges", "photos-grey")
ARGS = (*PUBLISHED, *SMALL, "debug")


def get_config(arg="256"):
  """`arg`: as above; `debug`: a few steps of `photos-grey`, of a smaller net."""
  if arg in ("debug", *SMALL):
    return small("photos-grey" if arg == "debug" else arg, arg == "debug")
  size, net = PUBLISHED[arg]
  c = _base.base("pairs:A,B", steps=80_000, batch=1, size=size)
  c.data.update(flip=True, crop=256 / 286)
  gen = dict(net, width=64, norm="batch", dropout=0.5)
  disc = dict(name="nets.patchgan.PatchGAN", width=64, layers=3, norm="batch")
  c.model = model(gen, disc, dict(name="models.translation.from_data"))
  adam = dict(name="optim.adam", lr=2e-4, b1=0.5, decay="by_epoch", epochs=(100, 100))
  c.optim.gen = dict(adam)
  c.optim.disc = dict(adam)
  c.ema.main = dict(name="ema.half_life", images=0, ramp=None)  # none at all
  c.log.pictures = 5000
  c.checkpoint.update(every=2000, keep_every=20_000)
  return c


def model(gen, disc, source, **more):
  """The game; `source`: what makes the images that are translated."""
  return dict(
    name="models.pix2pix.Pix2Pix",
    gen=gen,
    disc=disc,
    rule=dict(name="adversarial.patch_rules.cross_entropy"),
    cond=dict(source=source),
    l1_weight=100.0,
    sees_source=True,
    **more,
  )


def small(arg, debug):
  """Minutes on a core: a ResNet, as U-Nets lose fine textures with their first layer."""
  c = _base.base("photos", steps=1000, batch=16, size=32)
  c.data.flip = True
  gen = dict(
    name="nets.resnet_translator.TranslatorResNet", width=24, blocks=3, downs=1, norm="batch"
  )
  disc = dict(name="nets.patchgan.PatchGAN", width=24, layers=2, norm="batch")
  source = {
    "photos-edges": dict(name="diffusion.degrade.edges", gain=3.0),
    "photos-grey": dict(name="diffusion.degrade.grey"),
  }[arg]
  c.model = model(gen, disc, source, image_stats=0.0)
  adam = dict(name="optim.adam", lr=1e-3, b1=0.5, decay="by_epoch", epochs=(100, 100))
  c.optim.gen = dict(adam)
  c.optim.disc = dict(adam, lr=2e-4)
  c.ema.main = dict(name="ema.half_life", images=2_000, ramp=0.1)
  c.log.pictures = 400
  if debug:
    c.model.gen.width = c.model.disc.width = 4
    return _base.debug(c)
  return c
