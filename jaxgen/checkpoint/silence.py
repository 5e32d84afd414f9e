"""One failed read or write, one line of ours: not Orbax's twenty tracebacks.

Every error that is silenced here has also been raised, to code that reports
it. TensorStore echoes it once per array that was under way: into event loops
that are closed by then, or into futures that nobody waits for any more.
"""
import logging
import sys
import traceback
import warnings


def hush() -> None:
  """Silences those echoes, and nothing else, for the rest of the process."""
  for name in ("absl", "asyncio"):
    logger = logging.getLogger(name)
    if not_an_echo not in logger.filters:
      logger.addFilter(not_an_echo)
  if not isinstance(sys.unraisablehook, _Hook):
    sys.unraisablehook = _Hook(sys.unraisablehook)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited",
                            RuntimeWarning)  # we have none of our own


def not_an_echo(record: logging.LogRecord) -> bool:
  """False for tracebacks logged by Orbax, out of it, or by TensorStore."""
  if not record.exc_info:
    return True
  if record.name == "asyncio" and "never retrieved" in record.getMessage():
    return False  # we have no futures of our own
  _, error, trace = record.exc_info
  places = [frame.filename for frame in traceback.extract_tb(trace)]
  return not (any("orbax" in place for place in [record.pathname, *places])
              or "tensorstore_spec" in str(error))


class _Hook:
  """A sys.unraisablehook that knows the echoes; others go on to `before`."""

  def __init__(self, before):
    self.before = before

  def __call__(self, unraisable):
    error, source = unraisable.exc_value, unraisable.object
    code = getattr(source, "cr_code", None)  # of a coroutine nobody awaited
    late = isinstance(error, RuntimeError) and "loop is closed" in str(error)
    if not (late or (code and "orbax" in code.co_filename)):
      self.before(unraisable)
