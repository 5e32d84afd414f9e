"""What ends a verb with one line instead of a traceback."""
import contextlib
import traceback
from collections.abc import Iterator


class UserError(Exception):
  """What is wrong and what to do, in one line. Verbs print it and exit 2."""
  status = 2


class Diverged(UserError):
  """Training met non-finite updates time and again. Verbs exit 3."""
  status = 3


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
  """Makes UserErrors about `what` of the ValueErrors that our own code raises.

  Those of libraries are somebody's defect, and keep their traceback.
  """
  try:
    yield
  except ValueError as e:
    *_, (frame, _) = traceback.walk_tb(e.__traceback__)
    if not frame.f_globals["__name__"].startswith("jaxgen."):
      raise
    raise UserError(f"{what}: {e}") from e


def printable(text: object) -> str:
  """Text of strangers, fit for a terminal: control characters are escaped."""
  return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
