"""The classifier whose features judge small labelled images.

  jaxgen train --config configs/judge.py --workdir W

`jaxgen evaluate` and `compare` train it on the real training split of the data
in question, and again on samples for the classification accuracy score.
"""

from configs import _base

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps."""
  c = _base.base("digits", steps=300, batch=128, classes=10)
  c.model = dict(
    name="models.classifier.Classifier",
    net=dict(name="nets.convs.Classifier", width=32, features=64, classes=10),
    smoothing=0.0,
  )
  c.optim.net = dict(name="optim.adam", lr=2e-3, warmup=30, weight_decay=0.05, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=5_000, ramp=0.1)
  c.log.pictures = 0
  return _base.debug(c) if arg == "debug" else c
