"""The study's style sheet: the report's colours; from 320 pixels, light, dark.

What is seen depends on the phase that the script writes into the body.
"""
from jaxgen.monitor.page_style import CSS as REPORT

CSS = REPORT + """
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
