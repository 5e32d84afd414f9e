"""A part of a data set by its name: "digits:without=3", "folder:/my/images:first=20".

Options stand behind the last colon, one or several:

  without=3,7   all but these classes, by number or by name
  only=3        these classes alone
  first=20      of each class the first 20 examples, of the training split alone;
                of data without labels the first 20

Labels keep their numbers, and `classes` its count, so that a model of a part and
one of the whole know the same classes.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from jaxgen.data.arrays import Arrays, Source
from jaxgen.data.clips import Clips
from jaxgen.data.holdout import Rows
from jaxgen.data.image import Files
from jaxgen.errors import UserError, nearest

KEYS = ("without", "only", "first")
FORM = re.compile(rf"(.+):((?:{'|'.join(KEYS)})=[^:]*)", re.DOTALL)
COUNT = re.compile(r"0*[1-9]\d{0,8}", re.ASCII)
Options = dict[str, list[str]]


def parted(name: str) -> tuple[str, Options]:
  """ "digits:without=3,7" -> "digits", {"without": ["3", "7"]}; {} without options.

  Raises:
    UserError: An option is unknown, empty, or stands twice.
  """
  match = FORM.fullmatch(name)
  if not match:
    return name, {}
  options: Options = {}
  for word in match[2].split(","):
    key, equals, value = word.rpartition("=")
    if equals and (key not in KEYS or key in options):
      raise UserError(f"{name}: {key}= " + ("twice" if key in options else "is no option of data"))
    options.setdefault(key or next(reversed(options)), []).append(value)
  for key, values in options.items():
    counts = key == "first"
    if "" in values or counts and not (len(values) == 1 and COUNT.fullmatch(values[0])):
      want = "20" if counts else "3 or 3,7"
      raise UserError(f"{name}: {key}={','.join(values)}: want such as {key}={want}")
  return match[1], options


def subset(source: Source, options: Options, split: str, name: str) -> Source:
  """The examples that options choose, in their order.

  Args:
    source: All of them, of a split.
    options: As `parted` gives them; none: the source itself.
    split: Of the source.
    name: Of the data set with its options, which becomes that of the part.

  Raises:
    UserError: It has no labels, or not these, or nothing would be left.
  """
  if not options:
    return source
  y = source.arrays()[1]
  keep = np.ones(len(source), bool)
  for key in ("without", "only"):
    if key in options:
      if y is None:
        raise UserError(f"{name}: {key}= names classes, and these data have no labels")
      chosen = np.isin(y, [class_number(source, word) for word in options[key]])
      keep &= chosen if key == "only" else ~chosen
  if "first" in options and split == "train":
    keep &= _places(np.where(keep, 0 if y is None else y, -1)) < int(options["first"][0])
  if not keep.any():
    raise UserError(f"{name}: there are no such examples")
  rows = np.flatnonzero(keep)
  if isinstance(source, Clips):
    return dataclasses.replace(source.take(rows), name=name)
  return Rows(source, rows, source.notes, name)


def class_number(source: Source, word: str) -> int:
  """A class by its name or its number. UserError if there is none such."""
  names: Sequence[str] = source.class_names
  if word in names:
    return names.index(word)
  if word.isascii() and word.isdecimal() and int(word) < source.classes:
    return int(word)
  known = nearest(word, names) if names else f": want 0 to {source.classes - 1}"
  raise UserError(f"{source.name} has no class {word!r}{known}")


def _places(y: np.ndarray) -> np.ndarray:
  """Of each example, how many of its label stand before it, [N]."""
  order = np.argsort(y, kind="stable")
  ordered = y[order]
  starts = np.searchsorted(ordered, ordered)
  places = np.empty(len(y), np.int64)
  places[order] = np.arange(len(y)) - starts
  return places


def names_of(source: Source) -> list[str]:
  """What to call each example: the name of its file, or its number."""
  if isinstance(source, Rows):
    names = names_of(source.base)
    return [names[i] for i in source.rows]
  original = source.original if isinstance(source, Arrays) else None
  if isinstance(original, Files):
    return list(original.names)
  return [str(i) for i in range(len(source))]
