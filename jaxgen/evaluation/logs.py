"""Where the numbers of a training's checkpoints go."""
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxgen.monitor.log import FILE, mend


def append(workdir: str | os.PathLike, step: int,
           scores: Mapping[str, float]) -> None:
  """Adds a line to a run's log, which may be that of a running training.

  One write of one line: nobody's lines are torn. A torn last line, of a
  process that was killed, is cut off, as the log itself does.
  """
  path = Path(workdir) / FILE
  mend(path)
  row = {"step": int(step)} | {
      k: float(v) if np.isfinite(v) else str(float(v))
      for k, v in scores.items()}
  line = json.dumps(row | {"time": round(time.time(), 3)}, allow_nan=False)
  with open(path, "ab", buffering=0) as file:
    file.write(line.encode() + b"\n")


def card_name(step: int, features: str, protocol: str, num: int) -> str:
  """Of the card of a model's step, in WORKDIR/evals."""
  own = "" if features == "inception" else f"-{features}"
  return f"{step:08d}-{protocol}{own}-{num}.json"
