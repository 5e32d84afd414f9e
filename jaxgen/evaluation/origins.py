"""Where the pictures of a folder come from, as far as they say so."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxgen.files import digest

# What differs from picture to picture.
OF_ONE = ("index", "label", "class", "source")


def doubts(path: Path, infos: Mapping[str, int], count: int | None) -> list[str]:
  """Warnings of a folder with pictures of several makings, or of a part.

  Args:
    path: Of the folder.
    infos: What pictures say of how they were made ("": nothing), and how many
      say so.
    count: Pictures that there are; None: some were left out.
  """
  sets, numbers = {}, {}
  for text, n in infos.items():
    info = common(text)
    key = digest(info) if info else ""
    sets[key] = info
    numbers[key] = numbers.get(key, 0) + n
  order = sorted(sets, key=lambda k: -numbers[k])
  if len(order) > 1:
    largest = [f"{numbers[k]:,} of {in_short(sets[k])}" for k in order[:3]]
    more = len(order) - len(largest)
    return [
      f"{path} holds pictures of several makings: "
      + "; ".join(largest)
      + (f"; and {more} more" if more else "")
      + ". Are old ones among them?"
    ]
  info = sets[order[0]]
  num = info.get("num")
  if type(num) is int and count is not None and count != num:
    return [f"{path} holds {count:,} pictures of {in_short(info)}, which were {num:,}"]
  return []


def common(text: str) -> dict[str, Any]:
  """What a picture says of all that were made with it; {}: nothing."""
  try:
    return {k: v for k, v in json.loads(text).items() if k not in OF_ONE}
  except (AttributeError, ValueError, RecursionError):
    return {}


def in_short(info: Mapping[str, Any]) -> str:
  """Which model made a picture, its step and its seed."""
  if not info:
    return "unknown origin"
  words = [str(info.get("workdir", "a model"))[:80]]
  words += [f"{k} {str(info[k])[:20]}" for k in ("step", "seed") if k in info]
  return ", ".join(words)
