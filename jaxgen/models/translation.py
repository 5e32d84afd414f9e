"""What models that make images of images share: where the images to translate come from."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from jaxgen.core import Array, Batch
from jaxgen.errors import UserError


def from_data(x: Array) -> Array:
  """Stands in `cond` for a source that the data bring, shaped like x.

  What it makes, x itself, gives shapes alone: data without sources are refused
  before the first step, see `core.OPTIONAL["wants"]`.
  """
  return x


def wants_of(cond: Mapping[str, Callable | None]) -> tuple[str, ...]:
  """Names of the conditions for which `from_data` stands."""
  plain = lambda make: make.func if isinstance(make, functools.partial) else make
  return tuple(name for name, make in cond.items() if plain(make) is from_data)


def source_of(batch: Batch, cond: Mapping[str, Callable]) -> Array:
  """The images to translate [B, H, W, C]: the batch's own, or made of x."""
  return batch["source"] if "source" in batch else cond["source"](batch["x"])


def apart(a: Array, b: Array) -> Any:
  """The mean absolute difference, L1."""
  return abs(a - b).mean()


def with_options(make: Callable, options: Mapping[str, Any]) -> Callable:
  """What makes a condition, by other arguments: the quality of a JPEG.

  Raises:
    UserError: The config names no argument like that.
  """
  if not options:
    return make
  own = make.keywords if isinstance(make, functools.partial) else {}
  if missing := [name for name in options if name not in own]:
    raise UserError(f"{missing[0]}: what makes this model's sources takes none: leave it")
  return functools.partial(make.func, **{**own, **options})


def same_maker(a: Callable, b: Callable) -> bool:
  """Whether two conditions of configs are made alike: by one function, of equal arguments."""
  parts = lambda f: (f.func, f.keywords) if isinstance(f, functools.partial) else (f, {})
  return parts(a) == parts(b)
