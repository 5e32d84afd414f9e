"""The likelihood of real data, or a bound on it, for every family that has one.

Of diffusion models the bound is that of a short chain, of VAEs the evidence
bound; the ODE of a diffusion model gives the likelihood itself.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core
from jaxgen.data.arrays import Source
from jaxgen.diffusion import likelihood, posterior
from jaxgen.diffusion.process import Noise
from jaxgen.errors import guarding
from jaxgen.keys import fold, normal
from jaxgen.models.consistency import Consistency
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.vae import VAE
from jaxgen.sampling.sampler import Sampler, load


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
  if denoises_images(family):
    run = chain(model, steps)
  elif isinstance(family, VAE):
    run = evidence(model)
  if run is None or model.dtype != np.uint8:
    return None
  n = min(n, len(source))
  batch = source.read(np.arange(n) * len(source) // n)
  parts = measure(model, run, batch["x"], batch.get("y"), 64, seed, steps, quiet=True)
  return float(parts["total"].mean())


def denoises_images(family: core.Model) -> bool:
  """Whether likelihoods are known: D is the mean of x_0, of whole images.

  A consistency model has the net, but no mean.
  """
  kind = isinstance(family, Diffusion) and not isinstance(family, Consistency)
  return kind and not family.cond


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


def ode(model: Sampler) -> Callable:
  """-> (state, batch, keys, steps) -> {"total": [B]}."""
  smooth = dataclasses.replace(model.model, bound=None)
  width = 1 / 127.5 if model.dtype == np.uint8 else 0.0

  def run(state, batch, keys, steps):
    D = smooth.denoiser(state, batch)
    return {"total": likelihood.ode_bpd(D, batch["x"], smooth.process, keys, steps, width=width)}

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
    log_var = 2 * jnp.log(jnp.float32(vae.scale(state)))
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
