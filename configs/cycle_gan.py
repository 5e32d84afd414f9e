"""CycleGAN: images of one kind into another and back, without pairs (Zhu et al. 2017).

  cycle_gan.py:256     ResNets of 9 blocks, 256 pixels   2 x 11,378,179 + 2 x 2,764,737
  cycle_gan.py:128     ResNets of 6 blocks, 128 pixels   2 x  7,837,699 + 2 x 2,764,737
  cycle_gan.py:digits  real 8x8 digits <-> digits black for white
  cycle_gan.py:slants  real 8x8 digits <-> slanted ones

Numbers are parameters of the generators and of the discriminators.

Recipe of junyanz/pytorch-CycleGAN-and-pix2pix: batch 1, Adam 2e-4 (0.5, 0.999), 100
epochs at that rate and 100 down to zero, least squares, cycles x 10, identity x 5, a
pool of 50 images, instance norm. 200 epochs are config.steps: 266,800 of horse2zebra's
1,334 zebras. Crops are squares of 256/286 of the short side, where that code
stretches images to 286 x 286. Of batch norm see `models.pix2pix`.

There is no one protocol by which its FID is published: papers differ by 20 points.

  jaxgen train --config configs/cycle_gan.py \
    --config.data.source=unpaired:horse2zebra --workdir W  (trainA, trainB, testA, ..)
  jaxgen translate --workdir W --data horses --out zebras
  jaxgen translate --workdir W --data zebras --out horses --direction ba
  jaxgen import --source cyclegan --checkpoint latest_net_G_A.pth --workdir W
"""

from configs import _base

PUBLISHED = {"256": 9, "128": 6}
SMALL = {"digits": "inverted", "slants": "slanted"}
ARGS = (*PUBLISHED, *SMALL, "debug")


def get_config(arg="256"):
  """`arg`: as above; `debug`: a few steps of `digits`, of smaller nets."""
  if arg in ("debug", *SMALL):
    return small(SMALL.get(arg, "inverted"), arg == "debug")
  size = int(arg)
  c = _base.base("unpaired:A,B", steps=266_800, batch=1, size=size)
  c.data.update(flip=True, crop=256 / 286, channels=3)
  c.model = model(
    dict(blocks=PUBLISHED[arg], width=64), dict(width=64, layers=3), cycle=(10.0, 10.0), pool=50
  )
  adam = dict(name="optim.adam", lr=2e-4, b1=0.5, decay="by_epoch", epochs=(100, 100))
  for group in ("gen", "disc_a", "disc_b"):
    c.optim[group] = dict(adam)
  c.ema.main = dict(name="ema.half_life", images=0, ramp=None)  # none at all
  c.log.pictures = 5000
  c.checkpoint.update(every=2000, keep_every=20_000)
  return c


def model(gen, disc, **more):
  """The game, of nets with instance norm."""
  return dict(
    name="models.cycle_gan.CycleGAN",
    gen=dict(name="nets.resnet_translator.TranslatorResNet", norm="instance", **gen),
    disc=dict(name="nets.patchgan.PatchGAN", norm="instance", **disc),
    rule=dict(name="adversarial.patch_rules.squares"),
    cond=dict(source=dict(name="models.translation.from_data")),
    identity=0.5,
    **more,
  )


def small(how, debug):
  """Minutes on a core. Inverted digits are far from digits: no identity there."""
  c = _base.base(f"unpaired:digits,digits-{how}", steps=3000, batch=16, size=8)
  c.model = model(
    dict(blocks=2, downs=1, width=24, channels=1),
    dict(width=32, layers=1),
    cycle=(10.0, 10.0),
    pool=50,
  )
  c.model.identity = 0.0 if how == "inverted" else 0.5
  adam = dict(name="optim.adam", lr=1e-3, b1=0.5, decay="by_epoch", epochs=(100, 100))
  for group in ("gen", "disc_a", "disc_b"):
    c.optim[group] = dict(adam)
  c.ema.main = dict(name="ema.half_life", images=2_000, ramp=0.1)
  if debug:
    c.model.gen.update(width=4, blocks=1)
    c.model.disc.width = 4
    c.model.pool = 5
    return _base.debug(c)
  return c
