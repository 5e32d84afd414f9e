"""The page of a study: its template, filled for visitors or with the result."""

import html
import re
from pathlib import Path

from jaxgen.study.score import ENOUGH, Score, percent, percents

TEMPLATE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")


def fill(phase: str, nonce: str, **values: str) -> str:
  """The template with escaped values at its {{name}}s; 0 in parts not seen.

  Args:
    phase: Which part of the page is seen first.
    nonce: Of the Content-Security-Policy that the page is sent with.
    **values: What stands at those names.
  """
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


def result(s: Score | None, seconds: float, nonce: str) -> str:
  """The page with the fool rate and its intervals."""
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
    seconds=f"{seconds:g} s",
    median=f"{s.ms / 1000:.1f} s",
    left=percent(s.left),
  )
