"""How well attributes are met, and how little else moves: methods side by side.

Real images of the test split say what is asked for: sample i shall have the
attribute of real image i, one attribute at a time, and else stay as it is.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core, files
from jaxgen.checkpoint.meta import latest, settings
from jaxgen.data.sources import open_split
from jaxgen.errors import UserError
from jaxgen.evaluation.judge import ImageJudge, open_judge
from jaxgen.evaluation.learned import logits
from jaxgen.metrics.distances import frechet_rows
from jaxgen.monitor import pictures
from jaxgen.monitor.results import check_report
from jaxgen.monitor.table import aligned
from jaxgen.report.page_numbers import Column
from jaxgen.report.task_page import Gallery, Picture, Table, facts_of, render
from jaxgen.sampling.attribute_sampling import Attribute, EncoderControl, GuidedControl, Request

Control = EncoderControl | GuidedControl
SHOWN, VALUES = 6, 5  # samples of a picture, and how many values each is given
NOTE = (
  "Units are standard deviations of an attribute in real test images. Asked for are the values "
  "that these have. 'Uncontrolled' is the same error of samples as they come; 'others' is by how "
  "much the other attributes of a sample changed; likeness is the cosine of the judge's features "
  "of a sample before and after; same class: as the judge sees it."
)


class Result(NamedTuple):
  """One method and one attribute.

  Attributes:
    method: Name of the method.
    attribute: Of the attribute that was asked for.
    numbers: By name.
    passes: What a sample costs.
    png: Samples (rows): as they come, then with rising values.
  """

  method: str
  attribute: str
  numbers: dict[str, float]
  passes: str
  png: bytes


class Real(NamedTuple):
  """The images that ask: the judge's test split, with values of attributes."""

  judge: ImageJudge
  images: np.ndarray
  values: dict[str, np.ndarray]  # [N, K]
  units: dict[str, np.ndarray]  # [K]
  features: np.ndarray  # [N, D], the judge's


def run(
  controls: Sequence[tuple[str, Control]],
  out: pathlib.Path,
  *,
  num: int,
  seed: int,
  batch: int,
  knobs: Mapping[str, float],
  command: str,
) -> str:
  """Measures all methods on attributes that all know -> the table, as text.

  Args:
    controls: (workdir, what controls its samples).
    out: Folder of index.html and results.json.
    num: Samples of each method and attribute.
    seed: Of all randomness.
    batch: Samples at once.
    knobs: Of the models that have them.
    command: Which makes the page again.

  Raises:
    UserError: The workdirs are of different images, or have no attribute in common.
  """
  attributes = common([c for _, c in controls])
  check_alike(controls)
  if num < SHOWN:
    raise UserError(f"--num={num}: want at least {SHOWN}")
  check_out(out)
  real = real_values(controls[0][0], attributes)
  units = {k: float(np.mean(u)) for k, u in real.units.items()}
  results = []
  for name, (_, control) in zip(names_of(controls), controls, strict=True):
    if isinstance(control, GuidedControl):
      control = dataclasses.replace(control, units=units)
    own = {k: v for k, v in knobs.items() if k in control.sampler.model.knobs}
    request = Request({}, np.arange(num), None, seed, own, batch)
    results += [measure(name, control, attributes, a, real, request) for a in attributes]
  cards = {n: c.sampler.card for n, (_, c) in zip(names_of(controls), controls, strict=True)}
  page = write_page(results, real, cards, num, command)
  files.write_text(out / "index.html", page)
  files.write_json(
    out / "results.json",
    {
      "scores": [r._asdict() | {"png": None} for r in results],
      "protocol": NOTE,
      "made": cards,
      "command": command,
    },
  )
  return text_table(results) + f"\n\n-> {out / 'index.html'}"


def check_out(out: pathlib.Path) -> None:
  """UserError for a folder that holds what this verb did not write."""
  there = {p.name for p in out.iterdir()} if out.is_dir() else set()
  if out.exists() and not out.is_dir() or there - {"index.html", "results.json"}:
    raise UserError(f"--out={out} holds something else: give a new folder")
  check_report(out, "results.json", ("index.html",), ("scores", "protocol"))


def common(controls: Sequence[Control]) -> list[Attribute]:
  """Attributes that all know and that are numbers, as the first one sees them."""
  every = [{a.name for a in c.attributes} for c in controls]
  shared = [a for a in controls[0].attributes if a.name in set.intersection(*every)]
  numbers = [a for a in shared if not a.classes]
  if not numbers:
    raise UserError(
      "--table: the workdirs have no attribute in common that is a number; they know "
      + "; ".join(", ".join(sorted(e)) for e in every)
    )
  return numbers


def check_alike(controls: Sequence[tuple[str, Control]]) -> None:
  """UserError for workdirs of images of different shapes."""
  (first, one), *others = controls
  for workdir, control in others:
    if control.sampler.shape != one.sampler.shape:
      raise UserError(
        f"--table: {first} makes images {list(one.sampler.shape)}, and {workdir} "
        f"{list(control.sampler.shape)}"
      )


def names_of(controls: Sequence[tuple[str, Control]]) -> list[str]:
  """Names of methods; with the workdir's own where one is there twice."""
  hows = [c.how for _, c in controls]
  return [
    how if hows.count(how) == 1 else f"{how}, {pathlib.Path(w).name}"
    for how, (w, _) in zip(hows, controls, strict=True)
  ]


def real_values(workdir: str, attributes: Sequence[Attribute]) -> Real:
  """Test images of a workdir's data, and what they have of attributes."""
  data = settings(latest(workdir)).data
  judge = open_judge(data)
  images = open_split(data, "test").arrays()[0]
  values = {a.name: evaluate(a, images) for a in attributes}
  units = {k: v.std(0) + 1e-8 for k, v in values.items()}
  return Real(judge, images, values, units, judge.network.embed(images))


def evaluate(attribute: Attribute, images: np.ndarray, most: int = 256) -> np.ndarray:
  """Values [N, K] of images as data."""
  value = jax.jit(lambda x: attribute.value(core.on_device({"x": x})["x"]))
  parts = [images[i : i + most] for i in range(0, len(images), most)]
  return np.concatenate([np.asarray(value(jnp.asarray(x))) for x in parts])


def measure(
  name: str,
  control: Control,
  attributes: Sequence[Attribute],
  target: Attribute,
  real: Real,
  request: Request,
) -> Result:
  """One method, asked for one attribute; `request` says the rest, of `num` samples."""
  values = real.values[target.name]
  order = np.argsort(values[:, 0])
  places = np.round(np.linspace(0.05, 0.95, VALUES) * (len(values) - 1)).astype(int)
  chosen = np.random.default_rng(request.seed).integers(0, len(values), len(request.index))
  wanted = np.concatenate([np.tile(values[order[places]], (SHOWN, 1)), values[chosen]])
  index = np.concatenate([np.repeat(np.arange(SHOWN), VALUES), request.index])
  classes = control.sampler.classes
  request = request._replace(
    wanted={target.name: wanted},
    index=index,
    labels=(index % classes).astype(np.int32) if classes else None,
  )
  before, after = control.make(request)
  rows = lambda x: x[: SHOWN * VALUES].reshape(SHOWN, VALUES, *x.shape[1:])
  strip = np.concatenate([rows(before)[:, :1], rows(after)], 1)
  grid = pictures.grid(strip.reshape(-1, *before.shape[1:]), VALUES + 1)
  rest = slice(SHOWN * VALUES, None)
  numbers = compare(attributes, target, real, wanted[rest], before[rest], after[rest])
  return Result(name, target.name, numbers, control.passes(request), pictures.png(grid))


def compare(
  attributes: Sequence[Attribute],
  target: Attribute,
  real: Real,
  wanted: np.ndarray,
  before: np.ndarray,
  after: np.ndarray,
) -> dict[str, float]:
  """Numbers of samples as they come and as asked for, see NOTE."""
  was, now = ({a.name: evaluate(a, x) for a in attributes} for x in (before, after))
  apart = lambda name, a, b: float(np.mean(np.abs(a - b) / real.units[name]))
  others = [apart(n, was[n], now[n]) for n in was if n != target.name]
  f, g = (real.judge.network.embed(x) for x in (before, after))
  cosine = np.sum(f * g, -1) / (np.linalg.norm(f, axis=-1) * np.linalg.norm(g, axis=-1) + 1e-12)
  numbers = {
    "error": apart(target.name, now[target.name], wanted),
    "uncontrolled": apart(target.name, was[target.name], wanted),
    "likeness": float(np.mean(cosine)),
    "frechet": frechet_rows(g, real.features),
    "frechet_before": frechet_rows(f, real.features),
  }
  if others:
    numbers["others"] = float(np.mean(others))
  if real.judge.classifies:
    y, z = (logits(real.judge.extractor, x).argmax(-1) for x in (before, after))
    numbers["same_class"] = float(np.mean(y == z))
  return numbers


COLUMNS = (  # field, head, +1 more is better
  ("error", "Error", -1),
  ("uncontrolled", "Uncontrolled", 0),
  ("others", "Others moved", -1),
  ("likeness", "Likeness", 1),
  ("same_class", "Same class", 1),
  ("frechet", "Fréchet", -1),
  ("frechet_before", "Fréchet before", 0),
)


def write_page(
  results: Sequence[Result],
  real: Real,
  cards: Mapping[str, Mapping[str, Any]],
  num: int,
  command: str,
) -> str:
  """The page: what each method made of the same request, then numbers."""
  parts = []
  for name in dict.fromkeys(r.attribute for r in results):
    of = [r for r in results if r.attribute == name]
    steps = "Rows are samples: as they come in the first column, then with rising values."
    parts.append(Gallery(name, steps, [Picture(r.png, r.method, r.passes) for r in of]))
  for name in dict.fromkeys(r.attribute for r in results):
    of = [r for r in results if r.attribute == name]
    columns = [
      Column(head, better, [r.numbers.get(field) for r in of]) for field, head, better in COLUMNS
    ]
    parts.append(
      Table(
        f"{name}, in numbers", NOTE, [r.method for r in of], [c for c in columns if c.has_values()]
      )
    )
  facts = [
    ("Samples", f"{num} of each method and attribute"),
    ("Judge", f"{real.judge.features}; {len(real.images)} real test images"),
    *facts_of(cards),
  ]
  return render("Explicit control", verdict(results), parts, facts, command)


def verdict(results: Sequence[Result]) -> str:
  """What came out, in a sentence."""
  mean = lambda method, field: np.mean([r.numbers[field] for r in results if r.method == method])
  methods = list(dict.fromkeys(r.method for r in results))
  said = [
    f"{m} misses by {mean(m, 'error'):.2f} standard deviations and keeps a likeness of "
    f"{mean(m, 'likeness'):.2f}"
    for m in methods
  ]
  return f"{'; '.join(said)}. As they come, samples miss by {mean(methods[0], 'uncontrolled'):.2f}."


def text_table(results: Sequence[Result]) -> str:
  """The table for a terminal."""
  rows = [("", "attribute", *(head for _, head, _ in COLUMNS), "cost of a sample")]
  for r in results:
    cells = (r.numbers.get(field) for field, _, _ in COLUMNS)
    rows.append(
      (r.method, r.attribute, *("-" if v is None else f"{v:.3g}" for v in cells), r.passes)
    )
  return aligned(rows)
