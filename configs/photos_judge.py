"""The classifier whose features measure perceptual distances of photographs.

  jaxgen train --config configs/photos_judge.py --workdir J
  jaxgen evaluate --workdir U --perceptual J        (U: a 64-pixel upsampler)

It tells of which of the seven training photographs a patch is: an easy task,
and its features are no ImageNet's. The distances, `perceptual@photos-cnn`, rank
what was judged by the same J; they are not LPIPS. 1.4 million parameters;
100 s of one CPU core.
"""

from configs import _base

ARGS = (range(8, 65), "debug")


def get_config(arg=None):
  """`arg`: the size of patches, by default 64; or `debug`: a few steps."""
  size = int(arg) if arg not in (None, "debug") else 64
  c = _base.base("photos", steps=250, batch=64, size=size, classes=7)
  c.data.flip = True
  c.model = dict(
    name="models.classifier.Classifier",
    net=dict(name="nets.convs.Classifier", width=16, features=64, classes=7),
    smoothing=0.1,
  )
  c.optim.net = dict(name="optim.adam", lr=2e-3, warmup=20, weight_decay=0.05, decay="cosine")
  c.ema.main = dict(name="ema.half_life", images=1_000, ramp=0.1)
  c.log.update(every=10, pictures=0)
  return _base.debug(c) if arg == "debug" else c
