"""DiffWaves of other people's files, and ours for them; see `workdir`.

Shapes tell most of a net. lmnt-com's files say the rest, too: the dilations,
the schedule and the spectrogram. Those of the paper's authors do not.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen import config as configs
from jaxgen import sharding
from jaxgen.convert.initial_state import ForeignFile, Imported, Weights, clips_of
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import diffwave_names, names, tensor_files
from jaxgen.interop.diffwave_names import SETS, WAVES
from jaxgen.interop.pickles import plain
from jaxgen.interop.tensors import Tensor
from jaxgen.sampling import trained as sampling_trained

# Configs of published sizes, vocoders first.
PUBLISHED = {
  "diffwave": [f"diffwave.py:{arg}" for arg in ("base", "large", "sc09", "sc09-class")],
  "wavenet": [f"wavenet.py:{arg}" for arg in ("base", "large", "sc09", "sc09-small")],
}
# What lmnt's `params` call a field of ours, and the most that it can be.
FRONT = "model.cond.mel.front"
FIELDS = {
  "dilation_cycle_length": (24, ("model.net.cycle",)),
  "sample_rate": (1 << 20, ("data.rate", f"{FRONT}.rate")),
  "n_mels": (1 << 12, (f"{FRONT}.mels",)),
  "hop_samples": (1 << 16, (f"{FRONT}.hop",)),
  "n_fft": (1 << 16, (f"{FRONT}.fft",)),
}
PROCESSES = ("model.process", "model.precond.process")
STEPS = ("model.steps", "model.net.steps", "model.draw_t.steps", *(f"{p}.steps" for p in PROCESSES))
MOST_STEPS = 4000


def open_file(file: ForeignFile, config: ConfigDict | None) -> Imported:
  """Reads a checkpoint; without a config the file must do."""
  if file.disc:
    raise UserError("--disc is a GAN's: a DiffWave has none")
  if config is not None:
    check_net(config, file.source)
  sets = tensor_files.sets(file.path)
  own = SETS[file.source]
  key = file.key or (own if own in sets else None)
  tensors = tensor_files.select(pathlib.Path(file.path), sets, key)
  facts = read_facts(tensor_files.facts(file.path, "params")) if file.source == "diffwave" else {}
  if config is None:
    config = usual(tensors, facts, file)
  else:
    compare(facts, config, file)
  if file.source == "wavenet":
    file.log(
      f"adds_step={config.model.net.get('adds_step', False)}: files do not say which of two codes "
      "they are of; if it makes noise, import it with the other --config.model.net.adds_step"
    )
  data, experiment = clips_of(config, file.size), Experiment.of(config)
  abstract = experiment.abstract(data, sharding.make_mesh())
  table = diffwave_names.diffwave_entries(abstract.params["net"], file.source)
  net = names.fill(table, tensors, file.progress)
  return Imported(experiment, data, abstract, Weights({"net": net}))


def is_wave(config: ConfigDict) -> bool:
  """Whether a config's net is one of theirs."""
  return config.model.get("net", {}).get("name") in WAVES.values()


def check_net(config: ConfigDict, source: str) -> None:
  """UserError if the source has no such nets."""
  net = config.model.get("net", {}).get("name", config.model.name)
  if WAVES.get(source) != net:
    fit = [k for k, name in WAVES.items() if name == net]
    raise UserError(
      f"{source} has no checkpoints of {net}"
      + (f": try {fit[0]}" if fit else f": give a config such as configs/{source}.py:base")
    )


def usual(tensors: dict[str, Tensor], facts: Mapping[str, Any], file: ForeignFile) -> ConfigDict:
  """A config for a file that came without one; UserError rather than a guess."""
  shapes = diffwave_names.layout(tensors, file.source)
  for name in PUBLISHED[file.source]:
    c = configs.load(f"configs/{name}")
    if all(c.model.net.get(k, v) == v for k, v in shapes.items()):
      break
  else:
    if "model.net.cycle" not in facts:
      raise UserError(
        "the file has the shapes of no published net, and does not say after how many layers "
        f"dilations begin again: give a --config, such as configs/{PUBLISHED[file.source][0]}"
      )
    kinds = [bool(shapes["mels"]), not shapes["labels"], True]  # base, .., sc09, sc09-class
    name = PUBLISHED[file.source][(0, 2, 3)[kinds.index(True)]]
    c = configs.load(f"configs/{name}")
  with c.unlocked():
    c.model.net.update(shapes)
    c.data.classes = c.model.classes = shapes["labels"]
    for path, value in facts.items():
      put(c, path, value)
  how = "its own schedule and dilations" if facts else "and is taken for it"
  file.log(f"read as configs/{name}, {how}; if it is another, give a --config")
  return c


def read_facts(params: Mapping[str, Any]) -> dict[str, Any]:
  """What a file of lmnt's says, by fields of ours.

  Raises:
    UserError: It cannot be.
  """
  facts = {}
  for word, (most, paths) in FIELDS.items():
    if (value := params.get(word)) is None:
      continue
    if type(value) is not int or not 1 <= value <= most:
      raise UserError(f"the file's params.{word} is {plain(value)}: want a number up to {most}")
    facts |= dict.fromkeys(paths, value)
  frames, hop = params.get("crop_mel_frames"), facts.get(f"{FRONT}.hop")
  if type(frames) is int and hop and 1 <= frames <= 1 << 12:
    facts["data.size"] = frames * hop
  betas = params.get("noise_schedule")
  if betas is None:
    return facts
  numbers = isinstance(betas, list | tuple) and all(type(b) in (int, float) for b in betas)
  if not numbers or not 2 <= len(betas) <= MOST_STEPS:
    raise UserError("the file's params.noise_schedule is no list of numbers")
  line = np.linspace(betas[0], betas[-1], len(betas))
  if not np.allclose(betas, line, rtol=1e-5, atol=0):
    raise UserError("the file's params.noise_schedule is not linear: such chains are not imported")
  facts |= dict.fromkeys(STEPS, len(betas))
  for path in PROCESSES:
    facts |= {f"{path}.beta_1": float(betas[0]), f"{path}.beta_T": float(betas[-1])}
  return facts


def compare(facts: Mapping[str, Any], config: ConfigDict, file: ForeignFile) -> None:
  """A line, if a config says otherwise than the file what shapes do not tell."""
  for path in ("model.net.cycle", "model.process.steps", "model.process.beta_T", "data.rate"):
    ours, theirs = find(config, path), facts.get(path)
    if theirs is not None and ours != theirs:
      file.log(f"the file says {path}={theirs}; the config says {ours}, and rules")


def find(config: ConfigDict, path: str) -> Any:
  """The field "a.b.c" of a config, or None."""
  for key in path.split("."):
    config = config.get(key) if config is not None else None
  return config


def put(config: ConfigDict, path: str, value: Any) -> None:
  """Sets the field "a.b.c", if there is a "a.b"."""
  *above, last = path.split(".")
  node = find(config, ".".join(above))
  if node is not None:
    node[last] = value


def tensors(
  workdir: str, source: str, config: ConfigDict, ema: str | None, step: int | None
) -> tuple[sampling_trained.Trained, dict[str, Any]]:
  """A workdir's net, and its tensors in the set that the source has."""
  check_net(config, source)
  trained = sampling_trained.load_trained(workdir, ema, step)
  net = trained.params["net"]
  return trained, {SETS[source]: names.spell(diffwave_names.diffwave_entries(net, source), net)}


def packed(sets: dict[str, Any], out: str) -> dict[str, Any]:
  """As their code wants a file: a set of its own, where a file may hold several."""
  alone = tensor_files.kind_of(pathlib.Path(out)) == "safetensors"
  return next(iter(sets.values())) if alone else sets
