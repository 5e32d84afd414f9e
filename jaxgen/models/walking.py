"""From a denoiser to samples: the path, the sampler and their knobs."""
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxgen.core import Array, Batch, Key, State
from jaxgen.diffusion import samplers, truncation
from jaxgen.diffusion.estimate import Denoise
from jaxgen.diffusion.process import Noise
from jaxgen.keys import fold

LONGEST = 4000  # points of a sampling path at the most


def defaults(f: Callable) -> dict[str, float]:
  """The arguments of f that default to a float."""
  parameters = inspect.signature(f).parameters
  return {k: p.default for k, p in parameters.items()
          if isinstance(p.default, float)}


def path_knobs(path: Callable) -> dict[str, float]:
  """Arguments of a path that can be turned, with their defaults."""
  known = defaults(path)
  return {k: known[k]
          for k in getattr(getattr(path, "func", path), "knobs", ())}


def points(model: Any, knobs: dict[str, Any]
           ) -> tuple[Noise, Array, dict[str, Any]]:
  """The path, how many of its points, and the knobs that are not theirs."""
  turned = path_knobs(model.path).keys() & knobs.keys()
  n = jnp.clip(jnp.asarray(knobs["steps"], jnp.int32), 1, LONGEST)
  t = model.path(model.process, jnp.arange(LONGEST), n,
                 **{k: knobs[k] for k in turned})
  rest = {k: v for k, v in knobs.items() if k != "steps" and k not in turned}
  return model.process(t), n, rest


def along(model: Any, D: Denoise, path: Noise, n: Array, batch: Batch,
          key: Key, knobs: dict[str, Any]) -> Array:
  """Samples along a path, from noise or from batch["noise"] ~ N(0, 1)."""
  if "noise" in batch:
    x_T = path.sigma[0] * batch["noise"]
  else:
    x_T = samplers.initial(path, fold(key, 0), batch["x"].shape[1:])
  if "process" in inspect.signature(model.sampler).parameters:
    knobs = knobs | {"process": model.process}  # to churn on it
  return model.sampler(D, x_T, path, n, fold(key, 1), **knobs)


def until(model: Any, state: State, batch: Batch, key: Key, stop: Array,
          **knobs) -> tuple[Array, Noise]:
  """`sample` that ends early: -> x_t where logsnr = `stop`, and t.

  At the last point of the path that is at least as noisy. Where `stop` is
  infinite it goes all the way, to x_0.
  """
  D, batch, knobs = model.prepared(state, batch, key, knobs)
  path, n, knobs = points(model, knobs)
  D, path, n, t = truncation.stopped(D, path, n, stop)
  return along(model, D, path, n, batch, key, knobs), t
