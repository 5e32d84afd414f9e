"""All pairs of two sets of features, a tile of distances at a time."""

from collections.abc import Callable, Iterator

import numpy as np

ROWS, COLUMNS = 2048, 8192  # of a tile of distances: 128 MiB

Tick = Callable[[int], object]  # is told how many rows are done


def check_widths(x: np.ndarray, y: np.ndarray) -> None:
  """ValueError unless rows of both are of one length."""
  if x.shape[1:] != y.shape[1:]:
    raise ValueError(f"Features of different width: {x.shape[1:]} and {y.shape[1:]}.")


def tiles(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
  """Squared distances of x [N, D] to y [M, D]: (rows, columns, float64 tile).

  All tiles of some rows follow each other. Only a tile and what it is made of
  are float64 at a time, so memory does not grow with N or M.
  """
  check_widths(x, y)
  for i in range(0, len(x), ROWS):
    rows = slice(i, min(i + ROWS, len(x)))
    a = np.asarray(x[rows], np.float64)
    a2 = np.einsum("nd,nd->n", a, a)
    for j in range(0, len(y), COLUMNS):
      columns = slice(j, min(j + COLUMNS, len(y)))
      b = np.asarray(y[columns], np.float64)
      d = a @ b.T
      d *= -2
      d += a2[:, None]
      d += np.einsum("nd,nd->n", b, b)
      yield rows, columns, np.maximum(d, 0, out=d)


def nearest(
  x: np.ndarray, y: np.ndarray | None, k: int, tick: Tick = lambda done: None
) -> tuple[np.ndarray, np.ndarray]:
  """The k nearest rows of y [M, D] to each of x [N, D].

  With y None they are looked for among the other rows of x.

  Returns:
    (squared distances float64 [N, k], ascending; their rows int [N, k]).

  Raises:
    ValueError: fewer than k rows to look among.
  """
  among = x if y is None else y
  if len(among) - (y is None) < k:
    raise ValueError(f"{k} neighbours need more than {k} rows, got {len(among)}.")
  best = np.full((len(x), k), np.inf)
  index = np.zeros((len(x), k), int)
  for rows, columns, d in tiles(x, among):
    if y is None:
      own = np.arange(max(rows.start, columns.start),
                      min(rows.stop, columns.stop))  # fmt: skip
      d[own - rows.start, own - columns.start] = np.inf
    width = min(k, d.shape[1])
    near = np.argpartition(d, width - 1, 1)[:, :width]
    candidates = np.concatenate([best[rows], np.take_along_axis(d, near, 1)], axis=1)
    order = np.argsort(candidates, 1, kind="stable")[:, :k]
    best[rows] = np.take_along_axis(candidates, order, 1)
    near = np.concatenate([index[rows], near + columns.start], 1)
    index[rows] = np.take_along_axis(near, order, 1)
    if columns.stop == len(among):
      tick(rows.stop)
  return best, index


def radii(x: np.ndarray, ks: tuple[int, ...], tick: Tick = lambda done: None) -> np.ndarray:
  """Squared distances [len(ks), N] to the k-th neighbours, self excluded."""
  distances, _ = nearest(x, None, max(ks), tick)
  return np.ascontiguousarray(distances[:, np.array(ks) - 1].T)
