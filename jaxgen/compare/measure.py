"""One trained model, judged: its row of a report, and a picture of its samples."""

import dataclasses
import functools
import math
import pathlib
import shlex
from collections.abc import Collection, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxgen.checkpoint import meta
from jaxgen.compare import rows
from jaxgen.compare.costs import title
from jaxgen.compare.sound import clips_of
from jaxgen.data.arrays import Source
from jaxgen.data.sources import open_split
from jaxgen.data.summary import introduce
from jaxgen.evaluation.judge import ImageJudge, Judge, Scores, intervals, means, spreads
from jaxgen.evaluation.likelihoods import bits_per_dim
from jaxgen.monitor import health, pictures
from jaxgen.monitor.log import read_jsonl
from jaxgen.sampling.sampler import Sampler, load

STEPS = (4, 8, 16, 32)  # of the diffusion model, for quality against cost
CODES = ("perplexity", "perplexity_top", "perplexity_bottom", "dead", "dead_top", "dead_bottom")
CURVES = {"loss": ("/loss",), "health": ("grad_norm", "accuracy", "diversity", *CODES)}  # ends
EXTRAS = ("accuracy", "sweep", "copies")
BATCH = 256  # samples that are drawn at once, at the most
SOUNDS = 20  # spectrograms of a picture, each as large as many small images
MOST = 2000  # real examples to choose from, to look at


@dataclasses.dataclass(frozen=True)
class Entry:
  """A model of the report."""

  name: str
  workdir: pathlib.Path
  commands: tuple[str, ...]  # that train it
  config: ConfigDict
  twins: tuple[pathlib.Path, ...] = ()  # the same with other seeds
  half_of: str = ""  # name of the contender that this is, on half of its data

  @property
  def workdirs(self) -> tuple[pathlib.Path, ...]:
    """Of all its trainings, by seed."""
    return (self.workdir, *self.twins)

  @property
  def contender(self) -> str:
    """Whose trial and programs are its own."""
    return self.half_of or self.name


def measure(
  entry: Entry,
  judge: Judge,
  extras: Collection[str] = EXTRAS,
  grid: str = "",
  model: Sampler | None = None,
) -> tuple[rows.Row, dict[str, bytes]]:
  """The report's row of one model, and the pictures that it names: PNGs.

  Args:
    entry: The model; of several trainings numbers are means, `spread` and
      `intervals` are over them, and else over sets of samples. `seeds` are the
      numbers of each training by itself.
    judge: Of its data.
    extras: What takes long: "accuracy", of a classifier that is trained on
      samples; "sweep", quality by number of steps; "copies", with the picture,
      and bits per dimension.
    grid: Name of the picture of samples; default: the model's.
    model: The first of its trainings, ready to sample; default: it is loaded.
  """
  grid, model = grid or entry.name, model or load(entry.workdir)
  card, log = meta.latest(entry.workdir), read_jsonl(entry.workdir / "metrics.jsonl")
  n = judge.count
  y = labels(model, judge, n)
  x, speed = draw_warm(model, n, y)
  scores = functools.partial(judge.scores, y=y, cas="accuracy" in extras)
  trainings = [scores(x), *(scores(model.reload(w).sample(0, n, y)) for w in entry.twins)]
  rate = entry.config.data.get("rate", 0)
  images = {grid: portrait(x, model.classes, rate=rate)}
  clips, own = clips_of(grid, x, rate, y, model.class_names)
  images |= own
  if "copies" in extras and isinstance(judge, ImageJudge):
    copies, images[f"{grid}-copies"] = copies_of(judge, x, f"{grid}-copies")
  else:
    copies = None
  settings = {k: v for k, v in model.model.knobs.items() if k in ("steps", "guidance", "eta")}
  return {
    "name": entry.name,
    "family": title(model),
    "config": entry.name,
    "workdir": str(entry.workdir),
    "params": sum(x.size for x in jax.tree.leaves(model.state.params)),
    "train_seconds": card.get("seconds"),
    "step": model.card["step"],
    "train_images": model.card["step"] * entry.config.batch,
    "peak_memory": card.get("peak_bytes"),
    "grid": grid,
    "clips": clips,
    "settings": settings,
    **summary(trainings),
    "samples_per_second": speed,
    "nfe": model.model.nfe(),
    "sampling": quality_by_cost(model, judge) if "sweep" in extras else [],
    "copies": copies,
    "bits_per_dim": bits_per_dim(model, judge.test) if copies and not rate else None,
    "curves": curves(log),
    "warnings": [f"Step {f.step:,}: {f.text}" for f in health.replay(log)[1]],
  }, images


def summary(trainings: Sequence[Scores]) -> dict[str, Any]:
  """Scores of a model: metrics, spread, intervals; and seeds, of each training.

  Of several trainings they are over these, else over sets of samples.
  """
  seeds = [{"metrics": means(s), "intervals": intervals(s)} for s in trainings]
  if len(seeds) == 1:
    return seeds[0] | {"spread": spreads(trainings[0]), "seeds": seeds}
  over = {k: [s["metrics"][k] for s in seeds] for k in seeds[0]["metrics"]}
  return {
    "metrics": means(over),
    "spread": {k: float(np.std(v, ddof=1)) for k, v in over.items()},
    "intervals": intervals(over),
    "seeds": seeds,
  }


def copies_of(judge: ImageJudge, x: np.ndarray, grid: str) -> tuple[dict[str, Any], bytes]:
  """The share of samples that copy training images, and a picture of some.

  The worst samples stand above the training images that they are nearest to.
  """
  worst = judge.copies(x)
  x = judge.hear(x) if judge.hear else x
  pairs = np.concatenate([x[worst.samples], judge.real.read(worst.images)["x"]])
  picture = pictures.png(pictures.grid(pairs, columns=len(worst.samples)))
  return {"share": worst.share, "floor": worst.floor, "grid": grid}, picture


def labels(model: Sampler, judge: Judge, n: int) -> np.ndarray | None:
  """Labels for n samples, each as often as in the real data, in turn."""
  if not model.classes or not isinstance(judge, ImageJudge):
    return model.labels(n, None)
  return in_turn(judge.labels(n))


def in_turn(y: np.ndarray) -> np.ndarray:
  """Labels [N] in the order 0, 1, .. and again, as long as there are any."""
  return y[order_in_turn(y)]


def order_in_turn(y: np.ndarray) -> np.ndarray:
  """The order [N] that brings labels [N] in turn."""
  place = np.zeros(len(y), int)  # of each among those of its label
  for c in np.unique(y):
    place[y == c] = np.arange(np.sum(y == c))
  return np.lexsort((y, place))


def draw_warm(
  model: Sampler, n: int, y: np.ndarray | None, seed: int = 0, **how: Any
) -> tuple[np.ndarray, float]:
  """n samples, and how many of them a second makes once it is compiled.

  `how`: knobs, and what else `Sampler.sample` takes.
  """
  batch = min(n, BATCH)
  fewest = {"steps": 1} if "steps" in model.model.knobs else {}
  model.sample(0, batch, None if y is None else y[:batch], batch=batch, **fewest)
  x, seconds = rows.draw(model, seed, n, y, batch=batch, **how)
  return x, n / seconds


def quality_by_cost(model: Sampler, judge: Judge) -> list[dict[str, Any]]:
  """Scores and speed by number of steps; once for what takes no steps."""
  batch = min(judge.count, BATCH)
  n = math.ceil(judge.count / 4 / batch) * batch  # whole batches of the size that is compiled
  y = labels(model, judge, n)
  points = []
  for knobs in [{"steps": s} for s in STEPS] if "steps" in model.model.knobs else [{}]:
    x, speed = draw_warm(model, n, y, **knobs)
    points.append(
      {
        "label": f"{knobs['steps']} steps" if knobs else "",
        "knobs": knobs,
        "nfe": model.model.nfe(**knobs),
        "samples_per_second": speed,
        "metrics": means(judge.scores(x, y, cas=False)),
      }
    )
  return points


def curves(log: list[dict[str, Any]]) -> dict[str, dict[str, list[list[float]]]]:
  """The log's scalars over steps, by kind (see CURVES) and key."""
  keys = sorted({k for row in log for k in row})
  return {
    kind: {k: [[r["step"], r[k]] for r in log if k in r] for k in keys if k.endswith(ends)}
    for kind, ends in CURVES.items()
  }


def real_samples(data: ConfigDict, n: int = 60) -> tuple[np.ndarray, np.ndarray | None, Source]:
  """Real training examples to look at, their labels, in turn, and their source."""
  source = open_split(data)
  introduce(source, data.split)
  count = min(len(source), MOST)
  batch = source.read(np.arange(count) * len(source) // count)
  if len(source.shape) == 1 or not source.classes:
    return batch["x"], None, source
  order = order_in_turn(batch["y"])[:n]
  return batch["x"][order], batch["y"][order], source


def real_data(data: ConfigDict, real: dict[str, Any]) -> tuple[dict[str, bytes], dict[str, Any]]:
  """Pictures and clips of real data by name, and `real` of a report with these names."""
  x, y, source = real_samples(data)
  rate, classes = data.get("rate", 0), 0 if y is None else source.classes
  files = {real["grid"]: portrait(x, classes, rate=rate)}
  clips, own = clips_of(real["grid"], x, rate, y, source.class_names)
  return files | own, real | {"clips": clips}


def file_name(name: str) -> str:
  """Of a picture or a clip that a report names."""
  return name if name.endswith((".wav", ".png")) else f"{name}.png"


def portrait(x: np.ndarray, classes: int = 0, n: int = 60, rate: int = 0) -> bytes:
  """PNG of samples, of clips of their spectrograms; a column for every class."""
  if x.dtype == np.int16:
    x = pictures.spectrograms(x[: min(n, SOUNDS), :, 0], rate or pictures.RATE)
  if x.ndim == 2:
    return pictures.png(pictures.scatter(x[:MOST], limit=1.1))
  return pictures.png(pictures.grid(x[:n], columns=classes if 1 < classes <= 20 else None))


def command(verb: str, **values: str | pathlib.Path) -> str:
  """A command for a shell, which takes names as they are."""
  return " ".join([f"jaxgen {verb}", *(f"--{k} {shlex.quote(str(v))}" for k, v in values.items())])
