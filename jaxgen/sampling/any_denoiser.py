"""Samplers for any denoiser: a function of x and a noise level, and no more.

No workdir, no model, no config. In the manner of k-diffusion:

  x_0 = jaxgen.run_sampler(D, x, sigmas=jaxgen.karras_sigmas(20))

where D(x, sigma) is an estimate of x_0 from x = x_0 + sigma eps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.config import build
from jaxgen.core import Array, Key
from jaxgen.diffusion import times
from jaxgen.diffusion.process import EDM, Noise
from jaxgen.diffusion.traits import traits
from jaxgen.errors import UserError, nearest
from jaxgen.sampling import presets
from jaxgen.sampling.parts import keys_of

# Those that draw whatever their knobs are, and knobs that make others draw.
DRAWS = {"ancestral", "dpmpp_2m_sde", "pc", "waveform", "sde_euler", "sde_heun"}
DRAWING = ("eta", "churn")


def karras_sigmas(steps: int, lo: float = 0.002, hi: float = 80.0, rho: float = 7.0) -> np.ndarray:
  """hi .. lo, and 0: float32 [steps + 1] (Karras et al. 2022, Eq. 5).

  k-diffusion's `get_sigmas_karras`; its own defaults are other ends.
  """
  if steps < 1:
    raise UserError(f"steps={steps}: want at least 1")
  sigmas = np.linspace(hi ** (1 / rho), lo ** (1 / rho), steps) ** rho
  return np.append(sigmas, 0).astype(np.float32)


def run_sampler(
  denoise: Callable[[Array, Array], Array],
  x_T: Array,
  *,
  sigmas: Array | None = None,
  process: Callable | None = None,
  path: Callable = times.karras,
  steps: int = 18,
  sampler: str | Callable = "dpmpp_2m",
  key: int | Key | None = None,
  **knobs: Any,
) -> Array:
  """From noise to x_0, [B, ...], by a denoiser of your own; pure, under jit and grad.

  Without a process, levels are sigmas, x = x_0 + sigma eps, and `denoise` is
  D(x, sigma []); `m.denoiser()` is one. With a process they are its times, x_t =
  alpha x_0 + sigma eps, and it is D(x_t, t []); so is `m.denoiser(by="t")`.

  Args:
    denoise: Estimates x_0, shaped like x.
    x_T: [B, ...], with noise of the first level: sigmas[0] times N(0, 1), say.
    sigmas: [n] or, with a last 0 as k-diffusion has it, [n + 1]: falling; may
      be traced. Default: `karras_sigmas(steps)`.
    process: t -> Noise(t, alpha, sigma), one of `diffusion.process`.
    path: Of a process: (process, i, n) -> t, one of `diffusion.times`.
    steps: Number of levels, where `sigmas` does not say; a Python int for a
      loop that reverse-mode differentiation goes through.
    sampler: One of presets.SAMPLERS or IN_TIME, or a function as they are.
    key: A key or a seed, or keys [B]: of samplers that draw.
    **knobs: Of the sampler, such as eta, churn; may be traced.

  Raises:
    UserError: There is no such sampler or knob, levels do not fall, or a
      sampler draws and there is no key.
  """
  function = sampler_of(sampler)
  check_knobs(sampler, function, knobs)
  if key is None and draws(sampler, knobs):
    raise UserError(f"the sampler {sampler} draws: give key=")
  if process is not None and sigmas is not None:
    raise UserError("give sigmas or a process, not both")
  if process is None:
    process, (points, n) = EDM(), levels_of(karras_sigmas(steps) if sigmas is None else sigmas)
  else:
    n = steps
    points = process(path(process, jnp.arange(presets.LONGEST), n))
  if "process" in traits(function).takes:
    knobs = knobs | {"process": process}
  at = lambda x_t, t: denoise(x_t, t.t)
  x_T = jnp.asarray(x_T)
  return function(at, x_T, points, n, keys_of(0 if key is None else key, len(x_T)), **knobs)


def sampler_of(sampler: str | Callable) -> Callable:
  """The function of that name."""
  if callable(sampler):
    return sampler
  presets.check_sampler(sampler)
  return build((presets.SAMPLERS | presets.IN_TIME)[sampler])


def check_knobs(sampler: str | Callable, function: Callable, knobs: dict[str, Any]) -> None:
  """UserError for a knob that a sampler does not have."""
  known = traits(function).knobs
  for name in knobs:
    if name not in known:
      hint = nearest(name, known) if known else ": it has none"
      raise UserError(f"the sampler {sampler} has no knob {name!r}{hint}")


def draws(sampler: str | Callable, knobs: dict[str, Any]) -> bool:
  """Whether it needs a key; not known of a function: then it does, if it has such a knob."""
  turned = [k for k in DRAWING if k in knobs and not _is_zero(knobs[k])]
  return bool(turned) or sampler in DRAWS and not _is_zero(knobs.get("eta", 1.0))


def _is_zero(value: Any) -> bool:
  return not isinstance(value, jax.core.Tracer) and float(value) == 0


def levels_of(sigmas: Array) -> tuple[Noise, Array | int]:
  """Levels of EDM's process, and how many of them are not 0."""
  if not isinstance(sigmas, jax.core.Tracer):
    sigmas = np.asarray(sigmas, np.float32)
    falls = sigmas.ndim == 1 and np.isfinite(sigmas).all() and (np.diff(sigmas) < 0).all()
    if not falls or not len(sigmas) or sigmas[0] <= 0 or sigmas[-1] < 0:
      raise UserError("sigmas are to be falling numbers above 0, the last may be 0")
    sigmas = sigmas[sigmas > 0]
    return EDM()(jnp.asarray(sigmas)), len(sigmas)
  n = jnp.sum(sigmas > 0)
  return EDM()(jnp.where(sigmas > 0, sigmas, sigmas[n - 1])), n
