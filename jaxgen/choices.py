"""What can be chosen after training: how to sample, and at which times."""
from ml_collections import ConfigDict

from jaxgen.build import build, nearest
from jaxgen.diffusion import times
from jaxgen.errors import UserError

SAMPLERS = {
    "ancestral": dict(name="diffusion.samplers.ancestral"),
    "ddim": dict(name="diffusion.samplers.ancestral", eta=0.),
    "euler": dict(name="diffusion.samplers.euler"),
    "heun": dict(name="diffusion.samplers.heun"),
    "dpmpp_2m": dict(name="diffusion.samplers.dpmpp_2m"),
    "dpmpp_2m_sde": dict(name="diffusion.multistep.dpmpp_2m_sde"),
    "unipc": dict(name="diffusion.multistep.unipc"),
    "pc": dict(name="diffusion.sde.pc"),
}


def with_sampler(model: ConfigDict, name: str) -> ConfigDict:
  """A model's config with one of SAMPLERS, with its own defaults."""
  if "sampler" not in model:
    raise UserError(f"{model.name} does not sample in steps: leave --sampler")
  if name not in SAMPLERS:
    raise UserError(f"there is no sampler {name!r}" + nearest(name, SAMPLERS))
  return ConfigDict(model.to_dict() | {"sampler": SAMPLERS[name]})


PATHS = ("even", "karras", "ddim", "spaced", "quadratic", "warped")


def with_respacing(model: ConfigDict, spacing: str) -> ConfigDict:
  """A model's config with the times that ADM calls "ddim25", "250", ...

  See diffusion.times.named; their number becomes that of the steps. Or with one
  of PATHS, for any number of steps.
  """
  if spacing in PATHS and "path" in model:
    path = {"name": f"diffusion.times.{spacing}"}
    return ConfigDict(model.to_dict() | {"path": path})
  steps = getattr(build(model.get("process", {})), "steps", None)
  if steps is None:
    raise UserError("respacing takes some of the steps that a diffusion model "
                    "was trained on, and this one knows none: leave it")
  try:
    count = times.count(spacing, steps)
  except ValueError as e:
    raise UserError(str(e)) from e
  path = {"name": "diffusion.times.named", "spacing": spacing}
  return ConfigDict(model.to_dict() | {"path": path, "steps": count})
