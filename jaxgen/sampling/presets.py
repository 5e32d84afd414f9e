"""What can be chosen after training: samplers, paths, knobs."""

import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen.config import build
from jaxgen.core import trait
from jaxgen.diffusion import times
from jaxgen.diffusion.traits import traits
from jaxgen.errors import UserError, nearest
from jaxgen.models.diffusion import LONGEST

INF = float("inf")
FROM_ZERO = "lo hi eta churn s_min s_max s_noise snr cap temperature noise cutoff top_k".split()
# Knob -> least, most, and whether the least is too little. Others: any number.
RANGES = {k: (0, INF, False) for k in FROM_ZERO} | {
  "steps": (1, LONGEST, False),
  "frac": (0, 1, False),
  "level": (0, 1, False),
  "truncate": (0, 1, False),
  "truncation": (0, INF, True),
  "first": (0, 1, True),
  "bend": (0, INF, True),
  "omega": (0, INF, True),
  "t_min": (0, 1, False),
  "t_max": (0, 1, False),
  "image_stats": (0, 1, False),
  "dropout": (0, 1, False),
  "backwards": (0, 1, False),
}
SAMPLERS = {
  name: dict(name=f"diffusion.samplers.{name}")
  for name in "ancestral ddim euler heun dpmpp_2m dpmpp_2m_sde unipc pc waveform".split()
} | {
  "ddim": dict(name="diffusion.samplers.ancestral", eta=0.0),
  "unipc": dict(name="diffusion.unipc.unipc"),
}
# Those of SiT, for processes in continuous time alone.
IN_TIME = {
  name: dict(name=f"diffusion.interpolants.{name}")
  for name in ("ode_euler", "ode_heun", "sde_euler", "sde_heun")
}
PATHS = ("even", "karras", "ddim", "spaced", "quadratic", "warped", "jumps")
# DiffWave's schedules of six steps (Kong et al. 2021, App. B), by those of training.
FAST = {50: (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5), 200: (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.7)}


def with_sampler(model: ConfigDict, name: str) -> ConfigDict:
  """A model's config with one of SAMPLERS or IN_TIME, with its own defaults."""
  if "sampler" not in model:
    raise UserError(f"{model.name} does not sample in steps: leave --sampler")
  check_sampler(name)
  choices = SAMPLERS | IN_TIME
  if name in IN_TIME and (steps := trait(build(model.get("process", {})), "steps")):
    raise UserError(
      f"the sampler {name} steps in continuous time, and this model's process has {steps} steps: "
      f"choose one of {', '.join(SAMPLERS)}"
    )
  return ConfigDict(model.to_dict() | {"sampler": choices[name]})


def check_sampler(name: str) -> None:
  """UserError for a name that is none of SAMPLERS or IN_TIME."""
  choices = SAMPLERS | IN_TIME
  if name not in choices:
    _, hint, close = nearest(name, choices).partition("; did you mean")
    raise UserError(f"there is no sampler {name!r}, but {', '.join(choices)}{hint}{close}")


def stepping(model: Mapping[str, Any]) -> Mapping[str, Any]:
  """The config of what samples, in steps if at all: of latents, the model within."""
  return model["model"] if "codec" in model and "model" in model else model


def with_stepping(model: ConfigDict, steps: ConfigDict) -> ConfigDict:
  """A model's config with `steps` for what `stepping` gives of it."""
  within = stepping(model) is not model
  return ConfigDict(model.to_dict() | {"model": steps.to_dict()}) if within else steps


def samplers_with(knob: str) -> list[str]:
  """Names of the samplers that have a knob."""
  choices = SAMPLERS | IN_TIME
  return [name for name, spec in choices.items() if knob in traits(build(spec)).knobs]


def check_knob(name: str, value: float, default: float) -> None:
  """UserError for a value that a knob cannot have.

  Its name may end in the number of a cascade's stage. Where the default is
  infinite ("no bound"), the value may be, too.
  """
  kind = re.sub(r"_\d+$", "", name)
  low, high, exclusive = RANGES.get(kind, (-INF, INF, False))
  try:
    with np.errstate(over="ignore"):
      value = np.float32(value)
  except (TypeError, ValueError):
    raise UserError(f"{name}={value!r}: want a number") from None
  if not np.isfinite(value) and not value == default == INF:
    raise UserError(f"{name}={value:g}: want a finite number")
  if not low <= value <= high or exclusive and value == low:
    if high < INF and not exclusive:
      raise UserError(f"{name}={value:g}: want {low} to {high}")
    want = f"more than {low}" if exclusive else f"at least {low}"
    raise UserError(f"{name}={value:g}: want {want}" + f", at most {high}" * (high < INF))
  if kind == "steps" and value % 1:
    raise UserError(f"{name}={value:g}: want a whole number")


def with_respacing(model: ConfigDict, spacing: str) -> ConfigDict:
  """A model's config with the times that ADM calls "ddim25", "250", ...

  See `diffusion.times.named`; their number becomes that of the steps. Or with
  one of PATHS, for any number of steps; or "fast", DiffWave's six; or "0,22/40",
  two of Karras' 40 points, see `diffusion.times.chosen`.
  """
  if spacing in PATHS and "path" in model:
    path = {"name": f"diffusion.times.{spacing}"} | (ends(model) if spacing == "jumps" else {})
    return ConfigDict(model.to_dict() | {"path": path})
  if "/" in spacing and "path" in model:
    ts, of = indices(spacing)
    path = {"name": "diffusion.times.chosen", "ts": ts, "of": of} | ends(model)
    return ConfigDict(model.to_dict() | {"path": path, "steps": len(ts)})
  steps = trait(build(model.get("process", {})), "steps")
  if steps is None:
    raise UserError(
      "respacing takes some of the steps that a diffusion model "
      "was trained on, and this one knows none: leave it"
    )
  if spacing == "fast":
    if steps not in FAST or "path" not in model:
      raise UserError(
        f"respacing=fast is of DiffWave's chains of {' or '.join(map(str, FAST))} steps, and this "
        f"model's has {steps}: give a number of steps"
      )
    path = {"name": "diffusion.times.shorter", "betas": FAST[steps]}
    return ConfigDict(model.to_dict() | {"path": path, "steps": len(FAST[steps])})
  try:
    points = times.count(spacing, steps)
  except ValueError as e:
    raise UserError(str(e)) from e
  path = {"name": "diffusion.times.named", "spacing": spacing}
  return ConfigDict(model.to_dict() | {"path": path, "steps": points})


def ends(model: ConfigDict) -> dict[str, float]:
  """Of the path that a model has, those fields that a path of few steps has, too."""
  return {k: model.path[k] for k in ("lo", "hi", "rho") if k in model.path}


def indices(spacing: str) -> tuple[tuple[int, ...], int]:
  """Of "0,22/40" (0, 22) and 40; UserError unless they rise from 0 and stay below."""
  try:
    *ts, of = map(int, re.split("[,/]", spacing))
  except ValueError:
    ts, of = [], 0
  if not ts or ts[0] or any(a >= b for a, b in itertools.pairwise([*ts, of])):
    raise UserError(
      f"respacing={spacing}: want indices from 0 on of so many points, such as 0,22/40"
    )
  return tuple(ts), of


# Arguments of `load` that are flags.
CHOICES = ("ema", "step", "sampler", "respacing", "classifier", "worse", "guide_ema", "guide_step")
KNOBS = {
  "steps": "points of the path",
  "guidance": "weight of guidance without a classifier; 1: none",
  "scale": "weight of the classifier's gradient; 0: none",
  "auto": "weight of guidance away from the worse model; 1: none",
  "lo": "guide above this sigma / alpha",
  "hi": "guide up to this sigma / alpha",
  "eta": "share of fresh noise: 0 DDIM's, 1 DDPM's",
  "frac": "DDPM's variance: 0 fixed small, 1 fixed large",
  "churn": "Heun's fresh noise",
  "s_min": "churn above this sigma / alpha",
  "s_max": "churn below this sigma / alpha",
  "s_noise": "churn's noise",
  "snr": "of the corrector's Langevin steps",
  "cap": "of a Langevin step, as a share of sigma^2; default: none",
  "level": "an upsampler's noise on its small images, 0 to 1",
  "first": "noisiest time of --respacing warped",
  "bend": "its power: above 1 there are more points at low noise",
  "temperature": "of z",
  "noise": "share of a VAE's own noise",
  "truncation": "bound of z; the less, the more typical and the more alike",
  "psi": "styles' distance from their mean; 1: as they are",
  "cutoff": "psi is for so many of the first layers",
  "omega": "scale of the guidance that improved MeanFlow learned; 1: none",
  "t_min": "where it begins, 0 (data) to 1 (noise)",
  "t_max": "where it ends",
}


def knobs_from_flags(values: flags.FlagValues) -> dict[str, float]:
  """The knobs that flags set, by their own names and in --knobs."""
  knobs = {k: values[k].value for k in KNOBS if k in values and values[k].value is not None}
  for word in (values.knobs or "").split(",") if values.knobs else ():
    name, _, value = word.partition("=")
    try:
      knobs[name] = float(value)
    except ValueError:
      raise UserError(f"--knobs={word}: want knob=number, with commas between") from None
  return knobs
