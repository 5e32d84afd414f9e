"""The network whose features judge images of one data set.

  jaxgen train --config configs/judge.py --workdir W

`jaxgen evaluate` and `compare` train it on the real training split of the data
in question: to classify labels, where there are some, and again on samples for
the classification accuracy score; or else to tell images apart, see
jaxgen/evaluation/learned.py.
"""

from configs import _base

LARGE = 32  # pixels: from here on a quarter of the work for each pixel
ARGS = (range(1, 65), "debug")


def get_config(arg=None):
  """`arg`: the size of images, by default 8; or `debug`: a few steps."""
  size = int(arg) if arg not in (None, "debug") else 8
  width, batch, steps = (16, 64, 250) if size >= LARGE else (32, 128, 300)
  c = _base.base("digits", steps=steps, batch=batch, classes=10)
  c.model = dict(
    name="models.classifier.Classifier",
    net=dict(name="nets.convs.Classifier", width=width, features=64, classes=10),
    smoothing=0.0,
  )
  c.optim.net = dict(name="optim.adam", lr=2e-3, warmup=30, weight_decay=0.05, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=5_000, ramp=0.1)
  c.log.pictures = 0
  return _base.debug(c) if arg == "debug" else c
