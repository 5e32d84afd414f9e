"""JSON that somebody may have edited, or that came from a stranger.

What a file should hold is said as a form:

  str, int, float, bool, object   a value of that type; any number is a float
  Whole(0)                        a whole number, at least 0
  {"a", "b"}                      one of these strings
  [form]                          a list of such values
  {"field": form, "field?": form} an object; fields with "?" may be missing or
                                  null. Other fields are free, or as "" says
  Each(form)                      an object of any fields with such values
  (form, form)                    either of them

JSON knows no nan or infinity: numbers that a file claims to be such are none.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxgen import files
from jaxgen.errors import UserError

DEEPEST = 32  # levels; what we write has 8
LARGEST = 2**53  # beyond, a float is no whole number any more
NUMBER = (float, bool, {"nan", "inf", "-inf"})  # as `files.plain` writes it
WORDS = {
  str: "a string",
  int: "a whole number",
  float: "a finite number",
  bool: "true or false",
  dict: "an object",
  list: "a list",
  type(None): "null",
}


class Each(NamedTuple):
  """An object whose values all have this form."""

  form: Any


class Whole(NamedTuple):
  """A whole number, at least this."""

  least: int


def read(path: str | os.PathLike, form: Any, damage: Callable[[str], str]) -> Any:
  """What a file holds.

  Args:
    path: Of the file.
    form: See above.
    damage: From what is wrong to the line of the UserError.

  Raises:
    FileNotFoundError: there is none.
    UserError: it is no file, no JSON, or of another form.
  """
  path = files.path(path)
  if path.exists() and not path.is_file():
    raise UserError(damage("it is no file"))
  return loads(path.read_bytes(), form, damage)


def loads(text: str | bytes, form: Any, damage: Callable[[str], str]) -> Any:
  """The same of what was read already."""
  try:
    value = json.loads(text)
  except (ValueError, RecursionError) as e:
    why = str(e) if isinstance(e, ValueError) else "it is nested too deeply"
    raise UserError(damage(f"it is no JSON: {why}")) from e
  if why := misfit(value, form):
    raise UserError(damage(why))
  return value


def misfit(value: Any, form: Any) -> str | None:
  """The first thing in which a value of JSON is not of a form, or None."""
  return _too_deep(value) or _misfit(value, form, "")


def number(value: Any) -> Any:
  """A NUMBER as a number; anything else as it is."""
  if isinstance(value, str) and value in NUMBER[-1]:
    return float(value)
  return value


def _misfit(value, form, at):
  if isinstance(form, tuple) and type(form) is tuple:
    wrong = [_misfit(value, f, at) for f in form]
    return wrong[0] if all(wrong) else None
  if isinstance(form, Whole):
    good = type(value) is int and form.least <= value <= LARGEST
    return None if good else _said(at, value, f"a whole number, at least {form.least}")
  if isinstance(form, set):
    good = isinstance(value, str) and value in form
    return None if good else _said(at, value, " or ".join(sorted(form)))
  if isinstance(form, list):
    if not isinstance(value, list):
      return _said(at, value, "a list")
    parts = [(f"{at}[{i}]", v, form[0]) for i, v in enumerate(value)]
  elif isinstance(form, Mapping | Each):
    if not isinstance(value, dict):
      return _said(at, value, "an object")
    parts, missing = _fields(value, form, f"{at}." if at else "")
    if missing:
      return missing
  else:
    good = form is object or _is(value, form)
    return None if good else _said(at, value, WORDS[form])
  return next((w for a, v, f in parts if (w := _misfit(v, f, a))), None)


def _fields(value, form, at):
  """[(where, value, form)] of an object's fields; what is missing, or None."""
  if isinstance(form, Each):
    return [(f"{at}{k}", v, form.form) for k, v in value.items()], None
  parts = []
  rest = form.get("", object)
  named = {key.removesuffix("?"): (key, own) for key, own in form.items() if key}
  for name, (key, own) in named.items():
    if key == name and name not in value:
      return [], f"{at}{name} is missing"
    if key == name or value.get(name) is not None:
      parts.append((f"{at}{name}", value[name], own))
  return parts + [(f"{at}{k}", v, rest) for k, v in value.items() if k not in named], None


def _is(value, kind):
  if kind is float:  # (numpy has no number for a larger int)
    return (
      abs(value) <= LARGEST
      if type(value) is int
      else (type(value) is float and math.isfinite(value))
    )
  return type(value) is kind


def _said(at, value, want):
  text = repr(value) if isinstance(value, str | int | float | None) else (WORDS[type(value)])
  text = text if len(text) < 60 else f"{text[:60]}..."
  return f"{at or 'it'} is {text}: want {want}"


def _too_deep(value):
  """Level by level, for those who come after go down by recursion."""
  level = [value]
  for _ in range(DEEPEST):
    level = [
      v
      for x in level
      if isinstance(x, dict | list)
      for v in (x.values() if isinstance(x, dict) else x)
    ]
    if not level:
      return None
  return f"it is nested more than {DEEPEST} levels deep"
