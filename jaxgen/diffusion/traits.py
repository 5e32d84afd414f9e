"""What samplers and paths declare beside their signature.

@declare(nfe=lambda n: 2 * n - 1, knobs=("churn",), takes=("process",))
def heun(denoise, x_T, path, n, key, churn=0.0, process=EDM()): ...
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Traits(NamedTuple):
  """Declared of a function.

  Attributes:
    nfe: Number of points -> evaluations of the denoiser.
    knobs: Arguments that can be turned when sampling, with their defaults.
    takes: What it has to be given by name, such as the process.
  """

  nfe: Callable[[int], int] | None = None
  knobs: dict[str, float] = {}
  takes: tuple[str, ...] = ()


_DECLARED: dict[Callable, Traits] = {}


def declare(
  nfe: Callable[[int], int] | None = None, knobs: Sequence[str] = (), takes: Sequence[str] = ()
) -> Callable[[Callable], Callable]:
  """A decorator that records the traits of a function, which it returns."""

  def record(f: Callable) -> Callable:
    parameters = inspect.signature(f).parameters
    _DECLARED[f] = Traits(nfe, {k: parameters[k].default for k in knobs}, tuple(takes))
    return f

  return record


def traits(f: Any) -> Traits:
  """Traits of a function, or of a partial, whose arguments are its defaults.

  TypeError for what is neither.
  """
  if not callable(f):
    raise TypeError(f"{f!r} is no function")
  if not isinstance(f, functools.partial):
    return _DECLARED.get(f, Traits())
  own = traits(f.func)
  return own._replace(knobs={k: f.keywords.get(k, v) for k, v in own.knobs.items()})
