"""One side of a comparison that runs in a process of its own, with neither jax nor torch.

`against_torch.py` starts both sides, and asks each in turn to take some steps.
"""

import sys
import time
from collections.abc import Callable, Iterable


def answer(counts: Iterable[int], take: Callable[[], object]) -> None:
  """Prints parameter counts; then, for each line that says how many steps, their mean seconds.

  Of a step by the clock, and of the processor. The first step, which compiles, is not counted.
  """
  take()
  print(*counts, flush=True)
  for line in sys.stdin:
    start = time.perf_counter(), time.process_time()
    for _ in range(rounds := int(line)):
      take()
    ends = time.perf_counter(), time.process_time()
    print(*((b - a) / rounds for a, b in zip(start, ends, strict=True)), flush=True)
