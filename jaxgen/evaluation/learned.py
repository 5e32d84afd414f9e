"""Networks that look at one data set, learned from its own training split.

With labels it is a classifier of them. Without, it is a network that tells
single training images apart, whatever part of them it sees: an exemplar
network (Dosovitskiy et al. 2014, arXiv:1406.6909), whose classes are up to
EXEMPLARS images, each under random crops and mirrored. Either is
configs/judge.py, trained by the ordinary loop. What is larger than LARGEST
pixels is looked at at that size.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxgen import config, files, train
from jaxgen.data.arrays import Source
from jaxgen.data.sources import channels_of
from jaxgen.distributed import join
from jaxgen.errors import UserError
from jaxgen.evaluation import features, weights
from jaxgen.evaluation.images import weights_hash
from jaxgen.monitor.results import check_file
from jaxgen.sampling import output
from jaxgen.sampling.sampler import Sampler, load

LARGEST = 64  # pixels
EXEMPLARS = 256  # images that are told apart, at the most
CROP = 0.7  # of an exemplar's side, at the least
MOST = 256  # images at a time
PUBLISHED = {  # name -> the weights, and which features distances compare
  "inception": (weights.INCEPTION, "pool3"),
  "dinov2": (weights.DINOV2, "cls"),
}


class Network(NamedTuple):
  """What a judge looks through.

  Attributes:
    kind: "cnn", a classifier; "exemplar"; or the name of a published one.
    extractor: Which makes features.
    tap: Those that distances compare.
    card: Where it comes from.
    home: Folder of its training, also for what else is trained to judge.
  """

  kind: str
  extractor: features.Extractor
  tap: str
  card: dict[str, Any]
  home: pathlib.Path

  def embed(self, x: np.ndarray) -> np.ndarray:
    """Images uint8 [N, H, W, C] -> features [N, D]."""
    if x.shape[-1] == 1 and self.extractor.channels == 3:
      x = np.repeat(x, 3, -1)
    return self.extractor.features([x], (self.tap,))[self.tap]


def learn(data: ConfigDict, real: Source, folder: str | None = None) -> Network:
  """The network of a training split, trained unless it is there.

  Args:
    data: Of a config.
    real: Its training split.
    folder: Where it lies, by default in the user's cache.
  """
  if real.classes > 1:
    kind, settings, samples = "cnn", judge_config(data, real, real.classes), None
  else:
    samples = exemplars(real)
    kind, settings = "exemplar", exemplar_config(data, real, len(samples))
  home = files.path(folder) if folder else cache(real, settings)
  if samples is not None:
    file = (home / "exemplars.npz").absolute()
    check_file(file, "--judge" if folder else "cache")
    write_samples(file, samples, np.arange(len(samples)))
    settings = on_file(settings, file)
  train.train(settings, home, quiet=True, wait=True)
  classifier = load(home, samples=False)
  look = extractor_of(classifier, f"{short_name(real)}-{kind}", real.shape)
  card = classifier.card | ({} if samples is None else {"exemplars": len(samples)})
  return Network(kind, look, "features", card, home)


def published_weights(name: str) -> pathlib.Path:
  """The file of a published network, which is at hand: nothing is fetched.

  Raises:
    UserError: There is no such network, or its weights are not here.
  """
  if name not in PUBLISHED:
    raise UserError(f"--features={name}: want " + " or ".join(PUBLISHED))
  file, _ = PUBLISHED[name]
  path = weights.at_hand(file)
  if path is None:
    raise UserError(
      f"{file.what} are not here: fetch {file.url} and put it at {weights.place(file)}, "
      f"or say {file.variable}=FILE in the environment"
    )
  return path


def open_published(name: str, real: Source, folder: str | None = None) -> Network:
  """Inception or DINOv2, see `published_weights`."""
  look = features.open_extractor(name, weights=published_weights(name))
  home = files.path(folder) if folder else cache(real, {"network": name})
  return Network(name, look, PUBLISHED[name][1], look.card, home)


def judge_config(data: ConfigDict, real: Source, classes: int) -> ConfigDict:
  """configs/judge.py for other data, of so many classes."""
  side = max(real.shape[:2])
  c = config.load(f"configs/judge.py:{min(side, LARGEST)}")
  with c.unlocked():
    c.data.update({k: data[k] for k in ("holdout",) if k in data and k in c.data})
    c.data.update(
      source=data.source,
      split=data.split,
      classes=classes,
      size=LARGEST if side > LARGEST else data.get("size", 0),
      channels=channels_of(data),
      rate=data.get("rate", 0),
    )
    c.model.net.classes = classes
    c.checkpoint.every = c.steps
  return c


def exemplar_config(data: ConfigDict, real: Source, count: int) -> ConfigDict:
  """The same for telling so many images apart."""
  c = judge_config(data, real, count)
  with c.unlocked():
    square = real.shape[0] == real.shape[1]
    c.data.update(channels=real.shape[-1], flip=True, crop=CROP if square else 0.0)
    c.model.smoothing = 0.1
  return c


def classifier_of(
  data: ConfigDict, real: Source, x: np.ndarray, y: np.ndarray, folder: pathlib.Path
) -> features.Extractor:
  """The classifier of a judge, trained on samples, if it is not yet.

  Args:
    data: Of a config, which samples imitate.
    real: Its training split.
    x: Samples uint8 [N, H, W, C].
    y: Their labels [N].
    folder: For samples and their classifier.
  """
  digest = output.digest_of(x, y)
  file = folder / f"{digest}.npz"
  write_samples(file, x, y)
  settings = on_file(judge_config(data, real, real.classes), file)
  train.train(settings, folder / digest, quiet=True)
  return extractor_of(load(folder / digest, samples=False), "cas", real.shape)


def write_samples(file: pathlib.Path, x: np.ndarray, y: np.ndarray) -> None:
  """A file that is trained on; of several processes the first writes it for all."""
  if join.is_main_process():
    output.write(str(file), x, y, {})
  join.barrier("a file of samples")


def on_file(settings: ConfigDict, file: pathlib.Path) -> ConfigDict:
  """A config, of the images and labels of a file in place of its data."""
  with settings.unlocked():
    settings.data.update(source=f"npz:{file}", split="train")
    if settings.data.rate:  # the file is of images, and size was that of clips
      settings.data.update(size=0, rate=0)
    if "holdout" in settings.data:
      settings.data.holdout = 0.0
  return settings


def exemplars(real: Source) -> np.ndarray:
  """Up to EXEMPLARS different training images, uint8 [n, H, W, C].

  The same ones for the same data. At most twice as large as a network sees
  them, so that crops of them are sharp.
  """
  order = np.random.default_rng(0).permutation(len(real))[:EXEMPLARS]
  x = real.read(np.sort(order))["x"]
  x = np.stack(list({image.tobytes(): image for image in x}.values()))
  small = max(x.shape[1:3]) <= 2 * LARGEST
  return x if small else features.shrunk(x, 2 * LARGEST)


def cache(real: Source, settings: Any) -> pathlib.Path:
  """Where the network of a data set lies when nobody says: one per config."""
  name = real.name.replace("/", "_").replace(":", "-")
  which = files.digest(config.as_json(settings))[:8]
  return files.cache() / "judges" / f"{name}-{real.fingerprint}-{which}"


def short_name(real: Source) -> str:
  """Of a data set, in the names of metrics: folder:/my/images -> images."""
  return real.name.rstrip("/").rpartition("/")[2].replace(":", "-")


def extractor_of(
  classifier: Sampler, name: str, shape: tuple[int, ...] | None = None
) -> features.Extractor:
  """A classifier, as one that looks at images uint8 [N, H, W, C].

  Args:
    classifier: As it was trained.
    name: For the names of metrics.
    shape: [H, W, C] of images, where they are larger than it was trained on.
  """
  model, state, sha256 = classifier.model, classifier.state, weights_hash(classifier.state)
  shape, own = shape or classifier.shape, classifier.shape
  small = max(own[:2]) < 32
  return features.classifier(
    model,
    state,
    name,
    sha256,
    MOST if small else MOST // 4,
    shape,
    own[0] if own[:2] != tuple(shape[:2]) else None,
  )


def logits(extractor: features.Extractor, x: np.ndarray) -> np.ndarray:
  """Images uint8 [N, H, W, C] -> [N, classes]."""
  return extractor.features([x], ("logits",))["logits"]


def is_right(extractor: features.Extractor, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Whether a classifier says the label of each image, [N]."""
  return logits(extractor, x).argmax(-1) == y
