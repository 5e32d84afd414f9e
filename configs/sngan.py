"""SNGAN: Miyato et al. 2018; with labels, Miyato & Koyama 2018.

Networks, batches and rates of the released code (pfnet-research).

| arg | data, labels | updates of G | G, D parameters | published |
| --- | --- | --- | --- | --- |
| 32 | CIFAR-10, none | 50,000 | 4,276,739, 1,053,825 | FID 21.7, IS 8.22 |
| 32c | CIFAR-10, 10 | 50,000 | 4,304,387, 1,055,105 | FID 17.5, IS 8.62 |
| 64 | ImageNet, 1000 | 250,000 | 17,974,915, 11,165,441 | none |
| 128 | ImageNet, 1000 | 450,000 | 41,996,931, 30,041,857 | FID 27.6, IS 29.7 |

D moves five times for each move of G, each time on 64 images. Where this is not
the released code: there, G moves on 128 fakes for CIFAR-10, and for ImageNet
the rate falls to zero over the last 50,000 updates; here it is constant.

  jaxgen train --config configs/sngan.py:32c --workdir W
  jaxgen train --config configs/sngan.py:digits --workdir W
"""

from configs import _resgan

ARGS = ("32", "32c", "64", "128", "digits", "debug")
STEPS = {32: 50_000, 64: 250_000, 128: 450_000}


def get_config(arg="32"):
  """`arg`: 32, 32c, 64, 128; `digits`, a minute on a laptop; `debug`."""
  if arg in ("digits", "debug"):
    return _resgan.digits(model, steps=1000, batch=128, debug=arg == "debug")
  size = int(arg.removesuffix("c"))
  return _resgan.published(
    "tfds:cifar10" if size == 32 else "tfds:imagenet2012",
    size,
    model=model,
    widths=((256,) * 4, (128,) * 4, 2) if size == 32 else _resgan.WIDTHS[size],
    updates=STEPS[size],
    lr=2e-4,
    classes={"32": 0, "32c": 10}.get(arg, 1000),
  )


def model(gen, disc, halvings, **kw):
  """Widths of both nets, and blocks of D that halve."""
  rule = dict(rule=dict(name="adversarial.losses.hinge"))
  return _resgan.game((gen, disc), halvings, disc={}, rule=rule, **kw)
