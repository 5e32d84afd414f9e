"""What the study's page does: asks, shows, hides, listens, sends."""

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
