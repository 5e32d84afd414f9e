"""Which of several workdirs hold seeds of one config: their numbers are of one row."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgen import files
from jaxgen.checkpoint.meta import latest


def config_key(workdir: str, step: int) -> str:
  """Sixteen hex digits of the config without its seed, and of the step."""
  own = {k: v for k, v in latest(workdir)["config"].items() if k != "seed"}
  return files.digest([own, step])


def seeds_of(keys: Mapping[str, str]) -> dict[str, list[str]]:
  """{title: names} of those that share a key, two or more: {"pix (2 seeds)": ["pix0", "pix1"]}."""
  groups: dict[str, list[str]] = {}
  for name, key in keys.items():
    groups.setdefault(key, []).append(name)
  return {title_of(names): names for names in groups.values() if len(names) > 1}


def title_of(names: Sequence[str]) -> str:
  """What several names begin with, and how many they are."""
  stem = os.path.commonprefix(list(names)).rstrip("-_. ") or names[0]
  return f"{stem} ({len(names)} seeds)"


def with_seeds(card: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
  """The card, which says what its columns are seeds of."""
  seeds = seeds_of(keys)
  return {**card, **({"seeds": seeds} if seeds else {})}
