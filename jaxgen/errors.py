"""The one exception for a user's mistake: printed as a line, never a trace."""


class UserError(Exception):
  """What is wrong and what to do, in one line. Verbs print it and exit 2."""
