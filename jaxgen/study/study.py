"""Ask people which of two images a camera took, or how good clips sound.

  jaxgen study --real photos/ --fake made/ --out study.jsonl
  jaxgen study --real photos/ --fake made/ --low small/ --out study.jsonl
  jaxgen study --real recordings/ --fake clips/ --out heard.jsonl
  jaxgen study --mos real=recordings/,diffwave=d/,wavegan=g.npz --out mos.jsonl
  jaxgen study --report study.jsonl

A two-alternative forced choice, as SR3 was judged (Saharia et al. 2021, Sec.
4.3): a page on this machine shows one real and one fake image side by side for
a few seconds; or plays one real and one fake clip, both to the end before an
answer counts. --mos is an opinion test (ITU-T P.800): clips of any systems are
played one at a time, and rated from 1 to 5; give real recordings as one more.
Every choice is in the file before the next question; the same command goes on
with it.
"""

import math
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from jaxgen import files
from jaxgen.errors import UserError, printable
from jaxgen.study import mos, record, sounds
from jaxgen.study.pairs import PAIRINGS, Pairs, find_clip_pairs, find_pairs
from jaxgen.study.ratings import Ratings, find_systems
from jaxgen.study.score import score, summary
from jaxgen.study.server import Server, Study

IN_BUCKETS = ("real", "fake", "low", "mos", "report")  # flags that take gs://bucket/name


def define(values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  for name, default, text in (
    ("real", None, "folder of photographs, or of recordings"),
    ("fake", None, "folder of what a model made; of clips also x.npz"),
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
    ("num", 50, "pairs that each visitor sees, or clips that each rates"),
    ("port", 0, "where the page is; 0: any free one"),
    ("seed", 0, "of pairs, order and sides"),
    ("rate", None, "of clips in a .npz that does not say it: samples a second"),
  ):
    flags.DEFINE_integer(name, default, text, flag_values=values)
  text = "name=folder or name=x.npz of each system, whose clips are to be rated"
  flags.DEFINE_list("mos", [], text, flag_values=values)
  flags.DEFINE_float("seconds", 3.0, "that a pair is seen", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """Runs the verb."""
  if values.report:
    settings, choices, _ = record.read(values.report)
    print(outcome(settings, choices))
    return
  check_flags(values)
  test, settings = open_ratings(values) if values.mos else open_pairs(values)
  num, noun = min(values.num, test.count), "clips" if values.mos else "pairs"
  if num < values.num:
    warn(f"there are {num} {noun}, not {values.num}: visitors see {num}")
  server = Server(values.port)
  settings |= {"num": num, "seed": values.seed}
  choices = record.Record(values.out, settings)
  server.study = Study(test, choices, num, values.seconds)
  serve(server)
  choices.close()
  print(outcome(settings, choices.rows))


def outcome(settings: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
  """The result of a study, in lines."""
  if record.is_opinion(settings):
    return mos.summary(mos.score(rows))
  return summary(score(rows))


def check_flags(values: flags.FlagValues) -> None:
  """UserError unless a study can begin so."""
  if not values.out or bool(values.mos) == bool(values.real and values.fake):
    raise UserError(
      "study needs --real=folder, --fake=folder and --out=x.jsonl; or --mos=name=folder,.. and "
      "--out; or --report=x.jsonl"
    )
  if values.num < 1:
    raise UserError(f"--num={values.num}: want at least 1")
  if values.seed < 0:
    raise UserError(f"--seed={values.seed}: want at least 0")
  if values.rate is not None and values.rate < 1:
    raise UserError(f"--rate={values.rate}: want samples a second, such as 16000")
  if not 0 < values.seconds <= 3600 or math.isnan(values.seconds):
    raise UserError(f"--seconds={values.seconds:g}: want more than 0, at most 3600")


def open_pairs(values: flags.FlagValues) -> tuple[Pairs, dict[str, Any]]:
  """Pairs of images, or of clips, and the settings that a record keeps of them."""
  paths = {"real": values.real, "fake": values.fake, "low": values.low or None}
  tops = [files.local(paths[kind]) for kind in ("real", "fake")]
  if not any(map(sounds.holds_sound, tops)):
    pairs = find_pairs(paths, values.pairing, values.seed, warn)
    return pairs, paths | {
      "seconds": values.seconds, "matched": pairs.matched, "pairs": pairs.digest
    }  # fmt: skip
  if paths.pop("low"):
    raise UserError("--low is of images: leave it")
  pairs = find_clip_pairs(paths, values.pairing, values.seed, values.rate, warn)
  settings = paths | {"matched": pairs.matched, "pairs": pairs.digest, "rate": pairs.rate}
  return pairs, settings | {"made": origins(pairs.folders)}


def open_ratings(values: flags.FlagValues) -> tuple[Ratings, dict[str, Any]]:
  """Clips to rate, and the settings that a record keeps of them."""
  systems = {}
  for text in values.mos:
    name, _, path = text.partition("=")
    if not (name and path) or name in systems:
      raise UserError(f"--mos={text}: want name=folder, each name once")
    systems[name] = path
  test = find_systems(systems, values.seed, values.rate, warn)
  settings = {"test": "mos", "systems": systems, "clips": test.digest, "rate": test.rate}
  return test, settings | {"made": origins(test.folders)}


def origins(folders: Mapping[str, Path]) -> dict[str, Any]:
  """How clips were made, where they say it."""
  return {name: sounds.origin(top) for name, top in folders.items()}


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
