"""A sampler as a file that jax alone runs: no config, no workdir, no jaxgen.

  jaxgen export --source stablehlo --workdir W --out x.stablehlo

writes two files. x.stablehlo is the program, serialised by `jax.export` for
CPU, CUDA and TPU; x.npz holds its weights by name, and as "info" JSON that says
what the program takes, gives and is from. In a process that has jax and NumPy:

  file = np.load("x.npz", allow_pickle=False)
  info = json.loads(str(file["info"]))
  program = jax.export.deserialize(bytearray(open("x.stablehlo", "rb").read()))
  weights = {k: file[k] for k in info["weights"]}
  inputs = {"i": np.arange(4, dtype=np.int32), "labels": np.zeros(4, np.int32)}
  x = program.call(weights, key, inputs, info["knobs"])

`key` is uint32 [2]: `jax.random.key_data(jax.random.key(seed))`. Inputs and knobs
are as `info` lists them, all of them; knobs are float32 scalars, so no number
makes another program. x is the data's own: uint8 images, as `jaxgen sample` has
them. Both files are data: reading them runs nothing but what StableHLO can say.
"""

import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxgen import core, files
from jaxgen.errors import UserError
from jaxgen.monitor.results import check_file, ours
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.trained import condition_shape

PLATFORMS = ("cpu", "cuda", "tpu")
MEMBER = "program"  # of x.npz: the digest of the program that it goes with
Specs = dict[str, jax.ShapeDtypeStruct]


def export_sampler(
  model: Sampler, out: str, batch: int | None = None, noise: bool = False, **knobs: float
) -> dict[str, Any]:
  """Writes x.stablehlo and x.npz of a model; see above.

  Args:
    model: What samples.
    out: x.stablehlo.
    batch: Number of samples of a call; None: any.
    noise: Whether x_T, or z, is an input: "noise", float32 [batch, *noise_shape].
    **knobs: Their values in `info`, in place of the model's defaults.

  Returns:
    What x.npz has as "info".

  Raises:
    UserError: The model has no such knob or noise; or something else is in the
      way of the files.
  """
  path = check_files(out)
  settings = model.settings(knobs)
  inputs = specs(model, noise)
  if noise:
    settings.pop("noise", None)  # a VAE's knob of that name
  weights = flat(model.params)
  exported = lowered(model, weights, inputs, settings, batch)
  content = bytes(exported.serialize())
  info = {
    "made": "jaxgen export",
    "jax": jax.__version__,
    "platforms": PLATFORMS,
    "batch": batch or "any",
    "inputs": {k: {"dtype": str(s.dtype), "shape": ["batch", *s.shape]} for k, s in inputs.items()},
    "knobs": settings,
    "output": {"dtype": str(model.dtype), "shape": ["batch", *model.shape]},
    "classes": model.classes,
    "class_names": model.class_names,
    "weights": sorted(weights),
    "model": model.card,
  }
  arrays = weights | {MEMBER: hashlib.sha256(content).hexdigest()}
  arrays["info"] = json.dumps(files.plain(info))
  with files.atomic(beside(path)) as draft, draft.open("wb") as file:
    np.savez(file, **arrays)
  files.write_bytes(path, content)
  return info


def beside(path: Path) -> Path:
  """The file of weights that goes with a program's."""
  return path.with_suffix(".npz")


def check_files(out: str) -> Path:
  """x.stablehlo as a path; UserError where files of ours cannot be written."""
  if not importlib.util.find_spec("flatbuffers"):
    raise UserError("programs are serialised by flatbuffers: pip install 'jaxgen[export]'")
  path = files.path(out)
  if path.suffix != ".stablehlo":
    raise UserError(f"--out={out}: want x.stablehlo; weights come beside it, as x.npz")
  check_file(beside(path), "--out", MEMBER)
  if not ours(beside(path), MEMBER):
    check_file(path)
  return path


def specs(model: Sampler, noise: bool) -> Specs:
  """What one sample is made of beside weights, key and knobs."""
  spec = jax.ShapeDtypeStruct
  inputs = {"i": spec((), jnp.int32)}
  if model.classes:
    inputs["labels"] = spec((), jnp.int32)
  if noise:
    if model.noise_shape is None:
      raise UserError(f"a {type(model.model).__name__} begins with no noise: leave --with_noise")
    inputs["noise"] = spec(model.noise_shape, jnp.float32)
  for name, make in core.trait(model.model, "cond").items():
    if make is None:
      raise UserError(f"this model makes x from {name}, whose shape is not known: no export")
    dtype = np.dtype(np.float32) if name == "mel" else model.dtype
    inputs[name] = spec(condition_shape(make, model.shape), dtype)
  return inputs


def flat(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Weights by name, "net/params/conv/kernel"; of floats narrower than NumPy's float32."""
  leaves = traverse_util.flatten_dict(params, sep="/")
  wide = lambda x: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x
  return {k: wide(np.asarray(v)) for k, v in jax.device_get(leaves).items()}


def lowered(
  model: Sampler,
  weights: Mapping[str, np.ndarray],
  inputs: Specs,
  knobs: Mapping[str, float],
  batch: int | None,
) -> Any:
  """The program, exported: (weights, key, inputs, knobs) -> x."""
  (size,) = (batch,) if batch else jax.export.symbolic_shape("batch")
  spec = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
  args = (
    {k: spec(v) for k, v in weights.items()},
    jax.ShapeDtypeStruct((2,), jnp.uint32),
    {k: jax.ShapeDtypeStruct((size, *s.shape), s.dtype) for k, s in inputs.items()},
    dict.fromkeys(knobs, jax.ShapeDtypeStruct((), jnp.float32)),
  )
  run = jax.jit(functools.partial(_sample, model, batch))
  try:
    return jax.export.export(run, platforms=PLATFORMS)(*args)
  except Exception as e:
    if batch:
      raise
    raise UserError("this model is a program of one size of batches only: give --batch=N") from e


def _sample(
  model: Sampler,
  batch: int | None,
  weights: Mapping[str, Any],
  key: Any,
  inputs: Mapping[str, Any],
  knobs: Mapping[str, Any],
) -> Any:
  """What is exported. Of any batch, it is one sample, mapped."""
  types = traverse_util.flatten_dict(model.params, sep="/")
  named = {k: v.astype(types[k].dtype) for k, v in weights.items()}
  params = traverse_util.unflatten_dict(named, sep="/")
  key = jax.random.wrap_key_data(key)
  if batch:
    return model.as_data(model.sample_fn(batch)(params, key, {**inputs, **knobs}))
  return jax.vmap(_one(model, params, key, knobs))(inputs)


def _one(model: Sampler, params: Any, key: Any, knobs: Mapping[str, Any]) -> Callable:
  """Inputs of one example -> its sample."""
  sample = model.sample_fn(1)

  def one(inputs: Mapping[str, Any]) -> Any:
    rows = {k: v[None] for k, v in inputs.items()}
    return model.as_data(sample(params, key, {**rows, **knobs}))[0]

  return one
