"""Cards: a number, how it was made, and with which others it may be ranked."""

import dataclasses
import importlib.metadata
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from jaxgen import files, forms
from jaxgen.errors import UserError, printable
from jaxgen.evaluation.protocols import Protocol
from jaxgen.evaluation.scores import HIGHER, LOWER
from jaxgen.files import digest, plain
from jaxgen.forms import NUMBER, Each, Whole

KIND = "jaxgen evaluation 1"
FORM = {
  "kind": {KIND},
  "protocol": {"name": str},
  "features": object,
  "reference": {"name": str},
  "samples": {"images?": Whole(0)},
  "scores": Each((*NUMBER, type(None))),
  "spread?": Each(NUMBER),
}
# What must be alike before numbers are ranked. Everything else on a card (the
# model, its sampler, seed and step, the machine) is what may be compared.
ALIKE = ("protocol", "features", "reference", "samples.images")
# Names of files may differ; what is in them may not. Older cards tell no size.
APART = ("reference.name", "reference.kind", "reference.statistics", "reference.size")


def versions() -> dict[str, str]:
  """Of what numbers depend on."""
  names = ("jaxgen", "jax", "jaxlib", "numpy", "scipy", "pillow")
  return {n: importlib.metadata.version(n) for n in names}


def head(
  protocol: Protocol,
  features: Mapping[str, Any],
  reference: Mapping[str, Any],
  samples: Mapping[str, Any],
) -> dict[str, Any]:
  """What is known of a card before anything is measured."""
  device = jax.devices()[0]
  how = dataclasses.asdict(protocol)
  del how["metrics"]  # which are made changes none of them
  return plain(
    {
      "kind": KIND,
      "protocol": how,
      "features": features,
      "reference": reference,
      "samples": samples,
      "device": {
        "platform": device.platform,
        "kind": device.device_kind,
        "count": jax.device_count(),
      },
      "versions": versions(),
    }
  )


def key_of(card: Mapping[str, Any]) -> str:
  """Sixteen hex digits that identify a head."""
  return digest(card)


def doubts(head: Mapping[str, Any]) -> list[str]:
  """What a reader of the numbers should know of samples and reference."""
  own, real = (head[k].get("size") for k in ("samples", "reference"))
  if own and real and own != real:
    return [
      f"samples are {own} and the reference {real}: what is lost by "
      "resizing one of them counts as a difference"
    ]
  return []


def load(path: str | os.PathLike) -> dict[str, Any]:
  """A card; UserError if the file is none."""
  try:
    card = forms.read(
      files.path(path), FORM, lambda why: f"{path} is no card of `jaxgen eval --protocol`: {why}"
    )
  except FileNotFoundError as e:
    raise UserError(f"there is no card {path}") from e
  if not card["scores"]:
    raise UserError(f"{path} is a card without scores")
  return card


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
  """Fields that must be alike and are not: "reference.sha256: x, not y"."""
  one, two = (flatten_dict(dict(card), sep=".") for card in (a, b))
  lines = []
  for field in sorted(one.keys() | two.keys()):
    must_be_alike = any(f"{field}.".startswith(f"{alike}.") for alike in ALIKE)
    x, y = one.get(field), two.get(field)
    if field == "reference.manifold" and not (x and y):
      continue  # one card tells of no precision, so that nothing is amiss
    if must_be_alike and field not in APART and x != y:
      lines.append(f"{field} is {json.dumps(x)} in one and {json.dumps(y)} in the other")
  return lines


def check_alike(cards: Mapping[str, Mapping[str, Any]]) -> None:
  """UserError naming what differs, unless all may be ranked."""
  (first, card), *others = cards.items()
  for name, other in others:
    if wrong := differences(card, other):
      more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
      raise UserError(f"{first} and {name} cannot be ranked: {wrong[0]}{more}")


def rank(cards: Mapping[str, Mapping[str, Any]]) -> str:
  """A table of cards side by side, the best of each line marked.

  Raises:
    UserError: the cards are not alike.
  """
  check_alike(cards)
  names = list(cards)
  metrics = list(dict.fromkeys(m for c in cards.values() for m in c["scores"]))
  rows = [["", *names]]
  for metric in metrics:
    values = [forms.number(cards[n]["scores"].get(metric)) for n in names]
    numbers = [v for v in values if v is not None and math.isfinite(v)]
    kind = metric.partition("@")[0]
    best = None
    if kind.startswith(LOWER):
      best = min(numbers, default=None)
    elif kind.startswith(HIGHER):
      best = max(numbers, default=None)
    rows.append(
      [metric] + ["-" if v is None else f"{v:.6g}" + ("*" if v == best else " ") for v in values]
    )
  return columns(rows) + "\n* the best"


def table(card: Mapping[str, Any]) -> str:
  """The numbers of a card, as text."""
  spread = card.get("spread") or {}
  number = lambda value: float("nan" if value is None else value)
  rows = [
    [name, f"{number(value):.6g}" + (f" ± {number(spread[name]):.2g}" if name in spread else "")]
    for name, value in card["scores"].items()
  ]
  n, reference = card["samples"].get("images"), card["reference"]["name"]
  images = "statistics" if n is None else f"{n:,} images"
  return columns(rows) + (
    f"\n{images} against {printable(reference)}, protocol {printable(card['protocol']['name'])}"
  )


def columns(rows: list[list[str]]) -> str:
  """Text in columns: the first to the left, the others to the right."""
  rows = [list(map(printable, row)) for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(
      cell.ljust(w) if i == 0 else cell.rjust(w)
      for i, (cell, w) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  )
