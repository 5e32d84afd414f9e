"""The Inception score: sure about each image, unsure about all of them."""

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
  if (splits is None) == (size is None):
    raise ValueError("Give one of splits and size.")
  n = len(logits)
  if n < (splits or 1):
    raise ValueError(f"{n} rows do not make {splits or 1} splits.")
  order = np.arange(n)
  if shuffle is not None:
    order = np.random.RandomState(shuffle).permutation(n)
  if splits is not None:
    edges = [i * n // splits for i in range(splits + 1)]
  else:
    edges = [*range(0, n, size), n]
  scores = []
  for first, last in zip(edges[:-1], edges[1:], strict=True):
    log_p = np.asarray(logits[order[first:last]], np.float64)
    log_p = log_p - log_p.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    p = np.exp(log_p)
    marginal = p.mean(0)
    # Where a class is never met p is 0, and 0 log 0 = 0.
    log_q = np.log(np.maximum(marginal, np.finfo(np.float64).tiny))
    scores.append(np.exp((p * (log_p - log_q)).sum(1).mean()))
  return float(np.mean(scores)), float(np.std(scores))
