"""A config as plain JSON, and whether a run may go on with another one."""
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen.errors import UserError

ABSENT = "(absent)"


def as_json(config: Any, where: str = "config") -> Any:
  """Config -> dicts, lists, strings, numbers, bools and None.

  Equal configs become equal JSON: tuples turn into lists and numpy's scalars
  into Python's. What JSON cannot say is a UserError that names the field.
  """
  if hasattr(config, "to_dict"):  # ConfigDict, resolving its references
    config = config.to_dict()
  if isinstance(config, np.generic | np.ndarray):
    config = config.tolist()
  if isinstance(config, Mapping):
    for key in config:
      if not isinstance(key, str):
        raise UserError(f"{where} has the key {key!r}: use a string")
    return {k: as_json(v, f"{where}.{k}") for k, v in config.items()}
  if isinstance(config, list | tuple):
    return [as_json(v, f"{where}[{i}]") for i, v in enumerate(config)]
  if isinstance(config, float) and not math.isfinite(config):
    raise UserError(f"{where} is {config}: use None or a large finite number")
  if config is None or isinstance(config, str | bool | int | float):
    return config
  raise UserError(f"{where} is {config!r}: write it as a string or a number")


def check_config(saved: Mapping[str, Any], config: Any,
                 may_change: Sequence[str] = ("steps", "log", "checkpoint"),
                 ) -> None:
  """UserError naming the first field in which a resumed run would differ.

  Args:
    saved: what `as_json` gave when the run began.
    config: of the run that wants to go on.
    may_change: dotted paths of fields, or of whole subtrees, that may differ.
  """
  old, new = _flat(saved), _flat(as_json(config))
  for name in sorted(old | new):
    if any(f"{name}.".startswith(f"{free}.") for free in may_change):
      continue
    was, now = old.get(name, ABSENT), new.get(name, ABSENT)
    if was == now and isinstance(was, bool) == isinstance(now, bool):
      continue
    raise UserError(
        f"config.{name} is {_say(now)}, but this run began with "
        f"{_say(was)}: set it back, or start anew in another workdir")


def _say(value):
  return value if value == ABSENT else json.dumps(value)


def _flat(tree, prefix=""):
  """{dotted path: leaf}; lists of plain values, and {}, are leaves."""
  if isinstance(tree, list) and any(isinstance(v, Mapping) for v in tree):
    tree = {str(i): value for i, value in enumerate(tree)}
  if not isinstance(tree, Mapping) or (not tree and prefix):
    return {prefix: tree}
  flat = {}
  for key, value in tree.items():
    flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
  return flat
