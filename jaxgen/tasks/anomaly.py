"""Find what is strange among images, by a model of what is normal.

  jaxgen anomaly --workdir W --data folder:/parts --out scores.csv
  jaxgen anomaly --workdir E --data digits --anomalous 3 --how anogan --out s.csv
  jaxgen anomaly --workdir W --data folder:/parts/test --maps heat --out s.csv
  jaxgen anomaly --benchmark digits --out B --steps 400
  jaxgen anomaly --benchmark photos --out B

How, by family: a GAN by `anogan`, an encoder of configs/anogan.py by `fanogan`;
a diffusion model by `reconstruction` (partial diffusion), `bound` or `ode`; a VAE
by `reconstruction` or `elbo`.

x.csv has a row for each image: `name`, its file or number; `score`, higher for
what is stranger; where the data are labelled `label`; where it is known which
labels are anomalous `anomalous`, 0 or 1; and the parts of the score that the way
has, which x.json explains beside all that made it. x.html shows the strangest
images, what the model makes of them and where they differ; x.png those alone.

Classes called "good" or "normal" are normal and all others are not, or as
--anomalous says; then there are AUROC and AUPR with their intervals. No score is
a diagnosis: what is rare in training is strange, too.
"""

import csv
import functools
import io
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from jaxgen import files
from jaxgen.core import trait
from jaxgen.data.arrays import Source
from jaxgen.data.sources import holds_arrays, open_split
from jaxgen.data.subset import class_number, names_of
from jaxgen.data.summary import introduce
from jaxgen.errors import UserError, printable
from jaxgen.metrics import detection
from jaxgen.monitor import pictures, results
from jaxgen.monitor.progress import Bars
from jaxgen.sampling.output import digest_of, json_knobs
from jaxgen.sampling.sampler import Sampler, key_of, load
from jaxgen.sampling.stages import data_of
from jaxgen.tasks import anomaly_benchmark, anomaly_page
from jaxgen.tasks.anomaly_scores import PICTURES, Scorer, choose, with_critic
from jaxgen.tasks.commands import command_of

NORMAL = ("good", "normal", "healthy", "negative", "ok")  # names of classes, in any case
RESIZED = ("folder", "zip", "tfds", "photos")  # data that come in the model's size
IN_BUCKETS = ("workdir", "out", "maps", "data")  # flags that take gs://bucket/name


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of a model that was trained on what is normal")
  flag("data", None, "images, as config.data.source; default: those of its training")
  flag("split", None, "of the data; default: test where there is such a split, else train")
  flag("out", None, "x.csv; x.json, x.html and x.png come beside it. Of a benchmark a folder")
  flag("how", None, "anogan, fanogan, reconstruction, bound, ode or elbo; default: by family")
  flag("anomalous", None, "classes that are not normal, by number or name: 3 or cut,hole")
  flag("label", None, "class to take all images for, of models that were trained with labels")
  flag("noise", None, "gauss or simplex, of partial diffusion; default: as in training")
  flag("maps", None, "folder that gets a heat map of every image, too")
  flag("knobs", None, "any others, such as lr=0.05,starts=8 of anogan")
  flag("ema", None, "profile of averaged weights, or a width such as 0.1")
  flag("benchmark", None, "digits (one class held out each time) or photos (spoilt photographs)")
  lists = functools.partial(flags.DEFINE_list, flag_values=values)
  lists(
    "families", [], "of a benchmark: gan, diffusion, simplex, vae; default: not simplex on digits"
  )
  lists("classes", [], "of the benchmark of digits, which are held out; default: all ten")
  integer = functools.partial(flags.DEFINE_integer, flag_values=values)
  integer("steps", None, "of Adam, of the sampler or of the ODE; of a benchmark of each training")
  integer("repeats", None, "draws of partial diffusion that are averaged")
  integer("num", None, "images; default: all")
  integer("batch", 64, "images at once")
  integer("seed", 0, "of all randomness")
  integer("step", None, "of the checkpoint; default: the last")
  flags.DEFINE_float(
    "fraction", None, "of the sampler's steps that partial diffusion goes back", flag_values=values
  )


def main(values: flags.FlagValues) -> None:
  """The verb."""
  key_of(values.seed)
  if values.benchmark:
    if not values.out or values.workdir or values.data:
      raise UserError("--benchmark trains models of its own: want --out=FOLDER, no workdir or data")
    return anomaly_benchmark.run(values)
  if not values.workdir or not values.out:
    raise UserError("anomaly needs --workdir=W and --out=scores.csv, or --benchmark=digits")
  sampler = load(values.workdir, ema=values.ema, step=values.step)
  how, way = choose(sampler, values.how, values.noise)
  own = {"workdir": sampler.card["workdir"], "how": how}
  out = Outputs.of(values.out, values.maps, own)
  scorer = Scorer(sampler, way)
  knobs = knobs_of(values, way.knobs)
  settings = scorer.settings(knobs)
  source = open_images(values.workdir, sampler, values.data, values.split)
  x, y = source.arrays()
  n = min(values.num or len(x), len(x))
  x, y = x[:n], None if y is None else y[:n]
  anomalous = truth(source, y, values.anomalous)
  labels = labels_for(sampler, values.label, n)
  scorer.sampler = sampler = with_critic(sampler)
  result = scorer(x, labels, knobs, seed=values.seed, batch=values.batch, bars=Bars())
  rates = rates_of(result["score"], anomalous)
  made = sampler.card | {
    "how": how,
    "score": way.text,
    "knobs": json_knobs(settings),
    "data": {"name": source.name, "fingerprint": source.fingerprint, "images": n},
    "seed": values.seed,
    "command": command_of("anomaly", values),
  }
  names = names_of(source)[:n]
  table = columns_of(names, result, source, y, anomalous)
  out.write(table, made, rates, way.columns)
  out.draw(x, result, anomalous, names, made, rates)
  for name, rate in rates.items():
    print(f"{name:6} {rate.value:.4f}  ({rate.low:.4f} .. {rate.high:.4f})")
  print(f"{n} images -> {printable(values.out)}")


def knobs_of(values: flags.FlagValues, known: Mapping[str, float]) -> dict[str, float]:
  """Knobs that flags set, by their own names and in --knobs."""
  own = ("steps", "fraction", "repeats")
  knobs = {k: float(values[k].value) for k in own if values[k].value is not None}
  for word in (values.knobs or "").split(",") if values.knobs else ():
    name, _, number = word.partition("=")
    try:
      knobs[name] = float(number)
    except ValueError:
      raise UserError(f"--knobs={word}: want knob=number, with commas between") from None
  if strange := [k for k in knobs if k not in known]:
    raise UserError(f"{strange[0]}: this way has {', '.join(known) or 'no knobs'}")
  return knobs


def open_images(workdir: str, sampler: Sampler, data: str | None, split: str | None) -> Source:
  """Images to score, in the model's size and colours.

  Those of files come in its size; of arrays and data sets of one size they have to
  be of it.

  Raises:
    UserError: There are none such, or they are of another size.
  """
  spec = dict(data_of(workdir))
  if data:
    kind = data.partition(":")[0]
    fits = kind in RESIZED and not holds_arrays(*data.partition(":")[::2])
    height, _, channels = sampler.shape
    spec |= {"source": data, "split": "train", "fraction": 1.0, "holdout": 0.0, "rate": 0}
    spec |= {"size": height if fits else 0, "channels": channels}
  try:
    source = open_split(spec, split or "test")
  except UserError:
    if split:
      raise
    source = open_split(spec, "train")
  introduce(source, split or "test")
  if tuple(source.shape) != sampler.shape or source.dtype != sampler.dtype:
    raise UserError(
      f"{source.name} holds {np.dtype(source.dtype)} {list(source.shape)}, and {workdir} was "
      f"trained on {sampler.dtype} {list(sampler.shape)}: bring them to that size"
    )
  return source


def truth(source: Source, y: np.ndarray | None, words: str | None) -> np.ndarray | None:
  """Which images are anomalous, bool [N]; None where nobody knows.

  UserError where classes are named that there are not.
  """
  if words is None:
    normal = [i for i, c in enumerate(source.class_names) if c.lower() in NORMAL]
    return ~np.isin(y, normal) if normal and y is not None else None
  if y is None:
    raise UserError(f"--anomalous={words} names classes, and {source.name} has no labels")
  numbers = [class_number(source, word.strip()) for word in words.split(",")]
  return np.isin(y, numbers)


def labels_for(sampler: Sampler, label: str | None, n: int) -> np.ndarray | None:
  """The labels that a model takes with images, int32 [N]; None: it takes none."""
  if not sampler.classes:
    if label is not None:
      raise UserError(f"--label={label}: this model was trained without labels")
    return None
  if label is None and not trait(sampler.model, "free"):
    raise UserError(
      f"{sampler.card['workdir']} was trained with labels, which say what an image should be: take "
      "one without (--config.data.classes=0), or say --label for all images"
    )
  return sampler.labels(n, -1 if label is None else [label])


def rates_of(scores: np.ndarray, anomalous: np.ndarray | None) -> dict[str, detection.Rate]:
  """AUROC and AUPR by name; {} where there is nothing to tell apart."""
  if anomalous is None or anomalous.all() or not anomalous.any():
    return {}
  return {
    "AUROC": detection.auc_interval(scores, anomalous),
    "AUPR": detection.precision_interval(scores, anomalous),
  }


def columns_of(
  names: list[str],
  result: Mapping[str, np.ndarray],
  source: Source,
  y: np.ndarray | None,
  anomalous: np.ndarray | None,
) -> dict[str, list[Any]]:
  """Of the CSV file, by name."""
  text = lambda a: [f"{v:.7g}" for v in a]
  table = {"name": names, "score": text(result["score"])}
  if y is not None:
    table["label"] = [source.class_names[i] if source.class_names else str(i) for i in y]
  if anomalous is not None:
    table["anomalous"] = [str(int(a)) for a in anomalous]
  return table | {k: text(v) for k, v in result.items() if k not in ("score", *PICTURES)}


class Outputs(NamedTuple):
  """Where results go.

  Attributes:
    csv: The scores.
    maps: Folder of heat maps; None: there is none.
  """

  csv: pathlib.Path
  maps: pathlib.Path | None

  @classmethod
  def of(cls, out: str, maps: str | None, own: Mapping[str, Any]) -> "Outputs":
    """UserError where something else is there already; `own`: what all maps say."""
    path = files.path(out)
    if path.suffix.lower() != ".csv":
      raise UserError(f"--out={out}: want x.csv")
    names = [path.with_suffix(end).name for end in (".csv", ".html", ".png")]
    results.check_report(path.parent, path.with_suffix(".json").name, names, ("made", "scores"))
    if maps:
      results.check_folder(maps, lambda name: own if name.endswith(".png") else None, "--maps")
    return cls(path, files.path(maps) if maps else None)

  def write(
    self,
    table: Mapping[str, list[Any]],
    made: Mapping[str, Any],
    rates: Mapping[str, detection.Rate],
    columns: Mapping[str, str],
  ) -> None:
    """The table, and how it was made."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(table)
    rows.writerows(zip(*table.values(), strict=True))
    text = file.getvalue()
    about = {
      "name": "the image's file below its folder, or its number in the data set",
      "score": f"higher for what is stranger: {made['score']}",
      "label": "the class that the data say",
      "anomalous": "1: anomalous, 0: normal",
    } | dict(columns)
    files.write_json(
      self.csv.with_suffix(".json"),
      {
        "made": made | {"csv": digest_of(np.frombuffer(text.encode(), np.uint8))},
        "scores": {k: r.value for k, r in rates.items()},
        "intervals": {k: [r.low, r.high] for k, r in rates.items()},
        "columns": {k: about[k] for k in table},
      },
    )
    files.write_text(self.csv, text)

  def draw(
    self,
    x: np.ndarray,
    result: Mapping[str, np.ndarray],
    anomalous: np.ndarray | None,
    names: list[str],
    made: Mapping[str, Any],
    rates: Mapping[str, detection.Rate],
  ) -> None:
    """The page, its picture, and heat maps of all images."""
    picture, page = anomaly_page.page(x, result, anomalous, names, made, rates)
    pictures.save_png(self.csv.with_suffix(".png"), picture, made)
    files.write_text(self.csv.with_suffix(".html"), page)
    if self.maps is not None and "map" in result:
      top = anomaly_page.ceiling(result["map"])
      for name, image, heat, score in zip(names, x, result["map"], result["score"], strict=True):
        place = self.maps / f"{name}.png"
        info = made | {"image": name, "score": float(score)}
        pictures.save_png(place, anomaly_page.beside(image, heat, top), info)


if __name__ == "__main__":
  from jaxgen import cli

  cli.run("jaxgen.tasks.anomaly")
