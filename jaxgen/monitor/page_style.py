"""The report's style sheet: light and dark, from 360 pixels to wide screens."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #fbfaf7; --card: #ffffff; --ink: #1d1f23; --muted: #63676f;
  --rule: #e3e1da; --tint: #f1efe8; --good: #e3f1e6; --good-ink: #14532d;
  --alert: #fdf0d9; --alert-ink: #7a4a00;
  --c0: #2563c9; --c1: #c2560f; --c2: #15803d; --c3: #8b3fc4; --c4: #b3184f;
  --c5: #0e7490; --c6: #7a5c10; --c7: #57606a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171b; --card: #1d2026; --ink: #e9e8e4; --muted: #a0a4ad;
    --rule: #343841; --tint: #262a31; --good: #173823; --good-ink: #9be3b2;
    --alert: #3b2d12; --alert-ink: #f4cd85;
    --c0: #74a5ff; --c1: #ff9d5c; --c2: #5fd08a; --c3: #c995f5; --c4: #ff7fa6;
    --c5: #56c6dc; --c6: #d8b456; --c7: #a3adb8;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px;
  overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.2; margin: 0; font-weight: 650; }
h1 { font-size: 17px; color: var(--muted); font-weight: 500; }
h2 { font-size: 21px; margin: 52px 0 6px; }
h3 { font-size: 15px; }
p { margin: 0 0 14px; max-width: 72ch; }
.note, figcaption, dd, .meta { color: var(--muted); font-size: 14px; }
.verdict {
  font-size: clamp(24px, 4.2vw, 38px); line-height: 1.2; font-weight: 650;
  letter-spacing: -0.015em; margin: 10px 0 28px; max-width: 26em;
  text-wrap: balance; overflow-wrap: anywhere;
}
.verdict.long { font-size: clamp(19px, 2.6vw, 25px); max-width: 44em; }
.picks { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); }
.card { background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; padding: 16px 18px; min-width: 0; }
.picks .axis { font-size: 13px; color: var(--muted); display: flex; flex-wrap: wrap;
  justify-content: space-between; gap: 2px 8px; }
.picks .winner { font-size: 20px; font-weight: 650; margin: 2px 0 4px;
  overflow-wrap: break-word; }
.picks .winner.many { font-size: 16px; line-height: 1.35; }
.close { float: right; background: var(--alert); color: var(--alert-ink);
  font-weight: 600; border-radius: 6px; padding: 0 8px; }
.spans { margin: 10px 0 12px; font-size: 14px; font-variant-numeric: tabular-nums; }
.span { display: flex; flex-wrap: wrap; justify-content: space-between;
  margin-bottom: 7px; line-height: 1.5; column-gap: 8px; overflow-wrap: anywhere; }
.span > :nth-child(2) { margin-left: auto; white-space: nowrap; }
.span small { color: var(--muted); font-size: 12.5px; }
.track { flex: 0 0 100%; position: relative; height: 8px;
  background: var(--tint); border-radius: 4px; }
.track i, .track u { position: absolute; top: 0; height: 100%;
  background: var(--own); border-radius: 4px; }
.track i { opacity: 0.4; }
.track u { width: 8px; margin-left: -4px; }
header > .note { margin: 14px 0 0; max-width: none; }
ul { margin: 6px 0 0; padding-left: 20px; }
li { margin: 0 0 6px; max-width: 88ch; }
.legend span, h1, h3 { min-width: 0; overflow-wrap: anywhere; }
.pair { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }
.leads { display: flex; gap: 4px; margin-top: 10px; }
.leads > div { min-width: 0; overflow-wrap: anywhere; font-size: 14px; }
.leads b, .leads small { display: block; line-height: 1.35; }
.leads small { color: var(--muted); }
.marks { display: flex; height: 10px; gap: 2px; margin-bottom: 4px; }
.marks i { flex: 1; }
.strip { display: grid; gap: 14px; overflow-x: auto; align-items: start;
  margin-top: 12px; grid-auto-flow: column; justify-content: start;
  grid-template-columns: 112px; grid-auto-columns: minmax(112px, 210px); }
.strip p { margin: 0; font-size: 15px; font-weight: 600; }
.strip figcaption { margin-top: 4px; line-height: 1.35; }
.finding { font-size: 15px; margin: 8px 0 0; max-width: 88ch; }
.finding.wrong { border-left: 3px solid var(--c1); padding-left: 10px; }
.finding.fine { color: var(--good-ink); }
.samples { display: grid; gap: 18px;
  grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); }
figure { margin: 0; min-width: 0; }
section > figure + figure { margin-top: 22px; }
figure img { width: 100%; display: block;
  border: 1px solid var(--rule); border-radius: 6px; background: #fff; }
figcaption { margin-top: 8px; overflow-wrap: anywhere; }
figcaption b, .meta b { color: var(--ink); }
.missing { aspect-ratio: 1; display: grid; place-items: center;
  border: 1px dashed var(--rule); border-radius: 6px; color: var(--muted); }
.scroll { overflow-x: auto; background: var(--card); border-radius: 10px;
  border: 1px solid var(--rule); }
table { border-collapse: collapse; width: 100%; font-size: 15px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 9px 11px; text-align: right; white-space: nowrap; }
thead th { font-weight: 500; font-size: 13px; color: var(--muted);
  vertical-align: bottom; line-height: 1.3; }
thead .group th { border-bottom: 1px solid var(--rule); text-align: center;
  color: var(--ink); font-weight: 650; font-size: 14px; }
thead .group th + th { border-left: 1px solid var(--rule); }
tbody th { text-align: left; font-weight: 600; position: sticky; left: 0;
  background: var(--card); }
tbody small, thead small { display: block; font-weight: 400;
  color: var(--muted); font-size: 12.5px; }
tbody tr { border-top: 1px solid var(--rule); }
tbody tr.real th, tbody tr.real td { background: var(--tint); }
td.best { background: var(--good); color: var(--good-ink); font-weight: 650; }
td.none { color: var(--muted); }
.swatch { display: inline-block; width: 10px; height: 10px; margin-right: 8px;
  border-radius: 50%; background: var(--muted); }
.listen td, .listen th { text-align: left; padding: 7px 9px; vertical-align: middle; }
.listen td { min-width: 196px; }
.listen img { display: block; width: 100%; height: 84px; border-radius: 5px;
  image-rendering: auto; }
.listen audio { display: block; width: 100%; height: 30px; margin-top: 4px; }
.narrow { display: none; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; }
svg > text { font-size: 12px; fill: var(--muted); }
.grid { stroke: var(--rule); stroke-width: 1; }
.floor { stroke: var(--muted); stroke-width: 1.5; stroke-dasharray: 5 5; }
.dot { stroke: var(--card); stroke-width: 1.5; fill: var(--c0); }
.scroll + .scroll { margin-top: 14px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin-bottom: 10px;
  font-size: 14px; font-weight: 600; }
.family { margin-top: 18px; }
.charts { display: grid; gap: 12px 24px; margin-top: 10px;
  grid-template-columns: repeat(auto-fill, minmax(min(290px, 100%), 1fr)); }
.warning { background: var(--alert); color: var(--alert-ink); font-size: 14px;
  border-radius: 8px; padding: 9px 13px; margin: 10px 0 0; max-width: none; }
pre { margin: 8px 0 0; padding: 12px 14px; background: var(--tint);
  border-radius: 8px; overflow-x: auto; font-size: 13.5px; line-height: 1.6;
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
dl { display: grid; grid-template-columns: fit-content(240px) minmax(0, 1fr);
  gap: 6px 22px; margin: 14px 0 0; }
dt { font-size: 14px; font-weight: 600; overflow-wrap: anywhere; }
 dd { margin: 0; min-width: 0;
  overflow-wrap: anywhere; max-width: 80ch; }
summary { cursor: pointer; font-size: 14px; color: var(--muted);
  padding: 12px 0; }
.card summary { padding-bottom: 0; }
@media screen and (max-width: 640px) {
  main { padding: 24px 16px 48px; }
  h2 { margin-top: 40px; }
  .wide { display: none; } .narrow { display: block; }
  .samples { grid-template-columns: 1fr 1fr; gap: 12px; }
  .strip { grid-template-columns: none; grid-auto-columns: 132px; gap: 10px; }
  .strip p { grid-row: 1; grid-column: 1 / span 4; }
  .strip figure { grid-row: 2; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  h1 .close { float: none; display: inline-block; margin: 6px 0; }
  th, td { padding: 8px 11px; }
  thead .group th { text-align: left; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 2px; } dd { margin-bottom: 8px; }
}
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  :root { --page: #ffffff; }
  main { padding: 0; max-width: none; }
  .verdict { font-size: 26px; }
  table { font-size: 12.5px; }
  th, td { padding: 5px 7px; }
  thead th, thead .group th { font-size: 12px; }
  tbody small { font-size: 11px; }
  .picks, .pair { grid-template-columns: 1fr 1fr; }
  .samples { grid-template-columns: repeat(4, 1fr); }
  .strip { grid-template-columns: 90px; grid-auto-columns: minmax(0, 1fr); }
  h2, h3, .note { break-after: avoid; }
  .card, .scroll, figure, .span, pre { break-inside: avoid; }
  .card.family { break-inside: auto; }
  .scroll, .strip, pre { overflow: visible; }
  pre { white-space: pre-wrap; }
}
"""
