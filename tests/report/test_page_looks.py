"""The page of a choice: its order, its words, and how it looks in a browser."""

import copy
import html
import io
import re

import choices
import numpy as np
import PIL.Image
import pytest
from browser import PATH, Browser
from test_page import Page, png

from jaxgen.monitor import pictures, table
from jaxgen.report import charts, page_parts
from jaxgen.report.page import render

SECTIONS = [
  "What would change the answer",
  "Quality against training time",
  "Quality, diversity and speed at once",
  "Samples",
  "Copies",
  "What went wrong",
  "Quality, diversity, speed, cost",
  "Next",
  "Do it again",
  "How the numbers were made",
]
WIDTHS = (400, 1100, 1280)
# What is wider than its place, but for what is to be scrolled or folded.
TOO_WIDE = """[...document.querySelectorAll('main *')].filter(e =>
  !e.closest('.scroll, .strip, svg, details, .span') &&
  (e.getBoundingClientRect().right > innerWidth || e.scrollWidth > e.clientWidth + 1
   && getComputedStyle(e).display !== 'inline')).map(e => e.outerHTML.slice(0, 99))"""
# Words of charts that stick out of them, or lie on each other.
CUT = """[...document.querySelectorAll('svg')].filter(s => s.clientWidth).flatMap(s => {
  const box = s.getBoundingClientRect(), boxes = [], cut = []
  for (const t of s.querySelectorAll('text')) {
    const b = t.getBoundingClientRect()
    if (b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1)
      cut.push(t.textContent)
    for (const [c, text] of boxes)
      if (b.left < c.right - 2 && c.left < b.right - 2
          && b.top < c.bottom - 4 && c.top < b.bottom - 4)
        cut.push(`${t.textContent} on ${text}`)
    boxes.push([b, t.textContent])
  }
  return cut
})"""


@pytest.fixture(scope="module")
def results():
  return choices.results()


@pytest.fixture(scope="module")
def page(results):
  return render(results, choices.images())


@pytest.fixture
def no_charts(monkeypatch):
  for name in ("lines", "trade_off", "progress"):
    monkeypatch.setattr(charts, name, lambda *_: "")


def test_the_verdict_is_first_and_the_sections_follow(page):
  assert re.findall("<h2>(.*?)</h2>", page) == SECTIONS
  text = " ".join("".join(Page(page).text).split())
  assert text.index("choose Diffusion for quality, VAE for speed") < text.index(SECTIONS[0])
  assert page.count("too close to call</span>") == 1  # diversity
  for words in (
    *("The answer stands on all of the budget of 30m.", "One training of each model was seen"),
    *("More time. GAN led in quality at 25% of the budget; Diffusion leads from 50% on.",),
    *("6.25% to 25%", "50% to 100%", "real data 1.64", "real data 0.95"),
    *("7.1% are nearer than new images should be; of real test images 0.8%",),
    *("Collapsed. Recall fell from", "Blurry. Precision is", "Saturated discriminator. Step"),
    *(
      "Nothing went wrong",
      "jaxgen train --config images_diffusion:32-small",
      "257 images held out",
    ),
    *("30m in all, in equal shares of training time of each model", "Student's t over sets"),
    *("3.92", "PFLOP", "1.50 GiB", "0:38"),
  ):
    assert words in text, words


def test_every_picture_is_there_once(page):
  links = Page(page).links
  pictures = 1 + 3 * 5 + 3  # real data, rounds, copies
  assert len(links) == len(set(links)) == pictures


def test_what_may_be_as_good_as_the_best_is_marked_too(page):
  quality, _, cost, *_ = Page(page).tables
  assert [r[0] for r in quality[3:]] == ["Gaussian of pixels", "Diffusion16 steps", "GAN", "VAE"]
  coverage = [m for m in re.findall(r'<td( class="best")? title="0\.8[63]', page)]
  assert coverage.count(' class="best"') == 2
  assert all(r[1] == "10:00" for r in cost[2:])
  assert 'class="best" title="600.0"' not in page  # all spent the same


def test_an_answer_so_far_says_so(no_charts):
  early = render(choices.results(rounds=2), {})
  assert "so far: 12.5% of the budget" in early
  assert "Collapsed" not in early
  first = render(choices.results(rounds=1), {})
  assert "A short training" not in first and "Who leads" not in first


def test_hostile_words_are_text(no_charts):
  evil = "<script>alert('x')</script>\"><img src=http://evil onerror=1>"
  results = choices.results()
  results |= {"trust": evil, "changes": [evil, f"{evil}: {evil}"], "survey": [evil]}
  results["budget"] |= {"text": evil, "kind": evil}
  for i, row in enumerate(results["rows"]):
    row |= {"family": f"{evil}{i}", "stopped": evil, "next": [evil], "warnings": [evil]}
    row["rounds"][0] |= {"images": evil, "seconds": evil, "step": evil}
    row["copies"] |= {"share": evil}
  images = {key: png() for key in choices.images()}
  parsed = Page(render(results, images))
  assert "script" not in parsed.tags and len(parsed.links) == 1 + 3 * 5
  assert html.escape(evil) in render(results)


def test_what_is_missing_does_no_harm(results, no_charts):
  fields = ["budget", "survey", "trust", "changes", "verdict", "counts", "real"]
  of_rows = [
    "intervals",
    "rounds",
    "copies",
    "bits_per_dim",
    "stopped",
    "next",
    "curves",
    "metrics",
  ]
  of_rounds = ["share", "seconds", "images", "flops", "step", "metrics", "spread", "grid"]
  for key in fields + of_rows + of_rounds:
    report = copy.deepcopy(results)
    row = report["rows"][1]
    place = report if key in fields else row if key in of_rows else row["rounds"][2]
    place[key] = None
    Page(render(report, {}))
    del place[key]
    Page(render(report, {}))


def test_large_pictures_shrink_to_what_is_seen():
  noise = np.random.default_rng(0).integers(0, 256, (16, 128, 128, 3), np.uint8)
  large = pictures.png(pictures.grid(noise, 4))
  small = page_parts.shrink(large, 420)
  assert len(small) < len(large)
  assert PIL.Image.open(io.BytesIO(small)).width == 420
  assert page_parts.shrink(small, 420) == small
  plain = pictures.png(pictures.grid(np.zeros((64, 64, 64, 1), np.uint8), 8, pad=0))
  assert len(page_parts.shrink(plain, 100)) <= len(plain)


def test_numbers_have_three_digits():
  assert [table.number(x) for x in (3.0, 0.5, 12.0, 99.96, 256.0, 7, 0.0)] == [
    *("3.00", "0.500", "12.0", "100", "256", "7", "0")
  ]


@pytest.mark.parametrize("up", [True, False])
def test_the_name_of_the_floor_keeps_off_the_dots(up):
  """The last point of a curve is nearly as good as real data."""
  points = [(n, 1.7 + 20 / n**2, f"{n} steps") for n in (1, 4, 16, 64)]
  points = [(x, 20 - y if up else y, text) for x, y, text in points]
  floor = 20 - 1.64 if up else 1.64
  for size in ((340, 320), (520, 380)):
    chart = charts.trade_off([charts.Series("A", 0, points)], floor, "y", up, *size)
    (place,) = re.findall(r'x="([\d.]+)" y="([\d.]+)"[^>]*>real data', chart)
    dots = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', chart)
    (x, y), wide = map(float, place), 6.5 * len("real data 1.64")
    left = x - wide if "text-anchor: end" in chart.partition("real data")[0][-250:] else x
    for dot in dots[-4:]:
      dot_x, dot_y = map(float, dot)
      apart = max(left - dot_x, dot_x - left - wide, y - 11 - dot_y, dot_y - y)
      assert apart > 5, (size, place, dot)


needs_browser = pytest.mark.skipif(PATH is None, reason="there is no browser")


@needs_browser
def test_nothing_is_cut_on_a_phone_a_screen_or_paper(page, tmp_path):
  (tmp_path / "page.html").write_text(page)
  with Browser() as browser:
    for width in WIDTHS:
      for dark in (False, True):
        browser.look(width, 900, dark)
        browser.go((tmp_path / "page.html").as_uri())
        browser.wait("document.readyState === 'complete' && document.querySelector('dl')")
        assert browser.run("document.documentElement.scrollWidth") == width
        assert browser.run(TOO_WIDE) == []
        assert browser.run(CUT) == []
      if width > 1000:  # all columns of all tables are seen
        assert browser.run(
          "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
        )
    browser.look(720, 1000)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.run("document.documentElement.scrollWidth") == 720
    assert browser.run(TOO_WIDE) == []
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@needs_browser
def test_a_crowd_with_long_names_finds_room(no_charts, tmp_path):
  results = choices.results()
  results["dataset"] = f"folder:/{'a-long-name-without-a-break' * 3}"
  again = copy.deepcopy(results["rows"])
  for row in again:
    row["name"] += "_with_a_very_long_name_of_its_own"
  results["rows"] += again
  (tmp_path / "page.html").write_text(render(results, choices.images()))
  with Browser() as browser:
    for width in WIDTHS:
      browser.look(width, 900)
      browser.go((tmp_path / "page.html").as_uri())
      browser.wait("document.readyState === 'complete' && document.querySelector('dl')")
      assert browser.run("document.documentElement.scrollWidth") == width
      assert browser.run(TOO_WIDE) == []
