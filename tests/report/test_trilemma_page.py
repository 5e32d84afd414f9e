"""The page and picture of a trilemma: all is said, names stand apart, nothing leaks."""

import copy
import itertools
import math
import re

import pytest

from jaxgen.report import charts, trilemma_page, trilemma_picture
from jaxgen.report.fields import RATE
from jaxgen.report.trilemma_picture import HEIGHT

NFE = (1, 2, 4, 8, 25)
FEATURES = "digits-cnn"
FAMILIES = {  # family: models with their best Fréchet distance and their slope
  "Diffusion": {"ddpm": (2.0, 1.0), "edm2": (1.7, 0.8)},
  "Consistency": {"consistency": (4.0, 0.05), "distilled": (2.6, 0.05)},
  "MeanFlow": {"meanflow": (3.2, 0.12)},
  "GAN": {"r3gan": (3.9, 0), "biggan_small": (6.0, 0), "diffusion_gan": (5.0, 0), "sngan": (9, 0)},
  "VAE": {"vae": (30.0, 0), "vae_large": (24.0, 0)},
}
TEACHER = {"role": "teacher", "workdir": "ddpm", "flops": 2e14, "train_seconds": 131.0}


def around(mean, part=0.0):
  return {"mean": mean, "low": mean * (1 - part), "high": mean * (1 + part)}


def point(model, sampler, axis, knobs, nfe, frechet, coverage, rate):
  return {
    **dict(model=model, sampler=sampler, axis=axis, knobs=knobs, nfe=nfe),
    **dict(trainings=2, spread={}),
    "scores": {
      f"frechet@{FEATURES}": around(frechet, 0.05),
      f"coverage@{FEATURES}": around(coverage, 0.02),
      RATE: around(rate, 0.03),
      "latency": around(2 / rate),
      "nfe": around(nfe),
    },
  }


def points_of(family, name, best, slope):
  if family in ("GAN", "VAE"):
    rate, knob = (5000, "truncation") if family == "GAN" else (9000, "temperature")
    for value, worse in ((0.5, 2.4), (0.8, 1.2), (None, 1.0)):
      knobs = {} if value is None else {knob: value}
      yield point(
        name, "", knob, knobs, 1, best * worse, 0.8 / worse / (1 + best / 30), rate + best
      )
    return
  for i, sampler in enumerate(("ddim", "dpmpp_2m", "heun") if family == "Diffusion" else ("",)):
    for n in NFE:
      frechet = best * (1 + (1 + i) * slope * (25 / n - 1) ** 1.2 / 8)
      coverage = 0.9 * math.exp(-(frechet / best - 1) * 0.05)
      yield point(name, sampler, "steps", {"steps": n}, n, frechet, coverage, (900 + best) / n)


@pytest.fixture(scope="module")
def results():
  """Of a dozen models, most with five points or more."""
  models, points = [], []
  for family, own in FAMILIES.items():
    for name, (best, slope) in own.items():
      points += points_of(family, name, best, slope)
      models.append(
        {
          **dict(name=name, family=family, params=10**6, workdirs=[f"{name}-0", f"{name}-1"]),
          **dict(flops=around(2.5e14), train_seconds=around(140.0), train_images=around(64e3)),
          "upstream": [TEACHER] if name == "distilled" else [],
        }
      )
  facts = {
    **dict(dataset="digits", features=FEATURES, num=1437, versions={}),
    **dict(judge={"features": FEATURES}, machine={"device_kind": "cpu"}, command="jaxgen trilemma"),
    "real": {"metrics": {f"frechet@{FEATURES}": 1.2, f"coverage@{FEATURES}": 0.95}},
    **dict(models=models, points=points),
  }
  return trilemma_page.judged(facts, [], RATE)


def test_names_stand_apart(results):
  """Of fifteen curves in either panel: no name over another, none outside."""
  for draw in (trilemma_picture.speed_panel, trilemma_picture.diversity_panel):
    with charts.canvas(660, HEIGHT) as (figure, axes):
      panel = draw(axes, results)
      figure.draw_without_rendering()
      boxes = trilemma_picture.place_names(axes, panel)
      assert len(boxes) == len(panel.curves) == 15
      for a, b in itertools.combinations(boxes, 2):
        assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]
      for left, low, right, top in boxes:
        assert axes.bbox.x0 <= left < right <= axes.bbox.x1
        assert axes.bbox.y0 <= low < top <= axes.bbox.y1


def test_better_is_up_and_to_the_right(results):
  for draw in (trilemma_picture.speed_panel, trilemma_picture.diversity_panel):
    with charts.canvas(660, HEIGHT) as (_, axes):
      panel = draw(axes, results)
      (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
      assert low < high and bottom > top  # of Fréchet distances less is better
      # The front of the panel goes down to the right, and no point is beyond it.
      xs, ys = panel.front.T
      assert (xs[1:] >= xs[:-1]).all() and (ys[1:] >= ys[:-1]).all()
      for _, own_x, own_y in panel.curves:
        for x, y in zip(own_x, own_y, strict=True):
          beyond = (xs >= x) if (xs >= x).any() else (xs == xs.max())
          assert y >= ys[beyond].min() - 1e-9 or x > xs.max()


def test_the_page_says_it_all(results):
  page = trilemma_page.render(results)
  for sentence in results["verdict"]:
    head, colon, rest = sentence.partition(":")
    assert charts.escape(head) in page and charts.escape(rest) in page
  assert "of which teacher 200 TFLOP" in page and "and its teacher: unknown" in page
  assert (
    page.count("<svg") == 4
    and "<script" not in page
    and "http" not in page.replace("http://www.w3.org", "")
  )
  best = sum(p["front"] for p in results["points"])
  assert page.count("<td>●</td>") == 2 * best  # on the front, and among all points
  assert f"All {len(results['points'])} points" in page
  assert "ddpm (heun, 25 evaluations)" in page  # where one points at a mark
  # Charts follow the theme: no colour of the light one is left in them.
  svg = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
  assert "var(--c0)" in svg and charts.THEME["c0"] not in svg


def test_strange_names_mean_nothing(results):
  odd = copy.deepcopy(results)
  name = "<b>$x_1$\x1b[31m"
  for thing in (*odd["models"], *odd["points"]):
    for field in ("name", "model"):
      if thing.get(field) == "vae":
        thing[field] = name
  odd["dataset"] = "<i>digits"
  page = trilemma_page.render(odd)
  assert "<b>$" not in page and "<i>digits" not in page and "\x1b" not in page
  assert "&lt;b&gt;$x_1$" in page
  image = trilemma_picture.png(odd)
  assert image.shape == (1520, 3120, 3) and image.std() > 10


def test_what_was_not_measured_is_not_drawn(results):
  """A judge without diversity, a model without known cost, a point that failed."""
  bare = copy.deepcopy(results)
  for p in bare["points"]:
    del p["scores"][f"coverage@{FEATURES}"]
  bare["points"][0]["scores"][f"frechet@{FEATURES}"] = around(math.nan)
  bare["models"][0] |= {"flops": None, "train_seconds": None, "train_images": None}
  told = trilemma_page.judged(bare, [], "latency")
  assert [a[0] for a in told["axes"]] == ["Quality", "Speed"]
  assert not told["points"][0]["front"]
  assert "nothing is good and fast at once" in told["verdict"][0]
  page = trilemma_page.render(told)
  assert page.count("<svg") == 2
  trilemma_picture.png(told)
