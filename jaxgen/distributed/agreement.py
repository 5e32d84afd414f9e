"""Whether all processes are about to do the same thing."""

import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

import jaxgen
from jaxgen.distributed import join, watchdog
from jaxgen.errors import UserError

PACKAGES = "jax", "jaxlib", "flax", "optax", "numpy", "grain"


def check(facts: Mapping[str, Any]) -> None:
  """UserError on all processes, saying who differs in what, if one does.

  Args:
    facts: JSON; compared beside our code, what it runs on and the devices.
  """
  if not join.joined():
    return
  mine = flat(
    dict(facts)
    | {
      "code": code(pathlib.Path(jaxgen.__file__).parent),
      "version": {p: importlib.metadata.version(p) for p in PACKAGES},
      "devices": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
    }
  )
  told = join.consult(
    json.dumps(mine), lambda said: differences({i: json.loads(text) for i, text in said.items()})
  )
  if told:
    raise UserError(told)


def code(folder: pathlib.Path) -> dict[str, str]:
  """Every Python file below, and what it holds in short."""
  return {
    str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()[:8]
    for f in folder.rglob("*.py")
  }


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"a": {"b": 1}} -> {"a.b": 1}."""
  found = {}
  for key, value in tree.items():
    found |= (
      flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    )
  return found


def differences(said: Mapping[int, Mapping[str, Any]], most: int = 3) -> str:
  """What others say that process 0 does not, in one line; "" if nothing."""
  told: dict[str, list[int]] = {}  # what -> who
  for i, facts in said.items():
    for key in sorted(facts.keys() | said[0].keys()):
      his, ours = facts.get(key), said[0].get(key)
      if his != ours:
        told.setdefault(f"{key} is {his!r} there and {ours!r} here", []).append(i)
  if not told:
    return ""
  who = sorted({i for several in told.values() for i in several})
  rest = f"; and {len(told) - most} more" if len(told) > most else ""
  return (
    f"processes differ: {watchdog.named(who)} from process 0 in "
    + "; ".join(list(told)[:most])
    + rest
  )
