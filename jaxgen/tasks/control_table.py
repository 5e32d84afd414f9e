"""How well attributes are met, and how little else moves: methods side by side.

Real images of the test split say what is asked for: sample i shall have the
attribute of real image i, one attribute at a time, and else stay as it is.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core, files
from jaxgen.checkpoint.meta import latest, settings
from jaxgen.data.sources import open_split
from jaxgen.errors import UserError
from jaxgen.evaluation.judge import ImageJudge, intervals, open_judge
from jaxgen.evaluation.learned import logits
from jaxgen.metrics.distances import frechet_rows
from jaxgen.metrics.student import mean_interval
from jaxgen.metrics.wilson import rate_interval
from jaxgen.monitor import pictures
from jaxgen.monitor.results import check_report
from jaxgen.sampling.attribute_sampling import Attribute, EncoderControl, GuidedControl, Request
from jaxgen.tasks import control_page
from jaxgen.tasks.commands import announce
from jaxgen.tasks.control_page import Result
from jaxgen.tasks.memorisation import Copies, open_copies

Control = EncoderControl | GuidedControl
SHOWN, VALUES = 6, 5  # samples of a picture, and how many values each is given


class Real(NamedTuple):
  """The images that ask: the judge's test split, with values of attributes.

  Attributes:
    judge: Whose features are compared, and who says which class a sample is of.
    images: uint8 [N, H, W, C].
    values: Of each attribute, [N, K]; of a class its number, [N, 1].
    units: Their standard deviations, [K]; of a class 1.
    features: The judge's, [N, D].
  """

  judge: ImageJudge
  images: np.ndarray
  values: dict[str, np.ndarray]
  units: dict[str, np.ndarray]
  features: np.ndarray


def run(
  controls: Sequence[tuple[str, Control]],
  out: pathlib.Path,
  *,
  num: int,
  seed: int,
  batch: int,
  knobs: Mapping[str, float],
  command: str,
  seeds: int = 1,
  copies: str | None = None,
) -> str:
  """Measures all methods on attributes that all know -> the table, as text.

  Args:
    controls: (workdir, what controls its samples).
    out: Folder of index.html and results.json.
    num: Samples of each method, attribute and draw.
    seed: Of all randomness.
    batch: Samples at once.
    knobs: Of the models that have them.
    command: Which makes the page again.
    seeds: Draws, of which the k-th is by seed + k.
    copies: Data among which to look for copies, see `memorisation.open_copies`.

  Raises:
    UserError: The workdirs are of different images, or have no attribute in common.
  """
  attributes = common([c for _, c in controls])
  check_alike(controls)
  for name, value, least in (("num", num, SHOWN), ("seeds", seeds, 1)):
    if value < least:
      raise UserError(f"--{name}={value}: want at least {least}")
  check_out(out)
  real, attributes = real_values(controls[0][0], attributes)
  units = {a.name: float(np.mean(real.units[a.name])) for a in attributes if not a.classes}
  results, names = [], names_of(controls)
  looks = [open_copies(copies, workdir) for workdir, _ in controls]
  for name, (_, control), look in zip(names, controls, looks, strict=True):
    if isinstance(control, GuidedControl):
      control = dataclasses.replace(control, units=units)
    own = {k: v for k, v in knobs.items() if k in control.sampler.model.knobs}
    request = Request({}, np.arange(num), None, seed, own, batch)
    results += [
      measure(name, control, attributes, a, real, request, seeds, look) for a in attributes
    ]
  cards = {n: c.sampler.card for n, (_, c) in zip(names, controls, strict=True)}
  about = control_page.About(num, seeds, real.judge.features, len(real.images), cards, command)
  write_report(out, results, about)
  return f"{control_page.text(results)}\n\n-> {out / 'index.html'}"


def write_report(out: pathlib.Path, results: Sequence[Result], about: control_page.About) -> None:
  """Writes index.html and results.json."""
  files.write_text(out / "index.html", control_page.page(results, about))
  report = {
    "scores": [r.card for r in results],
    "protocol": control_page.note_of(results, about.judge),
    "num": about.num,
    "seeds": about.seeds,
    "made": about.cards,
    "command": about.command,
  }
  files.write_json(out / "results.json", report)


def check_out(out: pathlib.Path) -> None:
  """UserError for a folder that holds what this verb did not write."""
  there = {p.name for p in out.iterdir()} if out.is_dir() else set()
  if out.exists() and not out.is_dir() or there - {"index.html", "results.json"}:
    raise UserError(f"--out={out} holds something else: give a new folder")
  check_report(out, "results.json", ("index.html",), ("scores", "protocol"))


def common(controls: Sequence[Control]) -> list[Attribute]:
  """Attributes that all know, as the first one sees them."""
  every = [{a.name for a in c.attributes} for c in controls]
  shared = [a for a in controls[0].attributes if a.name in set.intersection(*every)]
  if not shared:
    raise UserError(
      "--table: the workdirs have no attribute in common; they know "
      + "; ".join(", ".join(sorted(e)) for e in every)
    )
  return shared


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


def real_values(workdir: str, attributes: Sequence[Attribute]) -> tuple[Real, list[Attribute]]:
  """Test images of a workdir's data, and what they have of attributes.

  Classes are left out where test images have no labels, or other ones than the predictor.
  """
  data = settings(latest(workdir)).data
  judge = open_judge(data)
  test = open_split(data, "test")
  images, y = test.arrays()
  labelled = y is not None and judge.classifies
  fit = [a for a in attributes if not a.classes or labelled and a.classes == test.classes]
  for a in attributes:
    if a not in fit:
      announce("control", f"{a.name} is left out: {test.name} has no labels of {a.classes} classes")
  if not fit:
    raise UserError(f"--table: {test.name} has no values of what the workdirs have in common")
  values = {a.name: y[:, None] if a.classes else evaluate(a, images) for a in fit}
  units = {a.name: np.ones(1) if a.classes else values[a.name].std(0) + 1e-8 for a in fit}
  return Real(judge, images, values, units, judge.network.embed(images)), fit


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
  seeds: int = 1,
  look: Copies | None = None,
) -> Result:
  """One method, asked for one attribute; `request` says the rest, of `num` samples a draw."""
  draws, pairs, strip, rest = [], [], None, slice(SHOWN * VALUES, None)
  for seed in range(request.seed, request.seed + seeds):
    before, after, wanted = draw(control, target, real, request._replace(seed=seed))
    if strip is None:
      rows = lambda x: x[: SHOWN * VALUES].reshape(SHOWN, VALUES, *x.shape[1:])
      strip = np.concatenate([rows(before)[:, :1], rows(after)], 1)
    pairs.append((before[rest], after[rest]))
    draws.append(compare(attributes, target, real, wanted[rest], before[rest], after[rest]))
  grid = pictures.grid(strip.reshape(-1, *strip.shape[2:]), VALUES + 1)
  numbers, intervals = summary(draws, shares_of(target))
  cost = control.passes(request._replace(wanted={target.name: wanted}))
  check = None
  if look:
    before, after = map(np.concatenate, zip(*pairs, strict=True))
    check = look(after, before, f"samples by {name}, asked for {target.name}")
  is_class, png = bool(target.classes), pictures.png(grid)
  return Result(name, target.name, numbers, intervals, cost, png, is_class, check)


def draw(
  control: Control, target: Attribute, real: Real, request: Request
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Samples as they come and as asked for, and the values [N, K] that were asked for.

  First those of the picture, SHOWN samples of VALUES values each, then `num` with values of
  real images. Labels come in turn; where a class is asked for, they are left open, if that
  can be.
  """
  values = real.values[target.name]
  order = np.argsort(values[:, 0], kind="stable")
  places = np.round(np.linspace(0.05, 0.95, VALUES) * (len(values) - 1)).astype(int)
  chosen = np.random.default_rng(request.seed).integers(0, len(values), len(request.index))
  wanted = np.concatenate([np.tile(values[order[places]], (SHOWN, 1)), values[chosen]])
  index = np.concatenate([np.repeat(np.arange(SHOWN), VALUES), request.index])
  labels = labels_for(control, [target], index)
  request = request._replace(wanted={target.name: wanted}, index=index, labels=labels)
  return *control.make(request), wanted


def labels_for(
  control: Control, targets: Sequence[Attribute], index: np.ndarray
) -> np.ndarray | None:
  """Labels [N] of samples: in turn, or -1 where a class is asked for and none need be given."""
  classes = control.sampler.classes
  if not classes:
    return None
  if any(a.classes for a in targets) and core.trait(control.sampler.model, "free"):
    return np.full(len(index), -1, np.int32)
  return (index % classes).astype(np.int32)


def compare(
  attributes: Sequence[Attribute],
  target: Attribute,
  real: Real,
  wanted: np.ndarray,
  before: np.ndarray,
  after: np.ndarray,
) -> dict[str, np.ndarray]:
  """Numbers of each sample as it comes and as asked for, [N], see control_page.NOTE.

  And of all of them: Fréchet distances, [].
  """
  numbered = [a for a in attributes if not a.classes]
  was, now = ({a.name: evaluate(a, x) for a in numbered} for x in (before, after))
  if real.judge.classifies:
    y, z = (logits(real.judge.extractor, x).argmax(-1)[:, None] for x in (before, after))
    was, now = ({a.name: c for a in attributes if a.classes} | v for c, v in ((y, was), (z, now)))
  gap = lambda name, a, b: np.mean(np.abs(a - b) / real.units[name], -1)
  miss = lambda name, a, b: np.any(a != b, -1) if target.classes else gap(name, a, b)
  f, g = (real.judge.network.embed(x) for x in (before, after))
  cosine = np.sum(f * g, -1) / (np.linalg.norm(f, axis=-1) * np.linalg.norm(g, axis=-1) + 1e-12)
  numbers = {
    "error": miss(target.name, now[target.name], wanted),
    "uncontrolled": miss(target.name, was[target.name], wanted),
    "likeness": cosine,
    "frechet": np.asarray(frechet_rows(g, real.features)),
    "frechet_before": np.asarray(frechet_rows(f, real.features)),
  }
  others = [gap(a.name, was[a.name], now[a.name]) for a in numbered if a.name != target.name]
  if others:
    numbers["others"] = np.mean(others, 0)
  if real.judge.classifies and not target.classes:
    numbers["same_class"] = np.ravel(y == z)
  return numbers


def shares_of(target: Attribute) -> tuple[str, ...]:
  """Names of numbers that say yes or no of each sample."""
  return ("error", "uncontrolled") if target.classes else ("same_class",)


def summary(
  draws: Sequence[Mapping[str, np.ndarray]], shares: Sequence[str]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
  """Means over the samples of all draws, and their intervals, see control_page.INTERVALS."""
  values = {k: np.concatenate([np.atleast_1d(d[k]) for d in draws]) for k in draws[0]}
  numbers = {k: float(np.mean(v)) for k, v in values.items()}
  of_draws = {k: v.tolist() for k, v in values.items() if k.startswith("frechet")}
  ends = intervals(of_draws)  # of two draws or more
  for name, v in values.items():
    if name in shares:
      ends[name] = rate_interval(int(np.sum(v)), len(v))
    elif name not in of_draws:
      ends[name] = mean_interval(v)
  return numbers, ends
