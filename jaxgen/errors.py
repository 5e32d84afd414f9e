"""What ends a verb with one line instead of a traceback."""


class UserError(Exception):
  """What is wrong and what to do, in one line. Verbs print it and exit 2."""
  status = 2


class Diverged(UserError):
  """Training met non-finite updates time and again. Verbs exit 3."""
  status = 3
