"""Where the pictures of a folder come from, as far as they say so."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxgen.files import digest

# What differs from picture to picture.
OF_ONE = ("index", "label", "class", "source")


def doubts(path: Path, made: Mapping[str, int], count: int | None) -> list[str]:
  """Warnings of a folder with pictures of several makings, or of a part.

  Args:
    path: Of the folder.
    made: What pictures say of how they were made ("": nothing), and how many
      say so.
    count: Pictures that there are; None: some were left out.
  """
  sets, numbers = {}, {}
  for text, n in made.items():
    key, info = whole(text)
    sets[key] = info
    numbers[key] = numbers.get(key, 0) + n
  order = sorted(sets, key=lambda k: -numbers[k])
  if len(order) > 1:
    told = [f"{numbers[k]:,} of {said(sets[k])}" for k in order[:3]]
    more = len(order) - len(told)
    return [
      f"{path} holds pictures of several makings: "
      + "; ".join(told)
      + (f"; and {more} more" if more else "")
      + ". Are old ones among them?"
    ]
  num = sets[order[0]].get("num")
  if type(num) is int and count is not None and count != num:
    return [f"{path} holds {count:,} pictures of {said(sets[order[0]])}, which were {num:,}"]
  return []


def whole(text: str) -> tuple[str, dict[str, Any]]:
  """What a picture says of all that were made with it, and a digest of that."""
  try:
    info = json.loads(text)
    info = {k: v for k, v in info.items() if k not in OF_ONE}
    return digest(info), info
  except (AttributeError, ValueError, RecursionError):
    return "", {}


def said(info: Mapping[str, Any]) -> str:
  """In short."""
  if not info:
    return "unknown origin"
  words = [str(info.get("workdir", "a model"))[:80]]
  words += [f"{k} {str(info[k])[:20]}" for k in ("step", "seed") if k in info]
  return ", ".join(words)
