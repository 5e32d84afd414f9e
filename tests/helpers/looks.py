"""A stand-in for Inception: quick, smooth, and the same on every machine."""

import numpy as np

TAPS = {"64": 8, "192": 6, "pool3": 12, "spatial": 10, "logits": 5, "logits_unbiased": 5}


class Stub:
  """See evaluation.collect.Extractor: random waves of an 8x8 thumbnail."""

  taps = tuple(TAPS)
  sha256 = "0" * 64
  card, batch, shape, channels = {}, 1, None, None

  def __init__(self, name="inception", scale=1.0):
    self.name, self.scale, self.count = name, scale, 0
    rng = np.random.default_rng(0)
    self.mix = {k: rng.standard_normal((192, d)) / 8 for k, d in TAPS.items()}

  def features(self, images, taps):
    """One image at a time: no batch can matter."""
    rows = [self.look(x) for batch in images for x in batch]
    self.count += len(rows)
    return {
      k: np.stack([np.sin(3 * (r @ self.mix[k])) + r[:1] for r in rows]).astype(np.float32)
      * self.scale
      for k in taps
    }

  @staticmethod
  def look(x):
    i, j = (np.arange(8) * n // 8 for n in x.shape[:2])
    return x[i][:, j].reshape(-1).astype(np.float64) / 255 - 0.5


def opened(name="inception", weights=None, resize="tf", batch=None):
  """In place of evaluation.features.open_extractor."""
  return Stub(name)


def pictures(n, seed=0, size=8, warm=0.0):
  """Smooth random images uint8 [n, size, size, 3]; `warm` shifts to red."""
  rng = np.random.default_rng(seed)
  waves = np.cumsum(rng.standard_normal((n, size, size, 3)), 1)
  tint = rng.standard_normal((n, 1, 1, 3)) * 30 + np.array([1, 0, -1]) * warm
  return np.clip(128 + 20 * waves + tint, 0, 255).astype(np.uint8)
