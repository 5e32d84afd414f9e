"""At which settings a model is measured: samplers and steps, or truncations."""

from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from jaxgen.compare.knobs import most_steps
from jaxgen.config import build
from jaxgen.core import Model
from jaxgen.sampling import presets

DIFFUSION = "models.diffusion.Diffusion"  # whose samplers can be chosen
SAMPLERS = ("ddim", "dpmpp_2m")  # beside a model's own, where nobody says which
NFE = (1.0, 2.0, 4.0, 8.0, 25.0)
# Knobs that make samples of a single evaluation more typical and more alike, the
# first that a model has, and at which values beside the model's own.
TRUNCATION = {"psi": (0.5, 0.7), "truncation": (0.5, 1.0), "temperature": (0.5, 0.8)}


class Curve(NamedTuple):
  """A curve of the picture: settings that one program samples with.

  Attributes:
    sampler: By name; None: the model's own, or none.
    name: What it is called; "" for models without samplers.
    axis: The knob that turns, or "".
    knobs: Of each point.
  """

  sampler: str | None
  name: str
  axis: str
  knobs: tuple[dict[str, float], ...]


def curves(
  config: ConfigDict,
  samplers: Sequence[str] = (),
  nfe: Sequence[float] = NFE,
  truncation: Sequence[float] = (),
) -> list[Curve]:
  """All curves of a model.

  Args:
    config: Of the model.
    samplers: By name, for diffusion models; (): the model's own and SAMPLERS.
      What was trained for few steps keeps the sampler that it was trained for.
    nfe: Network evaluations, at the most; for models that take steps.
    truncation: Values of TRUNCATION's knob for the others; (): its defaults and
      the model's own.

  Raises:
    UserError: There is no such sampler, or a knob cannot have such a value.
  """
  steps = presets.stepping(config.model)
  model = build(config.model)
  if "sampler" not in steps or "steps" not in model.knobs:
    return [curve(None, "", model, nfe, truncation)]
  own = own_name(steps["sampler"])
  if steps["name"] != DIFFUSION:
    return [curve(None, own, model, nfe, truncation)]
  all_curves = []
  for name in samplers or dict.fromkeys((own, *SAMPLERS)):
    chosen = None if name == own else name
    settings = config.model
    if chosen:
      settings = presets.with_stepping(settings, presets.with_sampler(steps, chosen))
    all_curves.append(curve(chosen, name, build(settings), nfe, truncation))
  return all_curves


def own_name(sampler: ConfigDict) -> str:
  """What a config's sampler is called: as the preset that it is, else as its function."""
  spec = ConfigDict(sampler).to_dict()
  function = spec["name"].rpartition(".")[2]
  choices = presets.SAMPLERS | presets.IN_TIME
  return next((name for name, preset in choices.items() if preset == spec), function)


def curve(
  sampler: str | None, name: str, model: Model, nfe: Sequence[float], truncation: Sequence[float]
) -> Curve:
  """The curve of one sampler: each setting once, checked."""
  if "steps" in model.knobs:
    axis = "steps"
    steps = [s for n in nfe if (s := most_steps(model, n)) is not None]
    knobs = [{"steps": s} for s in dict.fromkeys(fewest(model, s) for s in steps)]
  else:
    axis = next((k for k in TRUNCATION if k in model.knobs), "")
    values = truncation or (TRUNCATION[axis] if axis else ())
    knobs = [{axis: v} for v in dict.fromkeys(values) if axis]
    if not truncation:
      knobs.append({})
  for own in knobs:
    for knob, value in own.items():
      presets.check_knob(knob, value, model.knobs[knob])
  return Curve(sampler, name, axis, tuple(knobs) or ({},))


def fewest(model: Model, steps: float) -> float:
  """The fewest steps that cost as much: a chain that was trained for four takes no more."""
  while steps > 1 and model.nfe(steps=steps - 1) == model.nfe(steps=steps):
    steps -= 1
  return steps
