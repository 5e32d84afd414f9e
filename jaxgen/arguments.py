"""What the arguments that configs give may be: their kinds and their ranges.

One name means one thing everywhere in models, nets, rules and optimisers, so a
range stands here once, not in each of them.
"""
import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgen.errors import UserError

LARGEST = 2 ** 31 - 1  # that arrays of int32 count to
SEEDS = 2 ** 32  # jax.random knows no more: larger ones are others again

# The least that a whole number may be, where it is not 1.
WHOLE = {name: 0 for name in (
    "classes", "labels", "warmup", "lazy", "depth", "layers", "embed", "tables",
    "spare", "attend", "halvings", "fine", "mapped", "pad", "octaves", "y")}
# Least and most of other numbers; what is not here may be any finite number.
BEYOND = math.nextafter(0, 1)  # "more than 0"
REAL = {
    **dict.fromkeys((
        "lr", "eps", "weight_decay", "images", "ramp", "beta", "std", "weight",
        "weight_fake", "gamma", "noise", "churn", "snr", "s_min", "s_max",
        "s_noise", "blur", "floor", "lo", "eta", "truncation", "temperature",
        "cutoff"), (0, math.inf)),
    **dict.fromkeys((
        "sigma", "sigma_data", "sigma_min", "sigma_max", "clip", "clip_weights",
        "bound", "clamp", "kimg", "rho", "period", "mults", "width", "bend",
        "most", "hi"), (BEYOND, math.inf)),
    **dict.fromkeys(("b1", "b2", "momentum", "w_beta", "dropout"),
                    (0, math.nextafter(1, 0))),
    **dict.fromkeys((
        "label_drop", "smoothing", "mixing", "p", "share", "decay", "frac",
        "beta_1", "beta_T", "level", "truncate"), (0, 1)),
    "first": (BEYOND, 1),
}
# What a list of is never empty.
SOME = ("widths", "groups", "mults", "taps")


def check(where: str, args: Mapping[str, Any],
          known: Mapping[str, inspect.Parameter]) -> None:
  """UserError for a value of another kind, or out of range.

  Args:
    where: Whose arguments, such as "optim.adam".
    args: Their values.
    known: The signature, whose annotations say what is wanted.
  """
  for name, value in args.items():
    want = misfit(name, value, known[name].annotation)
    if want:
      raise UserError(f"{where}: {name}={value!r}: want {want}")
  low, high = (args.get(k, known[k].default) if k in known else None
               for k in ("lo", "hi"))
  if type(low) in (int, float) and type(high) in (int, float) and low >= high:
    raise UserError(f"{where}: lo={low!r}, hi={high!r}: want lo below hi")


def misfit(name: str, value: Any, kind: Any) -> str | None:
  """What is wanted in place of a value; None if it will do."""
  origin, inner = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    wants = [misfit(name, value, k) for k in inner]
    return next(iter(wants)) if all(wants) else None
  if kind is types.NoneType:
    return None if value is None else "None"
  if origin is Sequence and inner and inner[0] in (int, float):
    if not isinstance(value, tuple) or (name in SOME and not value):
      return "a list of numbers"
    return next(filter(None, (misfit(name, v, inner[0]) for v in value)), None)
  if kind is int:
    least = WHOLE.get(name, 1)
    fits = type(value) is int and least <= value <= LARGEST
    return None if fits else (
        f"a whole number, {least} or more" if type(value) is not int or
        value < least else f"at most {LARGEST}")
  if kind is float:
    low, high = REAL.get(name, (-math.inf, math.inf))
    if type(value) not in (int, float) or math.isnan(value):
      return "a number"
    return None if low <= value <= high else span(low, high)
  if kind in (bool, str) and not isinstance(value, kind):
    return "true or false" if kind is bool else "a word"
  return None


def span(low: float, high: float) -> str:
  """ "at least 0, below 1" and the like."""
  least = "more than 0" if low == BEYOND else f"at least {low:g}"
  if high == math.inf:
    return least
  return least + (", below 1" if high < 1 else f", at most {high:g}")
