"""What a training cost; a model of latents pays for its codec, one of few steps for its teacher.

Without the codec there would be neither its latents nor its samples: seconds,
images and operations of the codec's own training are added to those of the
model. They are the codec's as it is by now: as its newest checkpoint has them.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxgen import files
from jaxgen.bench.training import mean_over_cycle, step_flops
from jaxgen.checkpoint import meta
from jaxgen.compare.rows import Row
from jaxgen.config import as_json
from jaxgen.core import trait
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, open_data
from jaxgen.sampling import presets
from jaxgen.sampling.sampler import Sampler

# What tells no two programs apart: luck, what is written, how work is shared out.
SEEDS = ("seed", "log", "checkpoint", "mesh")
PAID = ("train_seconds", "train_images", "flops")  # of a row, that its codec adds to
step_costs: dict[str, float] = {}  # operations of a step by fingerprint: seconds of tracing
UPSTREAM = {"codec_workdir": "codec", "teacher_workdir": "teacher"}  # field of a model: role


def codec_cost(settings: ConfigDict) -> dict[str, Any]:
  """What it took to train the codec of a model of latents, or the teacher of a student.

  Args:
    settings: The model's config.

  Returns:
    {} where there is none, else see `cost_of`.
  """
  workdir = next(filter(None, map(settings.model.get, UPSTREAM)), None)
  return cost_of(workdir) if workdir else {}


def cost_of(workdir: str) -> dict[str, Any]:
  """What it took to train what lies in a workdir.

  Returns:
    Its workdir, step, train_seconds, train_images and flops; without the last
    four where they are not known: the workdir is gone, or holds weights that
    were trained elsewhere.
  """
  try:
    card = meta.latest(workdir)
  except UserError:
    return {"workdir": workdir}
  if not card.get("seconds") or card.get("import"):
    return {"workdir": workdir}
  own, step = meta.settings(card), card["step"]
  return {
    "workdir": workdir,
    "step": step,
    "train_seconds": card["seconds"],
    "train_images": step * own.batch,
    "flops": training_flops(own, step),
  }


def fingerprint(settings: ConfigDict) -> str:
  """Of all that makes a model, but its seed and the seeds of what it was trained from."""
  own = {k: v for k, v in as_json(settings).items() if k not in SEEDS}
  model = {k: bool(v) if k in UPSTREAM else v for k, v in own["model"].items()}
  return files.digest(own | {"model": model})


def upstream(settings: ConfigDict) -> dict[str, str]:
  """{workdir: role} of all that a model was trained from, and that these were: each once.

  Codecs wrote the latents that it learned, teachers what it imitates.
  """
  roles: dict[str, str] = {}
  queue = [settings]
  while queue:
    model = queue.pop(0).model
    for field, role in UPSTREAM.items():
      workdir = model.get(field) or presets.stepping(model).get(field)
      if not workdir or workdir in roles:
        continue
      roles[workdir] = role
      try:
        queue.append(meta.settings(meta.latest(workdir)))
      except UserError:
        continue  # it is gone: nobody knows what it was trained from
  return roles


def training_cost(settings: ConfigDict, workdir: str) -> dict[str, Any]:
  """What it took to train a model, with all that it was trained from.

  Returns:
    PAID, each the sum or None where the model's own is not known; "upstream", a
    list of `cost_of` with "role"s, of which those that are not known add nothing.
  """
  own = cost_of(workdir)
  parts = [cost_of(w) | {"role": role} for w, role in upstream(settings).items()]
  total = {}
  for key in PAID:
    known = [part[key] for part in parts if part.get(key) is not None]
    total[key] = None if own.get(key) is None else own[key] + sum(known)
  return total | {"upstream": parts}


def training_flops(settings: ConfigDict, step: int) -> float | None:
  """Floating-point operations of so many train steps, see `device.flops`.

  None where they cannot be counted: the data are gone, whose shapes they need.
  """
  key = fingerprint(settings)
  if key not in step_costs:
    try:
      experiment, source = Experiment.of(settings), open_data(settings)
    except UserError:
      return None
    costs = step_flops(experiment, source, settings.batch)
    step_costs[key] = mean_over_cycle(experiment.model, costs)
  return step * step_costs[key]


def charge(row: Row, codec: dict[str, Any]) -> Row:
  """A row with what its codec cost added, and the codec as "codec".

  Where that is not known, numbers are the model's alone.
  """
  paid = {k: row[k] + codec[k] for k in PAID if row.get(k) is not None and codec.get(k) is not None}
  return row | paid | {"codec": codec}


def title(model: Sampler) -> str:
  """The kind of a model for readers: Diffusion, or Latent Diffusion over a codec."""
  inner = trait(model.model, "model") if trait(model.model, "codec") else None
  return f"Latent {type(inner).__name__}" if inner else type(model.model).__name__
