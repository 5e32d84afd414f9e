"""What a judge's own classifier and its features say of samples, beside distances.

Inception, modified Inception and AM scores, accuracy, and bins that differ: the
numbers of DiffWave's Sec. 4.2 and 4.3.
"""

from typing import NamedTuple

import numpy as np

from jaxgen.metrics.am_score import am_score
from jaxgen.metrics.inception_score import inception_score, modified_score
from jaxgen.metrics.ndb import Bins

MEANINGS = {  # by name, without features
  "frechet": "Fréchet distance",
  "precision": "share of samples that lie among real training {noun}",
  "recall": "share of real training {noun} that lie among samples: diversity",
  "density": "how densely real training {noun} surround samples",
  "coverage": "share of real training {noun} with a sample nearby: diversity",
  "is": "Inception score, of one split (Salimans et al. 2016)",
  "mis": "modified Inception score, all pairs of samples (Gurumurthy et al. 2017)",
  "am": "AM score, in nats, less is better (Zhou et al. 2018)",
  "accuracy": "share of samples that are recognised as their labels",
  "ndb": "NDB/K: share of {bins} K-means bins that differ, z-tests at 0.05; 0.05 by chance, and "
  "more where samples are more (Richardson & Weiss 2018)",
  "js": "Jensen-Shannon divergence of these bins, in nats",
  "copies": "share of samples as near to training {noun} as few real ones are",
  "cas": "accuracy on real test {noun} of a classifier that was trained on samples",
}


class Recognition(NamedTuple):
  """Numbers of samples by a classifier of real data.

  Attributes:
    bins: Of training features.
    real_logits: Of training data, [M, classes]; None: there is no classifier.
  """

  bins: Bins
  real_logits: np.ndarray | None

  def __call__(
    self, f: np.ndarray, logits: np.ndarray | None, y: np.ndarray | None
  ) -> dict[str, float]:
    """Features [N, D], logits [N, classes] and labels [N] of samples -> numbers."""
    different = self.bins.compare(f)
    scores = {"ndb": different.share, "js": different.divergence}
    if logits is None:
      return scores
    scores = {
      "is": inception_score(logits, splits=1)[0],
      "mis": modified_score(logits),
      "am": am_score(logits, self.real_logits),
    } | scores
    if y is not None:
      scores = {"accuracy": float(np.mean(logits.argmax(1) == y))} | scores
    return scores


def legend(names: list[str], noun: str, bins: int, looks: str) -> str:
  """What numbers are that a table shows, a line each.

  Args:
    names: Of numbers: "frechet@digits-cnn".
    noun: What samples are: "clips".
    bins: Number of them.
    looks: What features are of, in words.
  """
  lines = []
  for name in names:
    metric, _, _ = name.partition("@")
    if metric in MEANINGS:
      meaning = MEANINGS[metric].format(noun=noun, bins=bins)
      lines.append(f"{metric:10}{meaning}" + f" (features of {looks})" * (metric == "frechet"))
  return "\n".join(lines)
