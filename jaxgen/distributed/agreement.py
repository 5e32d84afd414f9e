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
  why = join.consult(
    json.dumps(mine), lambda texts: differences({i: json.loads(t) for i, t in texts.items()})
  )
  if why:
    raise UserError(why)


def code(folder: pathlib.Path) -> dict[str, str]:
  """Every Python file below, and what it holds in short."""
  return {
    str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()[:8]
    for f in folder.rglob("*.py")
  }


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"a": {"b": 1}} -> {"a.b": 1}."""
  leaves = {}
  for key, value in tree.items():
    leaves |= (
      flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    )
  return leaves


def differences(facts: Mapping[int, Mapping[str, Any]], most: int = 3) -> str:
  """In what others differ from process 0, in one line; "" if in nothing."""
  processes: dict[str, list[int]] = {}  # difference -> who differs
  for i, theirs in facts.items():
    for key in sorted(theirs.keys() | facts[0].keys()):
      his, ours = theirs.get(key), facts[0].get(key)
      if his != ours:
        processes.setdefault(f"{key} is {his!r} there and {ours!r} here", []).append(i)
  if not processes:
    return ""
  who = sorted({i for several in processes.values() for i in several})
  more = f"; and {len(processes) - most} more" if len(processes) > most else ""
  return (
    f"processes differ: {watchdog.named(who)} from process 0 in "
    + "; ".join(list(processes)[:most])
    + more
  )
