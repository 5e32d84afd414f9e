"""How likely real data is to a model, in bits per dimension.

  jaxgen likelihood --workdir W --method bound
  jaxgen likelihood --workdir W --method ode --steps 64 --num 100
  jaxgen likelihood --workdir PRIOR

`bound` is the variational bound of the whole chain (Ho et al. 2020, Eq. 5), or
of `--steps` of it; `ode` follows the probability-flow ODE (Song et al. 2021,
Sec. 4.3), with the trace of its slope estimated from one random direction. Of
a prior of codes it is exact, in bits for a code: the images are encoded by its
codec, and what that loses is not in it. For every family at a small cost:
likelihoods.py.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from jaxgen import core, files
from jaxgen.data.sources import open_split
from jaxgen.data.summary import introduce
from jaxgen.diffusion import likelihood, times
from jaxgen.errors import UserError, guarding
from jaxgen.evaluation.likelihoods import denoises_images, measure, ode
from jaxgen.models.autoregressive import Autoregressive
from jaxgen.models.hierarchy import Hierarchy
from jaxgen.monitor.results import check_file
from jaxgen.sampling.sampler import Sampler, key_of, load
from jaxgen.sampling.stages import data_of

METHODS = ("bound", "ode")
PRIORS = Autoregressive | Hierarchy
IN_BUCKETS = ("workdir", "out")  # flags that take gs://bucket/name


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  for name, default, text in (
    ("workdir", None, "of the trained diffusion model, or of a prior of codes"),
    ("out", None, "x.json gets the result"),
    ("split", "test", "of the data that the model was trained on"),
    ("method", None, " or ".join(METHODS) + "; default: bound, and of a prior neither"),
    ("ema", None, "profile of averaged weights"),
  ):
    flags.DEFINE_string(name, default, text, flag_values=values)
  for name, default, text in (
    ("num", None, "images; default: the whole split"),
    ("steps", None, "of the chain (default: all) or the ODE (default: 64)"),
    ("batch", 128, "images at once"),
    ("seed", 0, "of all randomness"),
  ):
    flags.DEFINE_integer(name, default, text, flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdir:
    raise UserError("likelihood needs --workdir=W")
  if values.method not in (None, *METHODS):
    raise UserError(f"--method={values.method}: want {' or '.join(METHODS)}")
  for name in ("num", "steps", "batch"):
    if values[name].value is not None and values[name].value < 1:
      raise UserError(f"--{name}={values[name].value}: want at least 1")
  key_of(values.seed)
  if values.out:
    check_file(values.out)
  model = load(values.workdir, ema=values.ema)
  method = method_of(model, values.method, values.steps)
  data = data_of(values.workdir)
  source = open_split(data, values.split)
  introduce(source, values.split)
  x, y = source.arrays()
  n = min(values.num or len(x), len(x))
  with guarding(f"{values.workdir} knows no likelihoods"):
    if method == "bound":
      run, steps = bound(model, values.steps)
    else:
      run, steps = (ode(model), values.steps or 64) if method == "ode" else (exact(model), 1)
  parts = measure(model, run, x[:n], None if y is None else y[:n], values.batch, values.seed, steps)
  origin = model.card | {
    "split": values.split,
    "data": source.fingerprint,
    "seed": values.seed,
    "num": n,
    "method": method,
    "steps": steps,
  }
  report(values, parts, origin, "code" if method == "exact" else "dim")


def method_of(model: Sampler, method: str | None, steps: int | None) -> str:
  """How it is measured: one of METHODS, or "exact"; UserError if it cannot be."""
  family = model.model
  if inner := core.trait(family, "model"):
    if not isinstance(inner, PRIORS):
      raise UserError(
        f"a {type(inner).__name__} of latents knows no likelihoods of images: of models of "
        "latents only priors of codes do, such as those of configs/vqvae2_prior.py"
      )
    if method or steps:
      raise UserError("a prior's likelihoods are exact: leave --method and --steps")
    return "exact"
  if not denoises_images(family):
    raise UserError("only a diffusion model of whole images knows likelihoods, or a prior of codes")
  return method or "bound"


def exact(model: Sampler) -> Callable:
  """-> (state, batch, keys, _) -> {"total": [B], and of each level}.

  Bits for a code, of a prior's codes of the images; all codes count alike.
  """
  latent = model.model

  def run(state, batch, keys, _):
    codes = latent.encoded(state, batch, keys)
    bits = latent.model.bits_per_dim(state, codes)
    if not isinstance(bits, dict):
      return {"total": bits}
    count = {level: x[0].size for level, x in codes["x"].items()}
    total = sum(bits[level] * n for level, n in count.items()) / sum(count.values())
    return {"total": total} | bits

  return run


def bound(model: Sampler, steps: int | None) -> tuple[Callable, int]:
  """-> (state, batch, keys, steps) -> {name: [B]}; and the number of steps."""
  process = model.model.process
  length = core.trait(process, "steps")
  if length is None:
    raise UserError("the bound is of a chain of steps, and this process knows none: --method=ode")
  if model.dtype != np.uint8:
    raise UserError("the bound is of bytes, and these data are none: --method=ode")
  steps = min(steps or length, length)
  path = process(times.spaced(process, np.arange(steps), steps))
  frac = float(model.model.knobs.get("frac", 1.0))

  def run(state, batch, keys, _):
    D = model.model.denoiser(state, batch)
    terms = likelihood.bound_bpd(D, batch["x"], path, keys, frac)
    return {"total": terms["total"], "prior": terms["prior"], "vb": terms["vb"].sum(1)}

  return run, steps


def report(
  values: flags.FlagValues, parts: dict[str, np.ndarray], origin: dict[str, Any], unit: str
) -> None:
  """Means over images and their standard errors: printed, and written.

  `unit` is what the bits are counted for: a dim, or a code.
  """
  if not all(np.isfinite(v).all() for v in parts.values()):
    raise UserError("some likelihoods are not finite: the weights are ill, or the path too coarse")
  result = {k: float(v.mean()) for k, v in parts.items()}
  errors = {k: float(v.std() / np.sqrt(len(v))) for k, v in parts.items()}
  for k, mean in result.items():
    print(f"{k:6} {mean:9.4f} ± {errors[k]:.4f} bits/{unit}")
  if values.out:
    files.write_json(values.out, {"made": origin, "bits_per_dim": result, "standard_error": errors})
