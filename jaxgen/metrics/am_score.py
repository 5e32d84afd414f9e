"""The AM score: how sure a classifier is of samples, and how even its classes are."""

import numpy as np

from jaxgen.metrics.inception_score import log_of_mean, log_probabilities


def am_score(logits: np.ndarray, real_logits: np.ndarray) -> float:
  """KL(p(y) of real data || p(y) of samples) + mean H(p(y|x)) of samples, in nats.

  Zhou et al. 2018 ("Activation Maximization Generative Adversarial Nets"), Sec.
  5, in float64; less is better. Real data have the mean entropy alone, which is
  0 for a classifier that is always sure.

  Args:
    logits: Of samples, [N, classes].
    real_logits: Of training data, [M, classes].

  Raises:
    ValueError: There are none, or of other classes.
  """
  if not len(logits) or not len(real_logits) or logits.shape[1:] != real_logits.shape[1:]:
    raise ValueError(f"Logits {logits.shape} of samples, {real_logits.shape} of real data.")
  log_p = log_probabilities(logits)
  log_own, log_real = log_of_mean(log_p), log_of_mean(log_probabilities(real_logits))
  p, real = np.exp(log_p), np.exp(log_real)
  entropy = -(p * log_p).sum(1).mean()
  return float((real * (log_real - log_own)).sum() + entropy)
