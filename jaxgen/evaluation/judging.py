"""The classifier of the built-in judge, as features for any protocol."""
import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxgen.errors import UserError
from jaxgen.evaluation import extract
from jaxgen.evaluation.drawing import weights_hash
from jaxgen.sampler import Sampler


def judge_features(name: str, classifier: Sampler) -> extract.Extractor:
  """Looks at small images [H, W, 3] through a classifier, maybe of grey ones.

  Raises, when it looks, UserError: images are not of the classifier's size.
  """
  height, width, channels = classifier.shape

  def prepare(images: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    for x in images:
      if x.shape[:2] != (height, width):
        raise UserError(f"{name} looks at images of {width}x{height}, not "
                        f"{x.shape[1]}x{x.shape[0]}")
    return (np.stack([x[..., :channels] for x in images]),)

  looks = extract.classifier(classifier.model, classifier.state, name,
                             weights_hash(classifier.state))
  return dataclasses.replace(looks, prepare=prepare)
