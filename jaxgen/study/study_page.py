"""The pages: what visitors see, and what came of it."""
from jaxgen.study.score import ENOUGH, Score, between, percent
from jaxgen.study.script import SCRIPT
from jaxgen.study.style import CSS

QUESTION = "Which one is the photograph from a camera?"
FILES = {"/style.css": ("text/css", lambda: CSS),
         "/script.js": ("text/javascript", lambda: SCRIPT)}
HEAD = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">'
    "<title>{}</title></head>")

STUDY = """<body data-phase="wait">
<div id="progress"><div id="done"></div></div>
<main class="page" id="start">
  <h1 class="big">{question}</h1>
  <p class="lead">You will see {num} pairs of images. One of each pair was taken
  by a camera, the other was made by a computer. {pairing} {low}</p>
  <p class="lead">A pair disappears after {seconds}. Take your time to answer,
  and guess where you cannot tell.</p>
  <div class="keys"><span><kbd>←</kbd> or <kbd>F</kbd> the left one</span>
  <span><kbd>→</kbd> or <kbd>J</kbd> the right one</span>
  <span>or click it</span></div>
  <div class="row"><button class="act" id="begin">Begin</button>
  <span id="again" class="note" hidden>You have answered
  <span id="so-far"></span> so far.
  <button class="plain stranger">I am somebody else</button></span></div>
  <noscript><p class="warning">This page needs JavaScript.</p></noscript>
</main>
<main id="pair">
  <h1 aria-live="polite">{question}</h1>
  <p id="count"></p>
  {small}<div class="two">
    <button class="side" id="left" aria-label="the left one">
      <span class="frame"><img alt=""></span>
      <span class="keys"><kbd>←</kbd> <span class="touch">left</span></span>
    </button>
    <button class="side" id="right" aria-label="the right one">
      <span class="frame"><img alt=""></span>
      <span class="keys"><kbd>→</kbd> <span class="touch">right</span></span>
    </button>
  </div>
  <div id="time"><div id="left-time"></div></div>
</main>
<main class="page" id="end">
  <h1 class="big">Thank you.</h1>
  <p class="lead">In <span id="fooled"></span> of <span id="of"></span> pairs
  you took the computer's image for the photograph.</p>
  <div class="row"><a class="act" href="/result">All results</a>
  <button class="plain stranger">Another visitor</button></div>
</main>
<main class="page" id="error">
  <h1 class="big">Something went wrong.</h1>
  <p class="lead" id="why"></p>
  <p class="note">Your answers are safe: you will go on where you were.</p>
  <button class="act" id="retry">Try again</button>
</main>
<script src="/script.js"></script></body></html>
"""
SMALL = """<div class="low" id="low"><div class="frame"><img alt=""></div>
  what the computer was given</div>
  """


def study(num: int, seconds: float, matched: bool, low: bool) -> str:
  """The page that asks."""
  pairing = ("Both show the same scene." if matched else
             "The two are paired at random and show different things.")
  above = ("Above them is the small image that the computer made its own "
           "from.") if low else ""
  return HEAD.format(QUESTION) + STUDY.format(
      question=QUESTION, num=num, pairing=pairing, low=above,
      seconds=f"{seconds:g} second{'' if seconds == 1 else 's'}",
      small=SMALL if low else "")


def result(s: Score | None, seconds: float) -> str:
  """The page that answers."""
  if s is None:
    body = '<h1 class="big">No choices yet.</h1>'
  else:
    terms = [
        ("Trials", f"{s.trials:,} by {s.visitors:,} "
                   f"visitor{'s' if s.visitors > 1 else ''}"),
        ("95% interval", f"{between(s.interval)}, as if trials were "
                         "independent (Wilson)"),
        ("Over visitors", f"{between(s.clustered)}, as one visitor sees "
         "better than another (bootstrap)" if s.clustered else
         f"an interval from {ENOUGH} visitors on"),
        ("Shown for", f"{seconds:g} s; the median answer came after "
                      f"{s.ms / 1000:.1f} s"),
        ("Left chosen", f"{percent(s.left)} of the time; sides are drawn at "
                        "random")]
    bands = " The taller, lighter band is that over visitors." if (
        s.clustered) else ""
    listed = "".join(
        f"<dt>{k}</dt><dd>{v}</dd>" for k, v in terms)
    body = (
        f'<h1>Fool rate</h1><p class="big">The fake was taken for the '
        f"photograph in {percent(s.rate)} of trials.</p>"
        f'<div class="card"><div class="wide">{chart(s, 620)}</div>'
        f'<div class="narrow">{chart(s, 320)}</div></div>'
        f'<p class="note">Where nobody sees a difference, it is 50%.{bands}</p>'
        f"<dl>{listed}</dl>")
  return (HEAD.format("Fool rate") + '<body><div></div><main class="page '
          f'result">{body}</main></body></html>\n')


def chart(s: Score, width: int) -> str:
  """The rate with its intervals between 0 and 100%, as SVG."""
  left, right, y = 16, width - 24, 30
  x = lambda rate: left + (right - left) * rate
  parts = [
      f'<line class="grid" x1="{x(t)}" x2="{x(t)}" y1="8" y2="56"/>'
      f'<text x="{x(t)}" y="76" text-anchor="middle">{t:.0%}</text>'
      for t in (0, 0.25, 0.5, 0.75, 1)]
  parts.append(
      f'<line class="floor" x1="{x(.5)}" x2="{x(.5)}" y1="4" y2="58"/>')
  for kind, interval, half in (("band two-fold", s.clustered, 14),
                               ("band", s.interval, 8)):
    if interval:
      a, b = map(x, interval)
      parts.append(f'<rect class="{kind}" x="{a:.1f}" y="{y - half}" rx="4" '
                   f'width="{max(b - a, 1):.1f}" height="{2 * half}"/>')
  parts.append(f'<circle class="dot c0" cx="{x(s.rate):.1f}" cy="{y}" r="6"/>')
  label = f"{percent(s.rate)}, 95% interval {between(s.interval)}"
  return (f'<svg viewBox="0 0 {width} 84" role="img" aria-label="{label}">'
          f'{"".join(parts)}</svg>')
