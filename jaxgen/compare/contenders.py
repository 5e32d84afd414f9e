"""The trainings that compete: configs, brought to the data of a choice."""

import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import traverse_util
from ml_collections import ConfigDict

from jaxgen import config
from jaxgen.compare.agenda import HALF
from jaxgen.compare.comparison import check_alike
from jaxgen.compare.measure import Entry
from jaxgen.data.points import is_points
from jaxgen.distributed import cores
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, field, prepare_devices

FAMILIES = ("diffusion", "gan", "vae")
SOUND = ("configs/diffwave.py", "configs/wavegan.py")  # one of each family
SOUND_ARGS = {4096: "digits", 16_384: "sc09-class"}  # by samples of a clip
SMALLEST = 16  # batch of `default_paths` for images, on CPUs
DATA = ("source", "size", "channels", "holdout", "rate")  # of a choice; classes see `adapt`


def default_paths(source: str, size: int, rate: int = 0) -> list[str]:
  """One config of each family, for this data and this machine.

  Args:
    source: As in config.data.
    size: At which images are worked on; 0: as they are stored.
    rate: Samples a second, of sound.
  """
  if rate:
    if size not in SOUND_ARGS:
      sizes = " or ".join(map(str, SOUND_ARGS))
      raise UserError(f"--size={size}: our configs of sound take {sizes} samples; or --contenders=")
    return [f"{path}:{SOUND_ARGS[size]}" for path in SOUND]
  kind, arg = "images", f":{size}"
  if is_points(source):
    kind, arg = "points", ""
  elif source == "digits" and size in (0, 8):
    kind, arg = "digits", ""
  elif jax.default_backend() == "cpu":
    arg = f":{size}-small"
  return [f"configs/{kind}_{family}.py{arg}" for family in FAMILIES]


def make_devices(paths: Sequence[str], source: str, sound: bool) -> None:
  """Before jax has devices: those of a CPU that all contenders keep busy, see `cores`.

  Args:
    paths: Of `load_contenders`; none: those of `default_paths`, which asks jax.
    source: As in config.data. Points are for one device.
    sound: Whether that is sound. Ours have too small batches for more than one.
  """
  if is_points(source):
    return
  contenders = [config.load(path) for path in paths]
  for settings in contenders:
    config.check_single(settings, "choose")
  if contenders:
    prepare_devices(contenders)
  elif not sound:
    cores.make_devices([SMALLEST])


def load_contenders(
  paths: Sequence[str], data: Mapping[str, Any], home: pathlib.Path, seeds: int = 1
) -> list[Entry]:
  """An entry for each config, in HOME/NAME; its twins have other seeds.

  Args:
    paths: "configs/x.py[:arg]"; a contender is called x, or x-arg where two
      were called the same.
    data: source, size, channels, classes, holdout and, of sound, rate, as in
      config.data.
    home: Folder of the choice.
    seeds: Trainings of each.

  Raises:
    UserError: A config is none, or makes no samples of such data.
  """
  stems = [pathlib.Path(path.partition(":")[0]).stem for path in paths]
  entries = []
  for path, stem in zip(paths, stems, strict=True):
    arg = path.partition(":")[2]
    name = f"{stem}-{arg}" if arg and stems.count(stem) > 1 else stem
    settings = config.load(path)
    config.check_single(settings, "choose")
    changes = adapt(settings, data)
    words = (f"--{k}={shlex.quote(str(v))}" for k, v in changes.items())
    train = " ".join(["jaxgen train", f"--config={shlex.quote(path)}", *words])
    train += f" --workdir={shlex.quote(str(home / name))}"
    twins = tuple(home / f"{name}-seed{i}" for i in range(1, seeds))
    entries.append(Entry(name, home / name, (train,), settings, twins))
  check_alike(entries)
  for entry in entries:
    Experiment.of(entry.config)
  return entries


def on_half(entry: Entry, home: pathlib.Path) -> Entry:
  """The contender on half of its data, in HOME/NAME-half, without twins."""
  settings = entry.config.copy_and_resolve_references()
  with settings.unlocked():
    settings.data.fraction = HALF
  place = home / f"{entry.name}-half"
  before, after = (f"--workdir={shlex.quote(str(p))}" for p in (entry.workdir, place))
  commands = (c.replace(before, f"--config.data.fraction={HALF} {after}") for c in entry.commands)
  return Entry(place.name, place, tuple(commands), settings, half_of=entry.name)


def adapt(settings: ConfigDict, data: Mapping[str, Any]) -> dict[str, Any]:
  """Brings a config to a choice's data; answers what had to change.

  Models that know as many classes as there are get labels; all others train
  without. Learning rates stay constant after their warm-up, for the end of a
  training is not known until its budget is spent.
  """
  changes = {f"data.{k}": data[k] for k in DATA if k in settings.data and k in data}
  changes |= {"data.split": "train"}
  changes |= {f"optim.{k}.decay": "constant" for k, v in settings.optim.items() if "decay" in v}
  with settings.unlocked():
    before = {k: field(settings, k) for k in changes}
    classes = settings.data.classes
    if data.get("rate"):
      counts = dict.fromkeys(class_counts(settings.model, classes), data.get("classes", 0))
      before |= {k: field(settings, k) for k in counts}
      changes |= counts
    for path, value in changes.items():
      put(settings, path, value)
    # Configs in which the model's classes refer to the data's follow.
    settings.data.classes = data.get("classes", 0)
    own = settings.model.get("classes", 0)
    if own != settings.data.classes:
      settings.data.classes = own
    if settings.data.classes != classes:
      before["data.classes"], changes["data.classes"] = classes, settings.data.classes
    settings.log.pictures, settings.log.eval.every = 0, 0  # the report has its own
    settings.checkpoint.update(keep=2, keep_every=0)
  return {f"config.{k}": v for k, v in changes.items() if v != before[k]}


def class_counts(model: ConfigDict, classes: int) -> list[str]:
  """Where in a model's config numbers of classes stand, as "model.gen.classes"."""
  paths = traverse_util.flatten_dict(model.to_dict(), sep=".")
  return [
    f"model.{path}"
    for path, value in paths.items()
    if path.rpartition(".")[2] in ("classes", "labels") and value == classes
  ]


def put(settings: ConfigDict, path: str, value: Any) -> None:
  """Sets the value at "a.b"."""
  *places, last = path.split(".")
  field(settings, ".".join(places))[last] = value
