"""JSON as we keep it: numbers of any kind, files whole or not at all."""
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
  """Nested values as JSON can say them; what is not finite becomes "inf"."""
  if isinstance(value, Mapping):
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple | np.ndarray):
    return [plain(v) for v in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not np.isfinite(value):
    return str(value)
  return value


def write(path: str | os.PathLike, value: Any) -> None:
  """A file of `plain(value)`, and the folder for it."""
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    draft.write_text(json.dumps(plain(value), indent=1) + "\n")
    draft.replace(path)
  finally:
    draft.unlink(missing_ok=True)


def digest(value: Any) -> str:
  """Sixteen hex digits that identify a value of JSON."""
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
