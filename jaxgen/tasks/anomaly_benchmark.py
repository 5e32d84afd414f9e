"""Which family finds anomalies best: digits it never saw, and spoilt photographs.

Of digits one class at a time is left out of training and has to be found in the
test split. Of photographs a model learns patches of seven, and has to find spots
that were spoilt in patches of three others, and where. Every model is a small
config without labels; OUT/anomaly.json grows by a row for each of its ways, and a
killed run goes on from there.
"""

import functools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import config, files, sharding, train
from jaxgen.checkpoint import meta
from jaxgen.data.blemishes import KINDS, spoil
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError, nearest
from jaxgen.experiment import Compiled, Experiment
from jaxgen.forms import NUMBER, Each, Whole
from jaxgen.metrics import detection
from jaxgen.monitor import pictures
from jaxgen.monitor.results import check_report
from jaxgen.sampling.sampler import Sampler, load
from jaxgen.tasks import anomaly_page, anomaly_table, ledger
from jaxgen.tasks.anomaly_scores import Scorer, choose, with_critic
from jaxgen.tasks.commands import announce, command_of

FAMILIES = {  # family -> its ways
  "gan": ("anogan", "fanogan"),
  "diffusion": ("reconstruction", "bound", "ode"),
  "simplex": ("reconstruction",),
  "vae": ("reconstruction", "elbo"),
}
SIDE = 32  # pixels of a photograph's patch
PATCHES = 120  # of the test photographs, half of them spoilt
# Steps of each training, where nobody says them.
STEPS = {
  "digits": {"gan": 1500, "encoder": 600, "diffusion": 800, "simplex": 800, "vae": 800},
  "photos": {"gan": 600, "encoder": 400, "diffusion": 600, "simplex": 600, "vae": 600},
}
KNOBS = {  # of ways, where they are not as by default: minutes, not hours
  "anogan": {"steps": 200.0, "lr": 0.05, "starts": 16.0},
  "reconstruction": {"repeats": 8.0, "fraction": 0.45},
}
ROW = {
  "case": str,
  "family": str,
  "way": str,
  "spec": str,
  "scores": Each(NUMBER),
  "intervals": Each([float]),
  "seconds": float,
  "train_seconds": float,
  "steps": Each(Whole(0)),
}
PLACE = ("case", "family")  # what rows are of, one for each way
FORM = {"benchmark": {*STEPS}, "made": object, "rows": [ROW]}


def run(values: flags.FlagValues) -> None:
  """The verb's benchmark; writes anomaly.json, .html, .md and pictures."""
  data = values.benchmark
  if data not in STEPS:
    raise UserError(f"--benchmark={data}: want {' or '.join(STEPS)}")
  cases = cases_of(data, values.classes)
  # On 8x8 pixels simplex noise is next to Gaussian.
  families = values.families or [f for f in FAMILIES if (data, f) != ("digits", "simplex")]
  for family in families:
    if family not in FAMILIES:
      raise UserError(f"--families={family}" + nearest(family, FAMILIES))
  home = files.path(values.out)
  check_report(home, "anomaly.json", ("anomaly.html", "anomaly.md"), ("benchmark", "rows"))
  bench = Bench(home, data, values, read(home / "anomaly.json", data))
  jobs = [(case, family) for case in cases for family in ("baseline", *families)]
  start = time.monotonic()
  for i, (case, family) in enumerate(jobs):
    bench.row_of(case, family, f"{i + 1}/{len(jobs)}", start)
  made = {"command": command_of("anomaly", values), "seed": values.seed}
  results = bench.save(made)
  text = anomaly_table.markdown_of(results, cases)
  files.write_text(home / "anomaly.md", text)
  files.write_text(home / "anomaly.html", anomaly_table.page(results, cases, home))
  print(text)


def cases_of(data: str, classes: Sequence[str]) -> list[str]:
  """What is to be found: a digit each, or a kind of blemish."""
  known = [str(i) for i in range(10)] if data == "digits" else list(KINDS)
  for word in classes:
    if word not in known:
      raise UserError(f"--classes={word}: want some of {','.join(known)}")
  return list(classes) or known


def read(path: pathlib.Path, data: str) -> list[dict[str, Any]]:
  """Rows of an earlier run."""
  report = ledger.read(path, FORM, "result of this benchmark")
  if report and report["benchmark"] != data:
    raise UserError(
      f"{path} is no result of this benchmark (it is of {report['benchmark']}): move it away"
    )
  return report["rows"] if report else []


class TestImages(NamedTuple):
  """What is scored.

  Attributes:
    x: uint8 [N, H, W, C].
    anomalous: bool [N].
    masks: Where, bool [N, H, W]; None: that means nothing.
    train: Images that models learn from, uint8 [M, H, W, C].
  """

  x: np.ndarray
  anomalous: np.ndarray
  masks: np.ndarray | None
  train: np.ndarray


@functools.cache
def test_of(data: str, case: str) -> TestImages:
  """The test images of a case."""
  if data == "digits":
    x, y = open_source("digits", "test").arrays()
    return TestImages(x, y == int(case), None, open_source(f"digits:without={case}").arrays()[0])
  x, _ = open_source("photos", "test", SIDE).arrays()
  x = x[np.random.default_rng(0).permutation(len(x))[:PATCHES]]
  anomalous = np.arange(len(x)) % 2 == 1
  bad, spots = spoil(x[anomalous], case, seed=1)
  x, masks = x.copy(), np.zeros(x.shape[:3], bool)
  x[anomalous], masks[anomalous] = bad, spots
  return TestImages(x, anomalous, masks, open_source("photos", "train", SIDE).arrays()[0])


class Bench:
  """Trains and scores what was not yet, and writes it down at once."""

  def __init__(
    self, home: pathlib.Path, data: str, values: flags.FlagValues, rows: list[dict[str, Any]]
  ):
    self.home, self.data, self.values, self.rows = home, data, values, rows
    self.steps: dict[str, Compiled] = {}  # train steps, which all cases share
    self.scorers: dict[tuple[str, str], Scorer] = {}
    self.made: dict[str, Any] = {}

  def row_of(self, case: str, family: str, place: str, start: float) -> None:
    """The rows of one family and one case, unless they are there."""
    spec = self.spec(case, family)
    if ledger.find(self.rows, {"case": case, "family": family, "spec": spec}, PLACE):
      return
    minutes = (time.monotonic() - start) / 60
    announce("anomaly", f"{place} after {minutes:.1f} min: {self.data}, {case}, {family}")
    test = test_of(self.data, case)
    if family == "baseline":
      rows = [("nearest", nearest_distance(test), 0.0, 0.0)]
      if test.masks is not None:
        rows.append(("edges", edges(test.x), 0.0, 0.0))
    else:
      rows = self.measure(case, family, test)
    parts = [] if family == "baseline" else self.parts(case, family)
    new, steps = [], {part: c.steps for part, c in parts}
    for way, result, seconds, trained in rows:
      rates = rates_of(result, test)
      new.append(
        {"case": case, "family": family, "way": way, "spec": spec}
        | {"scores": {k: r.value for k, r in rates.items()}}
        | {"intervals": {k: [r.low, r.high] for k, r in rates.items()}}
        | {"seconds": seconds, "train_seconds": trained, "steps": steps}
      )
      self.picture(case, family, way, result, test)
      shown = ", ".join(f"{k} {r.value:.3f}" for k, r in rates.items())
      announce("anomaly", f"  {family} {way}: {shown}")
    self.rows = ledger.put(self.rows, new, PLACE)
    self.save({})

  def save(self, made: Mapping[str, Any]) -> dict[str, Any]:
    """Writes all rows."""
    self.made |= made
    results = {"benchmark": self.data, "made": self.made, "rows": self.rows}
    files.write_json(self.home / "anomaly.json", results)
    return results

  def spec(self, case: str, family: str) -> str:
    """Digits that tell whether a row would be the same."""
    parts = [] if family == "baseline" else self.parts(case, family)
    return files.digest([config.as_json(c) for _, c in parts] + [KNOBS, self.values.seed])

  def parts(self, case: str, family: str) -> list[tuple[str, ConfigDict]]:
    """(folder, config) of all that a family trains, in order."""
    names = ("gan", "encoder") if family == "gan" else (family,)
    return [(part, self.config(case, part)) for part in names]

  def config(self, case: str, part: str) -> ConfigDict:
    """One training's."""
    digits = self.data == "digits"
    name = {
      "gan": f"anogan.py:{self.data}-gan",
      "encoder": f"anogan.py:{self.data}",
      "diffusion": f"anoddpm.py:{self.data}-gauss",
      "simplex": f"anoddpm.py:{self.data}",
      "vae": "digits_vae.py" if digits else f"images_vae.py:{SIDE}-small",
    }[part]
    c = config.load(f"configs/{name}")
    with c.unlocked():
      c.data.source = f"digits:without={case}" if digits else "photos"
      c.steps = self.values.steps or STEPS[self.data][part]
      c.seed = self.values.seed
      c.log.pictures = 0
      c.log.every = max(c.steps // 4, 1)
      c.checkpoint.every = max(c.steps // 2, 1)
      if part == "vae":
        c.data.classes = c.model.classes = c.model.net.classes = 0
        c.data.flip = False
      if part == "encoder":
        c.model.gan_workdir = str(self.folder(case, "gan"))
    return c

  def folder(self, case: str, part: str) -> pathlib.Path:
    """Where a training lies; photographs are learned once for all blemishes."""
    return self.home / "models" / (f"{part}-{case}" if self.data == "digits" else part)

  def measure(
    self, case: str, family: str, test: TestImages
  ) -> list[tuple[str, dict[str, np.ndarray], float, float]]:
    """(way, what was found, seconds of scoring, of training) of each way."""
    trained = {part: self.trained(case, part, c) for part, c in self.parts(case, family)}
    measured = []
    for way in FAMILIES[family]:
      sampler = trained["encoder" if way == "fanogan" else next(iter(trained))][0]
      if (family, way) not in self.scorers:
        self.scorers[family, way] = Scorer(sampler, choose(sampler, way)[1])
      scorer, start = self.scorers[family, way], time.perf_counter()
      knobs = {k: v for k, v in KNOBS.get(way, {}).items() if k in scorer.way.knobs}
      result = scorer(test.x, None, knobs, seed=self.values.seed, state=sampler.state)
      paid = sum(t[1] for t in trained.values())
      measured.append((way, result, time.perf_counter() - start, paid))
    return measured

  def trained(self, case: str, part: str, c: ConfigDict) -> tuple[Sampler, float]:
    """A model, trained unless it is, and the seconds that this took."""
    workdir = str(self.folder(case, part))
    if part not in self.steps:
      self.steps[part] = Compiled(Experiment.of(c), sharding.make_mesh())
    state = train.train(c, workdir, quiet=True, step=self.steps[part])
    if int(state.step) < c.steps:
      raise UserError(f"stopped in {workdir}: the same command goes on from there")
    return with_critic(load(workdir)), float(meta.latest(workdir).get("seconds") or 0)

  def picture(
    self, case: str, family: str, way: str, result: Mapping[str, np.ndarray], test: TestImages
  ) -> None:
    """The strangest of the anomalous images and of the others."""
    order = np.argsort(-result["score"], kind="stable")
    bad, good = (order[test.anomalous[order] == kind][:6] for kind in (True, False))
    image = anomaly_page.strip(test.x, result, np.concatenate([bad, good]))
    info = {"benchmark": self.data, "case": case, "family": family, "way": way}
    pictures.save_png(self.home / "pictures" / f"{case}-{family}-{way}.png", image, info)


def rates_of(result: Mapping[str, np.ndarray], test: TestImages) -> dict[str, detection.Rate]:
  """AUROC and AUPR of images; of pixels, in spoilt images, where there are maps."""
  rates = {
    "AUROC": detection.auc_interval(result["score"], test.anomalous),
    "AUPR": detection.precision_interval(result["score"], test.anomalous),
  }
  if test.masks is not None and "map" in result:
    maps, masks = result["map"][test.anomalous], test.masks[test.anomalous]
    rates["pixel AUROC"] = detection.pixel_auc(maps, masks)
  return rates


def nearest_distance(test: TestImages) -> dict[str, np.ndarray]:
  """How far the nearest training image is, a mean square of pixels: no model at all."""
  flat = lambda x: x.reshape(len(x), -1).astype(np.float32) / 127.5 - 1
  a, b = flat(test.x), flat(test.train)
  square = (a**2).mean(1)[:, None] + (b**2).mean(1) - 2 / a.shape[1] * a @ b.T
  return {"score": np.maximum(square.min(1), 0)}


def edges(x: np.ndarray) -> dict[str, np.ndarray]:
  """Squared differences from the mean of four neighbours: no model at all."""
  image = np.pad(x.astype(np.float32).mean(-1) / 127.5, ((0, 0), (1, 1), (1, 1)), "edge")
  around = image[:, :-2, 1:-1] + image[:, 2:, 1:-1] + image[:, 1:-1, :-2] + image[:, 1:-1, 2:]
  gap = (image[:, 1:-1, 1:-1] - around / 4) ** 2
  return {"score": gap.mean((1, 2)), "map": gap}
