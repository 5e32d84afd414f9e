"""The classifier that judges digits: its features measure distances.

  jaxgen train --config configs/digits_classifier.py --workdir W
"""
from configs import _base


def get_config(arg=None):
  """`debug`: a few steps."""
  c = _base.base("digits", steps=400, batch=128, classes=10)
  c.model = dict(
      name="models.classifier.Classifier",
      net=dict(name="nets.convs.Classifier", width=32, features=64, classes=10),
      smoothing=0.0)
  c.optim.net = dict(name="optim.adam", lr=1e-3, warmup=50, weight_decay=0.05,
                     decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=5_000, ramp=0.1)
  c.log.pictures = 0
  return _base.debug(c) if arg == "debug" else c
