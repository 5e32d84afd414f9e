"""The pages: what visitors see, and what came of it."""

from jaxgen.monitor.page_style import CSS as REPORT
from jaxgen.study.score import ENOUGH, Score, between, percent

CSS = (
  REPORT
  + """
html, body { height: 100%; }
body { display: grid; grid-template-rows: auto 1fr; }
main { width: 100%; max-width: 980px; padding-top: 32px; }
main.page { align-self: center; max-width: 700px; padding-bottom: 12vh; }
.big { font-size: clamp(26px, 5vw, 40px); font-weight: 650; color: var(--ink);
  letter-spacing: -0.015em; line-height: 1.2; margin: 4px 0 18px;
  text-wrap: balance; }
.lead { font-size: 18px; }
.keys { display: flex; flex-wrap: wrap; gap: 10px 26px; margin: 22px 0 30px;
  color: var(--muted); }
kbd { display: inline-block; min-width: 26px; padding: 1px 7px;
  margin-right: 3px; border: 1px solid var(--rule);
  border-bottom-width: 2px; border-radius: 6px;
  background: var(--card); color: var(--ink); text-align: center;
  font: 14px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
button { font: inherit; color: inherit; cursor: pointer; }
.act { display: inline-block; padding: 11px 26px; border: 0;
  border-radius: 10px; background: var(--ink); color: var(--page);
  font-weight: 600; }
.act:hover { opacity: .86; } a.act { text-decoration: none; }
.plain { padding: 8px 2px; border: 0; background: none; color: var(--muted);
  font-size: 14px; text-decoration: underline; text-underline-offset: 3px; }
.plain a { color: inherit; }
.row { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 22px; }
:focus-visible { outline: 3px solid var(--c0); outline-offset: 3px; }
#progress { height: 4px; background: var(--tint); }
#done { height: 100%; width: 0; background: var(--c0);
  transition: width .3s ease; }

main { display: none; }
main.page.result { display: block; }
[data-phase=start] #start, [data-phase=end] #end, [data-phase=error] #error,
[data-phase=load] #pair, [data-phase=shown] #pair, [data-phase=asked] #pair,
[data-phase=sent] #pair { display: block; }

#pair { text-align: center; align-self: center; padding-bottom: 9vh;
  --wide: 256px; --ratio: 1; --gap: 20px; }
#pair h1 { font-size: clamp(19px, 3vw, 25px); font-weight: 650;
  color: var(--ink); text-wrap: balance; }
#count { color: var(--muted); font-size: 14px; margin: 4px auto 22px;
  font-variant-numeric: tabular-nums; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: var(--gap);
  max-width: calc(2 * min(var(--wide), 58vh * var(--ratio)) + var(--gap));
  margin: 0 auto; }
.side { padding: 0; border: 0; background: none; border-radius: 8px; }
.frame { display: grid; place-items: center; overflow: hidden;
  aspect-ratio: var(--ratio); border-radius: 6px; background: var(--tint);
  box-shadow: inset 0 0 0 1px var(--rule); }
.frame::before { content: "?"; grid-area: 1 / 1; color: var(--muted);
  font-size: 34px; font-weight: 300; opacity: 0; }
.frame img { grid-area: 1 / 1; display: block; width: 100%; height: 100%;
  visibility: hidden; z-index: 1; }
[data-phase=shown] .frame img { visibility: visible; }
[data-phase=asked] .frame::before { opacity: 1; }
.side:hover .frame { box-shadow: 0 0 0 3px var(--rule); }
.side.chosen .frame { box-shadow: 0 0 0 3px var(--c0); }
.side .keys { justify-content: center; gap: 6px; margin: 12px 0 0;
  font-size: 14px; }
.low { margin: 0 auto 16px; color: var(--muted); font-size: 14px; }
.low .frame { margin: 0 auto 6px; width: clamp(64px, 14vh, 112px);
  border-radius: 8px; }
.low .frame::before { content: ""; }
.low img { image-rendering: pixelated; }
#time { height: 4px; max-width: 240px; margin: 20px auto 0; border-radius: 2px;
  background: var(--tint); overflow: hidden; }
#left-time { height: 100%; width: 100%; border-radius: 2px;
  background: var(--muted); transform-origin: left; transform: scaleX(0); }
[data-phase=shown] #left-time { animation: shrink var(--time) linear both; }
@keyframes shrink { from { transform: scaleX(1); }
  to { transform: scaleX(0); } }
.band { fill: var(--c0); opacity: .28; } .band.two-fold { opacity: .14; }
.result .card { margin: 26px 0 10px; }
@media (max-width: 640px) {
  main.page { padding-bottom: 32px; align-self: start; }
  #pair { padding: 22px 10px 16px; align-self: start; --gap: 8px; }
  .touch { display: none; }
}
@media (prefers-reduced-motion: reduce) {
  #done { transition: none; }
  [data-phase=shown] #left-time { animation-timing-function: steps(6); }
}
"""
)

SCRIPT = r"""
"use strict";
const at = id => document.getElementById(id);
const pause = ms => new Promise(go => setTimeout(go, ms));
let visit = null;   // {visitor, trial, trials, seconds, fooled at the end}
let since = 0;      // when the pair was shown, ms
let timer = 0;      // until it disappears

const phase = name => { document.body.dataset.phase = name; };
const is = (...names) => names.includes(document.body.dataset.phase);

async function post(path, data) {
  const reply = await fetch(path, {
    method: "POST", headers: {"Content-Type": "application/json"},
    body: JSON.stringify(data)}).catch(() => {
      throw new Error("The study does not answer: it may have ended."); });
  const told = await reply.json();
  // 409: another window went ahead; the reply says what is next.
  if (!reply.ok && reply.status !== 409) throw new Error(told.error);
  return told;
}

function fail(error) {
  clear();
  at("why").textContent = error.message;
  phase("error");
}

function clear() {  // images are gone, not merely hidden
  clearTimeout(timer);
  for (const image of document.querySelectorAll(".frame img"))
    image.removeAttribute("src");
}

async function come(visitor) {
  visit = await post("/visit", visitor ? {visitor} : {});
  try { localStorage.setItem("visitor", visit.visitor); } catch {}
  history.replaceState(null, "", "?visitor=" + visit.visitor);
  at("again").hidden = visit.trial === 0;
  at("so-far").textContent = visit.trial;
  at("begin").textContent = visit.trial ? "Go on" : "Begin";
  if (visit.trial >= visit.trials) return end();
  at("done").style.width = 100 * visit.trial / visit.trials + "%";
  phase("start");
}

async function ask() {
  at("done").style.width = 100 * visit.trial / visit.trials + "%";
  if (visit.trial >= visit.trials) return end();
  const {visitor, trial} = visit;
  const [images] = await Promise.all([
    post("/trial", {visitor, trial}), pause(350)]);
  if (images.error) { visit = images; return ask(); }
  for (const side of document.querySelectorAll(".side"))
    side.classList.remove("chosen");
  phase("load");
  at("count").textContent = `${trial + 1} of ${visit.trials}`;
  await Promise.all(Object.entries(images).map(([place, address]) => {
    const image = at(place).querySelector("img");
    image.src = address;
    return image.decode();
  })).catch(() => { throw new Error("An image of this pair is missing."); });
  const image = at("left").querySelector("img");
  const style = at("pair").style;
  style.setProperty("--wide", Math.max(256, image.naturalWidth) + "px");
  style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  style.setProperty("--time", visit.seconds + "s");
  phase("shown");
  since = performance.now();
  timer = setTimeout(() => { clear(); phase("asked"); }, 1000 * visit.seconds);
}

async function choose(choice) {
  if (!is("shown", "asked")) return;
  const ms = Math.round(performance.now() - since);
  phase("sent");
  clear();
  at(choice).classList.add("chosen");
  const {visitor, trial} = visit;
  try {
    visit = await post("/choice", {visitor, trial, choice, ms});
    await ask();
  } catch (error) { fail(error); }
}

function end() {
  at("done").style.width = "100%";
  at("fooled").textContent = visit.fooled;
  at("of").textContent = visit.trials;
  phase("end");
}

function begin() {
  if (!is("start")) return;
  phase("load");
  ask().catch(fail);
}

function stranger() {
  try { localStorage.removeItem("visitor"); } catch {}
  come(null).catch(fail);
}

document.addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const side = {ArrowLeft: "left", f: "left", F: "left",
                ArrowRight: "right", j: "right", J: "right"}[event.key];
  if (side && is("shown", "asked")) { event.preventDefault(); choose(side); }
  if (event.key === "Enter" && is("start") &&
      event.target.tagName !== "BUTTON") begin();
});
at("left").addEventListener("click", () => choose("left"));
at("right").addEventListener("click", () => choose("right"));
at("begin").addEventListener("click", begin);
at("retry").addEventListener("click", () => location.reload());
for (const button of document.querySelectorAll(".stranger"))
  button.addEventListener("click", stranger);

let stored = null;
try { stored = localStorage.getItem("visitor"); } catch {}
come(new URLSearchParams(location.search).get("visitor") || stored).catch(fail);
"""

QUESTION = "Which one is the photograph from a camera?"
FILES = {"/style.css": ("text/css", lambda: CSS), "/script.js": ("text/javascript", lambda: SCRIPT)}
HEAD = (
  '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
  '<meta name="viewport" content="width=device-width, initial-scale=1">'
  '<link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">'
  "<title>{}</title></head>"
)

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
  pairing = (
    "Both show the same scene."
    if matched
    else "The two are paired at random and show different things."
  )
  above = ("Above them is the small image that the computer made its own from.") if low else ""
  return HEAD.format(QUESTION) + STUDY.format(
    question=QUESTION,
    num=num,
    pairing=pairing,
    low=above,
    seconds=f"{seconds:g} second{'' if seconds == 1 else 's'}",
    small=SMALL if low else "",
  )


def result(s: Score | None, seconds: float) -> str:
  """The page that answers."""
  if s is None:
    body = '<h1 class="big">No choices yet.</h1>'
  else:
    terms = [
      ("Trials", f"{s.trials:,} by {s.visitors:,} visitor{'s' if s.visitors > 1 else ''}"),
      ("95% interval", f"{between(s.interval)}, as if trials were independent (Wilson)"),
      (
        "Over visitors",
        f"{between(s.clustered)}, as one visitor sees better than another (bootstrap)"
        if s.clustered
        else f"an interval from {ENOUGH} visitors on",
      ),
      ("Shown for", f"{seconds:g} s; the median answer came after {s.ms / 1000:.1f} s"),
      ("Left chosen", f"{percent(s.left)} of the time; sides are drawn at random"),
    ]
    bands = " The taller, lighter band is that over visitors." if (s.clustered) else ""
    listed = "".join(f"<dt>{k}</dt><dd>{v}</dd>" for k, v in terms)
    body = (
      f'<h1>Fool rate</h1><p class="big">The fake was taken for the '
      f"photograph in {percent(s.rate)} of trials.</p>"
      f'<div class="card"><div class="wide">{chart(s, 620)}</div>'
      f'<div class="narrow">{chart(s, 320)}</div></div>'
      f'<p class="note">Where nobody sees a difference, it is 50%.{bands}</p>'
      f"<dl>{listed}</dl>"
    )
  return (
    HEAD.format("Fool rate") + '<body><div></div><main class="page '
    f'result">{body}</main></body></html>\n'
  )


def chart(s: Score, width: int) -> str:
  """The rate with its intervals between 0 and 100%, as SVG."""
  left, right, y = 16, width - 24, 30
  x = lambda rate: left + (right - left) * rate
  parts = [
    f'<line class="grid" x1="{x(t)}" x2="{x(t)}" y1="8" y2="56"/>'
    f'<text x="{x(t)}" y="76" text-anchor="middle">{t:.0%}</text>'
    for t in (0, 0.25, 0.5, 0.75, 1)
  ]
  parts.append(f'<line class="floor" x1="{x(0.5)}" x2="{x(0.5)}" y1="4" y2="58"/>')
  for kind, interval, half in (("band two-fold", s.clustered, 14), ("band", s.interval, 8)):
    if interval:
      a, b = map(x, interval)
      parts.append(
        f'<rect class="{kind}" x="{a:.1f}" y="{y - half}" rx="4" '
        f'width="{max(b - a, 1):.1f}" height="{2 * half}"/>'
      )
  parts.append(f'<circle class="dot c0" cx="{x(s.rate):.1f}" cy="{y}" r="6"/>')
  label = f"{percent(s.rate)}, 95% interval {between(s.interval)}"
  return f'<svg viewBox="0 0 {width} 84" role="img" aria-label="{label}">{"".join(parts)}</svg>'
