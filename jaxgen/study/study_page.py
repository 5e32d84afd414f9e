"""The page of a study: its template, filled for visitors or with the result."""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

from jaxgen.study import mos
from jaxgen.study.score import ENOUGH, Score, percent, percents

TEMPLATE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")


def fill(phase: str, nonce: str, **values: str) -> str:
  """The template with escaped values at its {{name}}s; 0 in parts not seen.

  Args:
    phase: Which part of the page is seen first.
    nonce: Of the Content-Security-Policy that the page is sent with.
    **values: What stands at those names.
  """
  values = {"test": "images", "rows": "[]", "noun": "pairs"} | values
  values |= {"phase": phase, "nonce": nonce}
  return re.sub(r"\{\{(\w+)\}\}", lambda m: html.escape(values.get(m[1], "0")), TEMPLATE)


def questions(num: int, seconds: float, matched: bool, low: bool, nonce: str) -> str:
  """The page that shows `num` pairs, each for some seconds."""
  return fill(
    "wait",
    nonce,
    title="Which one is the photograph from a camera?",
    num=str(num),
    seconds=f"{seconds:g} second{'' if seconds == 1 else 's'}",
    pairing="Both show the same scene."
    if matched
    else "The two are paired at random and show different things.",
    above="Above them is the small image that the computer made its own from." if low else "",
    hidden="" if low else "hidden",
  )


def clip_questions(num: int, matched: bool, nonce: str) -> str:
  """The page that plays `num` pairs of clips."""
  pairing = (
    "Both are of the same recording."
    if matched
    else "The two are paired at random and say different things."
  )
  return fill(
    "wait",
    nonce,
    test="pair",
    title="Which one is the recording?",
    num=str(num),
    lead=f"You will hear {num} pairs of clips. One of each pair is a recording, the other was "
    f"made by a computer. {pairing}",
  )


def ratings(num: int, nonce: str) -> str:
  """The page that plays `num` clips, to be rated from 1 to 5."""
  labels = json.dumps(mos.LABELS)
  return fill(
    "wait",
    nonce,
    test="mos",
    noun="clips",
    title="How good does it sound?",
    num=str(num),
    rows=labels,
    lead=f"You will hear {num} clips, one at a time. Rate how good each of them sounds, from 5, "
    "excellent, to 1, bad.",
  )


def opinions(systems: Sequence[mos.Opinion], nonce: str) -> str:
  """The page with mean opinion scores and their intervals."""
  if not systems:
    return fill("empty", nonce, title="Mean opinion scores")
  rows = json.dumps([o._asdict() for o in systems])
  ways = " and ".join(sorted({o.how for o in systems}))
  return fill("opinions", nonce, title="Mean opinion scores", test="mos", rows=rows, lead=ways)


def result(s: Score | None, seconds: float | None, nonce: str) -> str:
  """The page with the fool rate and its intervals; without seconds it is of clips."""
  if s is None:
    return fill("empty", nonce, title="Fool rate")
  low, high = s.interval
  wide_low, wide_high = s.clustered or (0.0, 0.0)
  return fill(
    "result",
    nonce,
    title="Fool rate",
    rate=percent(s.rate),
    interval=percents(s.interval),
    narrow_from=percent(low),
    narrow=percent(high - low),
    wide_from=percent(wide_low),
    wide=percent(wide_high - wide_low),
    bands="The taller, lighter band is that over visitors." if s.clustered else "",
    trials=f"{s.trials:,} by {s.visitors:,} visitor{'s' if s.visitors > 1 else ''}",
    clustered=f"{percents(s.clustered)}, as one visitor sees better than another (bootstrap)"
    if s.clustered
    else f"an interval from {ENOUGH} visitors on",
    thing="photograph" if seconds else "recording",
    seconds=f"{seconds:g} s" if seconds else "as often as was liked",
    median=f"{s.ms / 1000:.1f} s",
    left=percent(s.left),
  )
