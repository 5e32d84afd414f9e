"""Where names go in a crowded chart: beside their marks, clear of all else.

Everything is in pixels; places are rows of left, low, right, top.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

AWAY = (0, 8, 18, 30, 44, 60)  # points between a mark and a name, beyond GAP
FAR = 8  # from which on a line ties them together
GAP = 5
WAYS = np.array([(math.cos(a * math.pi / 8), math.sin(a * math.pi / 8)) for a in range(16)])
PIECES = 24  # of a line, that are looked at
# How bad it is to write over a name, a mark, a piece of a line, past the edge.
NAME, MARK, LINE, EDGE = 40.0, 6.0, 0.25, 30.0


class Obstacles(NamedTuple):
  """What a name should not stand on."""

  discs: np.ndarray  # [n, 3]: x, y, radius of marks
  lines: np.ndarray  # [m, 2]: places on lines
  bounds: Sequence[float]  # left, low, right, top of what is free


class Place(NamedTuple):
  """Where a name goes, and which mark it belongs to."""

  box: np.ndarray  # [4]
  mark: int
  tied: bool  # whether it is so far away that a line helps


def between(corners: np.ndarray) -> np.ndarray:
  """Corners [n, 2] of a line -> places on it [(n - 1) PIECES, 2]."""
  parts = np.linspace(0, 1, PIECES)[:, None]
  pieces = [a + parts * (b - a) for a, b in itertools.pairwise(corners)]
  return np.concatenate([np.zeros((0, 2)), *pieces])


def place(
  marks: np.ndarray,
  radii: np.ndarray,
  penalties: np.ndarray,
  size: tuple[float, float],
  obstacles: Obstacles,
  taken: Sequence[np.ndarray],
  k: float,
) -> Place | None:
  """The best place for a name; None where no mark can be seen.

  Args:
    marks: [p, 2], any of which it may stand beside.
    radii: [p] of these.
    penalties: [p], of marks that are worse to stand beside.
    size: Width and height of the name.
    obstacles: Of the chart.
    taken: Places of other names.
    k: Pixels of a point.
  """
  left, low, right, top = obstacles.bounds
  x, y = np.transpose(marks)
  seen = np.flatnonzero((x >= left) & (x <= right) & (y >= low) & (y <= top))
  if not len(seen):
    return None
  away = np.array(AWAY, float)
  reach = radii[seen, None] + (away + GAP) * k  # [p, a]
  at = marks[seen, None, None] + reach[..., None, None] * WAYS  # [p, a, w, 2]
  corner = at - np.array(size) * (0.5 - 0.5 * WAYS)
  boxes = np.concatenate([corner, corner + np.array(size)], -1)
  cost = crowding(boxes.reshape(-1, 4), obstacles, taken, k).reshape(boxes.shape[:-1])
  cost = cost + away[:, None] / 12 + penalties[seen, None, None]
  i, j, w = np.unravel_index(np.argmin(cost), cost.shape)
  return Place(boxes[i, j, w], int(seen[i]), AWAY[j] > FAR)


def crowding(
  boxes: np.ndarray, obstacles: Obstacles, taken: Sequence[np.ndarray], k: float
) -> np.ndarray:
  """How bad it is to write there: boxes [c, 4] -> [c]."""
  low, high = boxes[:, None, :2], boxes[:, None, 2:]
  discs, lines = obstacles.discs, obstacles.lines
  gap = np.maximum(np.maximum(low - discs[:, :2], discs[:, :2] - high), 0)
  cost = MARK * np.sum(np.hypot(gap[..., 0], gap[..., 1]) < discs[:, 2], 1)
  cost += LINE * np.sum(((lines >= low) & (lines <= high)).all(-1), 1)
  for other in taken:
    over = np.minimum(high[:, 0], other[2:]) - np.maximum(low[:, 0], other[:2])
    cost += NAME * (over + np.array([2, 1]) * k > 0).all(1)
  left, bottom, right, top = obstacles.bounds
  out = np.max(
    [left - boxes[:, 0], bottom - boxes[:, 1], boxes[:, 2] - right, boxes[:, 3] - top], 0
  )
  return cost + np.where(out > 0, EDGE + out / k, 0.0)
