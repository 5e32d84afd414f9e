"""What tasks say of themselves: their command, and how far they are."""

import shlex
import sys

from absl import flags

from jaxgen.errors import printable


def command_of(verb: str, values: flags.FlagValues) -> str:
  """The command that a user gave, for a shell that takes names as they are."""
  words = [f"jaxgen {verb}"]
  for name in sorted(values):
    flag = values[name]
    if "." in name or len(name) < 2 or not flag.present or flag.value is None:
      continue
    value = ",".join(map(str, flag.value)) if isinstance(flag.value, list) else flag.value
    words.append(f"--{name}={shlex.quote(str(value))}")
  return " ".join(words)


def announce(verb: str, text: str) -> None:
  """Progress of a verb, as a line on stderr."""
  print(f"[{verb}] {printable(text)}", file=sys.stderr, flush=True)
