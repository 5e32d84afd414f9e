"""How likely real data is to a model, in bits per dimension.

  jaxgen likelihood --workdir W --method bound
  jaxgen likelihood --workdir W --method ode --steps 64 --num 100

`bound` is the variational bound of the whole chain (Ho et al. 2020, Eq. 5), or
of `--steps` of it; `ode` follows the probability-flow ODE (Song et al. 2021,
Sec. 4.3), with the trace of its slope estimated from one random direction.
`bits_per_dim` is a bound for every family that has one, at a small cost.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jaxgen import core, files
from jaxgen.data.arrays import Source
from jaxgen.data.sources import open_split
from jaxgen.data.summary import introduce
from jaxgen.diffusion import likelihood, posterior, times
from jaxgen.diffusion.process import Noise
from jaxgen.errors import UserError, guarding
from jaxgen.keys import fold, normal
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.vae import VAE
from jaxgen.monitor.results import check_file
from jaxgen.sampling.sampler import Sampler, key_of, load
from jaxgen.sampling.stages import data_of

METHODS = ("bound", "ode")


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  for name, default, text in (
    ("workdir", None, "of the trained diffusion model"),
    ("out", None, "x.json gets the result"),
    ("split", "test", "of the data that the model was trained on"),
    ("method", "bound", " or ".join(METHODS)),
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
  if values.method not in METHODS:
    raise UserError(f"--method={values.method}: want {' or '.join(METHODS)}")
  for name in ("num", "steps", "batch"):
    if values[name].value is not None and values[name].value < 1:
      raise UserError(f"--{name}={values[name].value}: want at least 1")
  key_of(values.seed)
  if values.out:
    check_file(values.out)
  model = load(values.workdir, ema=values.ema)
  if not isinstance(model.model, Diffusion) or model.model.cond:
    raise UserError("only a diffusion model of whole images knows likelihoods")
  data = data_of(values.workdir)
  source = open_split(data, values.split)
  introduce(source, values.split)
  x, y = source.arrays()
  n = min(values.num or len(x), len(x))
  with guarding(f"{values.workdir} knows no likelihoods"):
    if values.method == "bound":
      run, steps = bound(model, values.steps)
    else:
      run, steps = ode(model), values.steps or 64
  parts = measure(model, run, x[:n], None if y is None else y[:n], values.batch, values.seed, steps)
  origin = model.card | {
    "split": values.split,
    "data": source.fingerprint,
    "seed": values.seed,
    "num": n,
    "method": values.method,
    "steps": steps,
  }
  report(values, parts, origin)


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


def ode(model: Sampler) -> Callable:
  """-> (state, batch, keys, steps) -> {"total": [B]}."""
  smooth = dataclasses.replace(model.model, bound=None)
  width = 1 / 127.5 if model.dtype == np.uint8 else 0.0

  def run(state, batch, keys, steps):
    D = smooth.denoiser(state, batch)
    return {"total": likelihood.ode_bpd(D, batch["x"], smooth.process, keys, steps, width=width)}

  return run


def bits_per_dim(
  model: str | pathlib.Path | Sampler, source: Source, n: int = 64, steps: int = 32, seed: int = 0
) -> float | None:
  """A bound on -log2 p(bytes) of real images, the mean over `n` of them.

  Of diffusion models it is the bound of a chain (see `chain`), and of VAEs the
  evidence bound. Both are of bytes, so that they can be compared.

  Args:
    model: Trained, or its workdir.
    source: Held-out images, such as the model was trained on.
    n: At even distances in the source; fewer if it has fewer.
    steps: Evaluations of a diffusion model's network for each image. More of
      them make the bound tighter.
    seed: Of the noise.

  Returns:
    Bits for each value of a pixel; None of families that have no such bound,
    of upsamplers, and of what is no bytes.
  """
  model = load(str(model)) if isinstance(model, str | pathlib.Path) else model
  family, run = model.model, None
  if isinstance(family, Diffusion) and not family.cond:
    run = chain(model, steps)
  elif isinstance(family, VAE):
    run = evidence(model)
  if run is None or model.dtype != np.uint8:
    return None
  n = min(n, len(source))
  batch = source.read(np.arange(n) * len(source) // n)
  parts = measure(model, run, batch["x"], batch.get("y"), 64, seed, steps, quiet=True)
  return float(parts["total"].mean())


def chain(model: Sampler, steps: int) -> Callable:
  """-> (state, batch, keys, _) -> {"total": [B]}: the bound of a short chain.

  Of any process: x_t over sqrt(alpha^2 + sigma^2) is variance-preserving, and
  bounds of chains depend on signal-to-noise ratios alone (Kingma et al. 2021,
  Sec. 5.1). The chain goes evenly in log(sigma / alpha) from 80 to 0.002, as far
  as the process goes. Its variances are the posterior's unless the network
  learned some.
  """
  process = model.model.process
  ends = process(process.inverse(-2 * jnp.log(jnp.array([80.0, 0.002])))).logsnr
  levels = jnp.linspace(ends[0], ends[1], steps)
  own = process(process.inverse(levels))
  alpha, sigma = (jnp.sqrt(jax.nn.sigmoid(a)) for a in (own.logsnr, -own.logsnr))
  path = Noise(own.t, alpha, sigma)

  def run(state, batch, keys, _):
    D = model.model.denoiser(state, batch)

    def denoise(x_t, t):
      level = process(t.t)
      return D(x_t * (level.alpha / t.alpha), level)

    return {"total": likelihood.bound_bpd(denoise, batch["x"], path, keys, 0.0)["total"]}

  return run


def evidence(model: Sampler) -> Callable:
  """-> (state, batch, keys, _) -> {"total": [B]}: of one draw of z each.

  KL(q(z | x) || p(z)) - log p(bytes | z), where p(byte | z) is the share of the
  decoder's Gaussian in the byte's bin.
  """
  vae = model.model

  def run(state, batch, keys, _):
    x, conditions = batch["x"], vae.conditions(batch)
    net = lambda *a, **kw: vae.net.apply(state.variables("net"), *a, **conditions, **kw)
    mean, logvar = net(x, method="encode")
    z = mean + jnp.exp(logvar / 2) * normal(keys, mean.shape[1:])
    log_var = jnp.full((), 2 * np.log(vae.sigma), jnp.float32)
    nll = posterior.bits(posterior.byte_nll(x, net(z, method="decode"), log_var))
    kl = posterior.normal_kl(mean, logvar, 0.0, 0.0).sum(1) / jnp.log(2.0)
    return {"total": nll + kl / np.prod(x.shape[1:])}

  return run


def measure(
  model: Sampler,
  run: Callable,
  x: np.ndarray,
  y: np.ndarray | None,
  size: int,
  seed: int,
  steps: int,
  quiet: bool = False,
) -> dict[str, np.ndarray]:
  """{name: [N]}, batch by batch through one program."""

  def traced(state, batch, keys, steps):
    with guarding(f"{model.card['workdir']} knows no likelihoods"):
      return run(state, core.on_device(batch), keys, steps)

  program = jax.jit(traced)
  parts, size = [], min(size, len(x))
  for first in range(0, len(x), size):
    i = np.arange(first, first + size)
    batch = {"x": x[i % len(x)]}
    if model.classes:
      batch["y"] = y[i % len(x)]
    key = jax.random.key(seed)
    keys = fold(jnp.broadcast_to(key, (size,)), jnp.asarray(i))
    parts.append(jax.device_get(program(model.state, batch, keys, jnp.int32(steps))))
    if not quiet:
      print(f"[likelihood] {min(first + size, len(x))}/{len(x)}", file=sys.stderr, flush=True)
  return {k: np.concatenate([p[k] for p in parts])[: len(x)] for k in parts[0]}


def report(values: flags.FlagValues, parts: dict[str, np.ndarray], origin: dict[str, Any]) -> None:
  """Means over images and their standard errors: printed, and written."""
  if not all(np.isfinite(v).all() for v in parts.values()):
    raise UserError("some likelihoods are not finite: the weights are ill, or the path too coarse")
  result = {k: float(v.mean()) for k, v in parts.items()}
  errors = {k: float(v.std() / np.sqrt(len(v))) for k, v in parts.items()}
  for k, mean in result.items():
    print(f"{k:6} {mean:9.4f} ± {errors[k]:.4f} bits/dim")
  if values.out:
    files.write_json(values.out, {"made": origin, "bits_per_dim": result, "standard_error": errors})
