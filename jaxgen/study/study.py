"""Ask people which of two images a camera took: the fool rate of a model.

  jaxgen study --real photos/ --fake made/ --out study.jsonl
  jaxgen study --real photos/ --fake made/ --low small/ --out study.jsonl
  jaxgen study --report study.jsonl

A two-alternative forced choice, as SR3 was judged (Saharia et al. 2021, Sec.
4.3): a page on this machine shows one real and one fake image side by side for
a few seconds. Every choice is in the file before the next pair is seen; the
same command goes on with it.
"""

import math
import signal
import sys
import threading

from absl import flags

from jaxgen.errors import UserError, printable
from jaxgen.study import record
from jaxgen.study.pairs import PAIRINGS, find_pairs
from jaxgen.study.score import score, summary
from jaxgen.study.server import Server, Study


def define(values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  for name, default, text in (
    ("real", None, "folder of photographs"),
    ("fake", None, "folder of what a model made"),
    ("low", None, "folder of the small images that it was made from, which are shown, too"),
    ("out", None, "x.jsonl: every choice is added to it"),
    (
      "pairing",
      "auto",
      f"{', '.join(PAIRINGS)}: whether files of one name "
      "are one scene; auto: if most names are common",
    ),
    ("report", None, "x.jsonl: tell the fool rate of this study, and end"),
  ):
    flags.DEFINE_string(name, default, text, flag_values=values)
  for name, default, text in (
    ("num", 50, "pairs that each visitor sees"),
    ("port", 0, "where the page is; 0: any free one"),
    ("seed", 0, "of pairs, order and sides"),
  ):
    flags.DEFINE_integer(name, default, text, flag_values=values)
  flags.DEFINE_float("seconds", 3.0, "that a pair is seen", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """Runs the verb."""
  if values.report:
    _, choices, _ = record.read(values.report)
    print(summary(score(choices)))
    return
  if not (values.real and values.fake and values.out):
    raise UserError(
      "study needs --real=folder, --fake=folder and --out=x.jsonl; or --report=x.jsonl"
    )
  if values.num < 1:
    raise UserError(f"--num={values.num}: want at least 1")
  if values.seed < 0:
    raise UserError(f"--seed={values.seed}: want at least 0")
  if not 0 < values.seconds <= 3600 or math.isnan(values.seconds):
    raise UserError(f"--seconds={values.seconds:g}: want more than 0, at most 3600")
  paths = {"real": values.real, "fake": values.fake, "low": values.low or None}
  pairs = find_pairs(paths, values.pairing, values.seed, warn)
  num = min(values.num, pairs.count)
  if num < values.num:
    warn(f"there are {num} pairs, not {values.num}: visitors see {num}")
  server = Server(values.port)
  settings = paths | {"num": num, "seconds": values.seconds, "seed": values.seed}
  settings |= {"matched": pairs.matched, "pairs": pairs.digest}
  choices = record.Record(values.out, settings)
  server.study = Study(pairs, choices, num, values.seconds)
  serve(server)
  choices.close()
  print(summary(score(choices.rows)))


def serve(server: Server) -> None:
  """Serves until Ctrl-C or SIGTERM."""
  end = threading.Event()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: end.set())
  threading.Thread(target=server.serve_forever, daemon=True).start()
  print(f"study: {server.url} (results: {server.url}result; Ctrl-C ends)", flush=True)
  end.wait()
  server.shutdown()
  server.server_close()
  print(flush=True)


def warn(line: str) -> None:
  """Prints a line on stderr."""
  print(f"jaxgen: {printable(line)}", file=sys.stderr, flush=True)
