"""Inception scores: a classifier is sure about each sample, unsure about all of them."""

import numpy as np


def inception_score(
  logits: np.ndarray,
  *,
  splits: int | None = None,
  size: int | None = None,
  shuffle: int | None = None,
) -> tuple[float, float]:
  """exp(mean KL(p(y|x) || p(y))) by splits: mean and std (ddof 0) over them.

  Salimans et al. 2016, section 4; float64. The references leave the bias out
  of the logits, which changes scores by a tenth.

  Args:
    logits: [N, classes].
    splits: so many, as even as N allows (torch-fidelity, improved-gan), or
    size: splits of so many rows, the last one of what is left (ADM).
    shuffle: seed of np.random.RandomState by which rows are permuted first;
      None: rows stay in order.

  Raises:
    ValueError: fewer rows than splits.
  """
  n = len(logits)
  edges = cuts(n, splits, size)
  order = np.arange(n)
  if shuffle is not None:
    order = np.random.RandomState(shuffle).permutation(n)
  scores = [
    score_of(logits[order[first:last]]) for first, last in zip(edges[:-1], edges[1:], strict=True)
  ]
  return float(np.mean(scores)), float(np.std(scores))


def cuts(n: int, splits: int | None, size: int | None) -> list[int]:
  """Where splits of n rows begin, and n."""
  if (splits is None) == (size is None):
    raise ValueError("Give one of splits and size.")
  if n < (splits or 1):
    raise ValueError(f"{n} rows do not make {splits or 1} splits.")
  if splits is not None:
    return [i * n // splits for i in range(splits + 1)]
  return [*range(0, n, size), n]


def score_of(logits: np.ndarray) -> float:
  """Of one split [n, classes]."""
  log_p = log_probabilities(logits)
  return float(np.exp((np.exp(log_p) * (log_p - log_of_mean(log_p))).sum(1).mean()))


def modified_score(logits: np.ndarray) -> float:
  """exp(mean KL(p(y|x) || p(y|x'))) over all pairs of samples, in float64.

  Gurumurthy et al. 2017 ("DeLiGAN"), Sec. 4.1, over all samples, as DiffWave's
  Sec. 4.2 has it. All N^2 pairs, not some at random: of their logarithms'
  ratios the mean is a difference of two means. From 1, where all samples are
  classified alike; unbounded, and of a few samples that are very sure.

  Args:
    logits: [N, classes].

  Returns:
    infinity, where float64 holds it no longer.
  """
  log_p = log_probabilities(logits)
  p = np.exp(log_p)
  own = (p * log_p).sum(1).mean()
  cross = p.mean(0) @ log_p.mean(0)
  with np.errstate(over="ignore"):
    return float(np.exp(own - cross))


def log_probabilities(logits: np.ndarray) -> np.ndarray:
  """ln softmax of [N, classes], float64."""
  log_p = np.asarray(logits, np.float64)
  log_p = log_p - log_p.max(1, keepdims=True)
  return log_p - np.log(np.exp(log_p).sum(1, keepdims=True))


def log_of_mean(log_p: np.ndarray) -> np.ndarray:
  """ln p(y), [classes], of ln p(y|x) [N, classes]."""
  # Where a class is never met p is 0, and 0 log 0 = 0.
  return np.log(np.maximum(np.exp(log_p).mean(0), np.finfo(np.float64).tiny))
