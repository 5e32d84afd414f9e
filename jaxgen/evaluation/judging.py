"""The classifier of the built-in judge, as features for any protocol."""
from collections.abc import Iterator

import numpy as np

from jaxgen.errors import UserError
from jaxgen.evaluation import extract
from jaxgen.evaluation.drawing import weights_hash
from jaxgen.sampling.sampler import Sampler


class JudgeFeatures:
  """Looks at small images [n, H, W, 3] through a classifier, maybe of grey.

  See collect.Extractor.
  """

  def __init__(self, name: str, classifier: Sampler):
    self.name, self.shape = name, classifier.shape
    self.sha256 = weights_hash(classifier.state)
    self.looks = extract.classifier(
        classifier.model, classifier.state, name, self.sha256)
    self.taps, self.card = self.looks.taps, self.looks.card

  def features(self, images: Iterator[np.ndarray], taps: tuple[str, ...]
               ) -> dict[str, np.ndarray]:
    """See collect.Extractor; UserError for images of another size."""
    return self.looks.features(map(self.fit, images), taps)

  def fit(self, x: np.ndarray) -> np.ndarray:
    """Of three channels, as many as the classifier knows."""
    height, width, channels = self.shape
    if x.shape[1:3] != (height, width):
      raise UserError(f"{self.name} looks at images of {width}x{height}, not "
                      f"{x.shape[2]}x{x.shape[1]}")
    return x[..., :channels]
