"""What ends a verb with one line instead of a traceback."""

import contextlib
import difflib
import re
import traceback
from collections.abc import Iterable, Iterator

# What a terminal obeys or shows nothing of: control characters (C0, DEL, C1),
# marks that turn the direction of writing, line and paragraph separators, and
# the lone surrogates that stand for bytes of file names that are no UTF-8.
UNSEEN = re.compile(
  "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


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


@contextlib.contextmanager
def guarding(what: str) -> Iterator[None]:
  """Makes UserErrors of whatever is raised of what a stranger may have written.

  Where a config is not the user's own but came with a workdir, nobody has seen
  to its types: any library may be the first to stumble over it.
  """
  try:
    yield
  except (Diverged, OSError, MemoryError):
    raise
  except UserError as e:  # it says what, but not of whose config
    raise UserError(f"{what}: {e}") from e
  except Exception as e:
    if isinstance(e, RuntimeError) and not isinstance(e, NotImplementedError | RecursionError):
      raise  # the machine's, or of a process that died: no fault of a type
    text = " ".join(str(e).split())[:200]
    raise UserError(f"{what}: {type(e).__name__}: {text}") from e


def printable(text: object) -> str:
  """A name as one line that may be shown: what a terminal obeys is escaped."""
  return UNSEEN.sub(lambda c: _escaped(ord(c[0])), str(text))


def _escaped(code: int) -> str:
  """27 -> "\\x1b", 0x202e -> "\\u202e"; a byte as that byte."""
  if 0xDC80 <= code <= 0xDCFF:  # Python's for a byte that is no UTF-8
    code -= 0xDC00
  return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def nearest(word: str, words: Iterable[str]) -> str:
  """A suggestion to end a message with: "; did you mean ...?"."""
  close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
  if close:
    return f"; did you mean {close[0]!r}?"
  return f"; it knows {', '.join(sorted(k for k in words if k[0] != '_'))}"
