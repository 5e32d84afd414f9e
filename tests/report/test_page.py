"""The report answers, shows everything, hides nothing and calls no one."""

import copy
import html
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxgen.monitor import pictures
from jaxgen.report import charts, fields, verdict
from jaxgen.report.charts import seconds, short
from jaxgen.report.page import render
from jaxgen.report.verdict import sentence

F = "digits-cnn"
FRECHET = f"frechet@{F}"
NAMES = ("frechet", "precision", "recall", "coverage", "cas")


@pytest.fixture(autouse=True)
def draw_once(monkeypatch):
  """Pages of a test share most of their charts, and drawing takes time."""
  for name in ("lines", "trade_off", "progress"):
    draw, charted = getattr(charts, name), {}

    def remember(*args, draw=draw, charted=charted):
      if repr(args) not in charted:
        charted[repr(args)] = draw(*args)
      return charted[repr(args)]

    monkeypatch.setattr(charts, name, remember)


def metrics(*values):
  return {f"{k}@{F}": v for k, v in zip(NAMES, values, strict=True)}


def row(name, family, numbers, rate=None, **more):
  entry = {"label": "one pass", "knobs": {}, "nfe": 1, "samples_per_second": rate}
  return {
    "name": name,
    "family": family,
    "config": f"configs/{name}.py",
    "workdir": f"runs/{name}",
    "commands": [f"jaxgen train configs/{name}.py --workdir runs/{name}"],
    "params": 1_234_567,
    "train_seconds": 754.0,
    "train_images": 2_560_000,
    "step": 20_000,
    "peak_memory": 2**28,
    "grid": name,
    "metrics": numbers,
    "settings": {},
    "sampling": [entry],
    "curves": {
      "loss": {"net/loss": [[10, 1.0], [20, 0.5]]},
      "health": {"net/grad_norm": [[10, 3.0], [20, math.nan]]},
    },
    "warnings": [],
    **more,
  }


def steps(n):
  return {
    "label": f"{n} steps",
    "knobs": {"steps": n},
    "nfe": n,
    "samples_per_second": 18_000 / n,
    "metrics": {FRECHET: 1.5 + 100 / n},
  }


@pytest.fixture
def results():
  how = {"settings": {"steps": 50, "eta": 0.0}, "sampling": [steps(n) for n in (10, 50, 250)]}
  return {
    "dataset": "digits",
    "features": F,
    "created": "2025-01-02T03:04:05+00:00",
    "machine": {"device": "a fine machine"},
    "versions": {"jax": "0.9.9"},
    "counts": {"generated": 797},
    "real": {"grid": "real", "metrics": metrics(0.871, 0.962, 0.958, 0.981, 1)},
    "rows": [
      row("diffusion", "Diffusion", metrics(1.934, 0.941, 0.913, 0.952, 0.948), **how),
      row("gan", "GAN", metrics(4.12, 0.951, 0.701, 0.842, 0.881), 40_000),
      row("vae", "VAE", metrics(11.4, 0.802, 0.654, 0.688, None), 61_234),
    ],
  }


class Page(HTMLParser):
  """Collects tables, links and text, and checks that tags are balanced."""

  def __init__(self, page):
    super().__init__()
    self.open, self.tags, self.links, self.text, self.tables = [], [], [], [], []
    self.feed(page)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.links += [v for k, v in attrs if k in ("src", "href", "action")]
    assert not any(k.startswith("on") for k, _ in attrs)
    if tag not in ("meta", "img", "br"):
      self.open.append(tag)
    if tag == "table":
      self.tables.append([])
    if tag == "tr":
      self.tables[-1].append([])
    if tag in ("td", "th"):
      self.tables[-1][-1].append("")

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)
    if {"td", "th"} & set(self.open):
      self.tables[-1][-1][-1] += data


def png(seed=0):
  x = np.random.default_rng(seed).integers(0, 256, (4, 8, 8, 1), np.uint8)
  return pictures.png(pictures.grid(x))


def test_the_answer_stands_at_the_top(results):
  answer = "On digits, choose Diffusion for quality and diversity, and VAE for"
  assert sentence(results) == answer + " speed."
  text = "".join(Page(render(results)).text)
  assert text.index(answer) < text.index("Fréchet 1.93; real data 0.871")
  assert "61,200 samples a second; 1.53 times as fast as GAN" in text


def test_what_is_level_is_not_ranked(results):
  results["rows"][1]["metrics"][FRECHET] = 1.934 * 1.01
  results["rows"][1]["sampling"][0]["samples_per_second"] = 60_000
  quality, _, speed = verdict.picks(results)
  assert quality.winners == ("Diffusion", "GAN")
  assert speed.winners == ("VAE", "GAN")


def test_the_direction_of_each_metric(results):
  results["rows"] = [
    row("a", "A", {"high_quality": 0.9, "modes": 3}, 1.0),
    row("b", "B", {"high_quality": 0.2, "modes": 8}, 1.0),
  ]
  quality, diversity, _ = verdict.picks(results)
  assert quality.winners == ("A",) and diversity.winners == ("B",)
  worse = {k for k, m in fields.METRICS.items() if m.better < 0}
  assert worse == {"frechet", "kid", "kl", "am", "ndb"}


def test_speed_is_that_of_the_settings_that_were_judged(results):
  diffusion = results["rows"][0]
  entry = fields.chosen(diffusion)
  assert entry["label"] == "50 steps"
  assert fields.speed(entry) == 360
  assert fields.speed(fields.chosen(diffusion | {"samples_per_second": 355.0})) == 355
  assert fields.speed(fields.chosen(diffusion | {"settings": {"steps": 7}})) is None
  # Without a sweep there is one point.
  results["rows"][2] |= {"sampling": None, "samples_per_second": 1000.0}
  assert "VAE: 11.4, 1 s" in render(results)


def test_every_value_is_on_the_page(results):
  page = Page(render(results, {"real": png()}))
  main, cost, settings = page.tables
  titles = ["Real data", "Diffusion50 steps", "GANone pass", "VAEone pass"]
  assert [r[0] for r in main[2:]] == titles
  heads = ["Fréchet ↓", "Precision ↑", "CAS ↑", "Recall ↑", "Coverage ↑"]
  speeds = ["Samples / s ↑", "s / 1,000 ↓", "Evaluations ↓"]
  assert main[1][1:] == heads + speeds
  assert main[2][1:] == ["0.871", "0.962", "1", "0.958", "0.981"] + ["–"] * 3
  assert main[3][1:] == ["1.93", "0.941", "0.948", "0.913", "0.952", "360", "2.78", "50"]
  assert main[5][3] == "–"  # no accuracy where there are no labels
  assert cost[2][1:] == ["12:34", "2.56M", "20,000", "1,234,567", "256 MiB"]
  assert len(settings) == 1 + 5
  assert settings[1][1:] == ["10 steps", "1,800", "0.556", "10", "11.5"]
  text = "".join(page.text)
  for value in (
    *("jaxgen train configs/vae.py --workdir runs/vae", "a fine machine"),
    *("jax 0.9.9", "generated 797", F, "2025-01-02", "sampling eta 0.0"),
    *("net/grad_norm", "250", "real data 0.871"),
  ):
    assert value in text


def test_the_best_of_each_column_is_marked_and_real_data_never(results):
  best = re.findall(r'<td class="best" title="([^"]*)"', render(results))
  assert {"1.934", "0.951", "61234"} <= set(best)
  assert "0.871" not in best and "4.12" not in best


def test_nothing_is_fetched(results):
  page = render(results, {"real": png(), "diffusion": png(1), "gan": png(2), "vae": png(3)})
  parsed = Page(page)
  assert len(parsed.links) == 4
  assert all(v.startswith("data:image/png;base64,") for v in parsed.links)
  assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
  page = re.sub(r"data:image/png;base64,[^\"]*", "", page)
  assert not re.search(r"https?:|url\(|@import|//[a-z]", page)


def test_whatever_is_missing_becomes_a_dash_and_never_a_crash(results):
  complete = copy.deepcopy(results)

  def without(place, key):
    """The report with a value that is null, and without it."""
    for value in (None, ...):
      report = copy.deepcopy(complete)
      fields = place(report)
      fields[key] = value
      if value is ...:
        del fields[key]
      Page(render(report))

  for key in complete:
    without(lambda report: report, key)
  for key in complete["rows"][0]:
    without(lambda report: report["rows"][0], key)
  for key in ("label", "knobs", "nfe", "samples_per_second", "metrics"):
    without(lambda report: report["rows"][0]["sampling"][1], key)
  results["rows"].append({})
  assert set(Page(render(results)).tables[0][6][1:]) == {"–"}
  assert "no model has been measured" in "".join(Page(render({})).text)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -1e-5])
def test_odd_numbers_do_no_harm(results, bad):
  diffusion, gan, vae = results["rows"]
  diffusion["metrics"][FRECHET] = bad
  diffusion["sampling"][0]["metrics"][FRECHET] = bad
  diffusion["sampling"][0]["samples_per_second"] = bad
  gan["curves"]["loss"]["net/loss"] = [[1, bad], [2, None]]
  vae["curves"]["loss"] = {"net/loss": None}
  page = Page(render(results))
  if not math.isfinite(bad):
    assert page.tables[0][3][1] == str(bad)
    assert sentence(results).startswith("On digits, choose GAN for quality")


def test_numpy_numbers_are_numbers(results):
  plain = render(results)
  one = results["rows"][0]
  one["metrics"][f"cas@{F}"] = np.float64(0.948)
  one["params"] = np.int64(1_234_567)
  assert render(results) == plain
  one["metrics"][f"cas@{F}"] = np.float32(0.948)
  assert Page(render(results)).tables[0][3][3] == "0.948"


def test_hostile_names_are_text(results):
  evil = "<script>alert('x')</script>\"><img src=http://evil onerror=1>"
  label = "</text></svg><script>1</script>"
  results |= {"dataset": evil, "features": evil, "machine": {evil: evil}}
  one = results["rows"][0]
  one |= {"family": evil, "commands": [evil], "config": evil}
  one |= {"warnings": [evil], "settings": {"steps": 50, evil: evil}}
  one["sampling"][0]["label"] = label
  one["metrics"] |= {f"{evil}@{evil}": 0.5, FRECHET: evil}
  one["curves"]["health"][evil] = [[1, 2.0], [2, 3.0]]
  one["curves"]["loss"] = {evil: [[1, 2.0]], label: [[1, 2.0]]}
  page = render(results, {"real": png(), "diffusion": png()})
  parsed = Page(page)
  assert "script" not in parsed.tags
  assert len(parsed.links) == 2
  assert html.escape(evil) in page


def test_families_that_come_twice_are_told_apart(results):
  results["rows"][1]["family"] = "Diffusion"
  assert fields.labels(results["rows"]) == ["Diffusion (diffusion)", "Diffusion (gan)", "VAE"]


def words(chart):
  """Texts of a chart -> {text: (left, right, bottom)}, in its pixels."""
  boxes = {}
  for style, x, y, text in re.findall(
    r'<text style="([^"]*)" x="([-\d.]+)" y="([-\d.]+)"[^>]*>([^<]*)</text>', chart
  ):
    wide = 6.0 * len(text)
    anchor = re.search("anchor: ([a-z]*)|$", style)[1]
    left = float(x) - {"middle": wide / 2, "end": wide}.get(anchor, 0)
    boxes[text] = left, left + wide, float(y)
  return boxes


def test_ticks_are_short_and_no_values_are_too_odd():
  assert [short(v) for v in (0.25, 1500, 20_000, 3e6)] == ["0.25", "1500", "20k", "3M"]
  assert [seconds(v) for v in (0.01, 40, 900)] == ["10 ms", "40 s", "15 min"]
  for values in ([3.0], [0.0, 0.0], [-1e-9], [1e9], [1e-9, 1e9]):
    assert charts.lines("x", {"a": list(enumerate(values))}, 0)
  chart = charts.lines("x", {"a": [[0, 2.0], [100, 8.0]]}, 0)
  assert list(words(chart)) == ["0", "50", "100", "2", "4", "6", "8", "x"]


def test_charts_without_data_are_left_out():
  assert charts.lines("x", {"a": [], "b": [[1, math.nan]]}, 0) == ""
  empty = charts.Series("x", 0, [(0.0, 1.0, "a"), (1.0, math.inf, "b")])
  assert charts.trade_off([empty], 1.0, "y", False, 400, 300) == ""


def test_charts_are_in_the_colours_and_the_font_of_the_page():
  chart = charts.lines("x", {"a": [[1, 2.0], [2, 3.0]], "_b": [[1, 1.0]]}, 3)
  assert "var(--c3)" in chart and "var(--muted)" in chart and "font-family" not in chart
  assert not re.search("#(?!000000)[0-9a-f]{6}", chart)
  assert {"\N{ZERO WIDTH SPACE}a", "\N{ZERO WIDTH SPACE}_b"} <= words(chart).keys()


@pytest.mark.parametrize("up", [True, False])
def test_labels_in_the_trade_off_do_not_collide(up):
  points = [(n / 10, 100 / n, f"{n} steps") for n in (5, 10, 25, 50, 100)]
  points = [(x, 20 - y if up else y, text) for x, y, text in points]
  series = [
    charts.Series("Diffusion", 0, points),
    charts.Series("another", 1, [(x * 1.01, y, text) for x, y, text in points]),
    charts.Series("GAN", 2, [(0.02, 4.0, "one pass")]),
  ]
  chart = charts.trade_off(series, 0.9, "Fréchet", up, 340, 340)
  texts = words(chart)
  assert {"5 steps", "100", "real data 0.9", "0.1 s"} <= texts.keys()
  assert "<title>GAN, one pass: 4, 20 ms</title>" in chart
  boxes = list(texts.values())
  for i, (left, right, y) in enumerate(boxes):
    assert left >= 0 and right <= 345
    for other_left, other_right, other_y in boxes[:i]:
      assert abs(y - other_y) >= 10 or left >= other_right or right <= other_left


def test_a_codec_is_paid_for_or_its_cost_is_unknown(results):
  diffusion, gan, vae = results["rows"]
  known = {"workdir": "k", "step": 9, "train_seconds": 200.0, "train_images": 30_000, "flops": 2e12}
  diffusion |= {"train_seconds": 600.0, "flops": 3e12, "codec": known}
  gan |= {"train_seconds": 60.0, "flops": 1e12, "codec": {"workdir": "gone"}}
  vae |= {"flops": 4e12}
  page = render(results)
  assert page.count("of which codec") == 3
  assert "10:00 <small>of which codec 3:20" in page
  assert page.count("and its codec: cost unknown") == 3
  # What is unknown is not the least.
  assert 'class="best" title="600.0"' in page and 'class="best" title="60.0"' not in page
  assert f'class="best" title="{3e12}"' in page
