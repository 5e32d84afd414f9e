"""How strange an image is to a trained model, and where it is: by family.

A `Way` is a pure function of a state and a batch, with one key per example and
traced knobs: one program for each size of a batch, whatever the knobs and the
weights. Scores are higher for what is stranger.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen import core, sharding
from jaxgen.diffusion.simplex import simplex
from jaxgen.errors import UserError, guarding, nearest
from jaxgen.evaluation.likelihoods import chain, denoises_images, evidence, ode
from jaxgen.keys import fold, normal
from jaxgen.models.anogan_encoder import AnoGANEncoder, critic, errors, generated
from jaxgen.models.gan import GAN
from jaxgen.models.vae import VAE
from jaxgen.monitor.progress import Bars
from jaxgen.sampling import presets
from jaxgen.sampling.latents import in_batches
from jaxgen.sampling.sampler import Sampler, key_of

BOUND_STEPS = 32  # of the chain whose bound is taken
NOISES = {"gauss": normal, "simplex": simplex}
PICTURES = ("map", "again")  # what is no column
RANGES = {"fraction": "more than 0, at most 1"}
Run = Callable[..., Any]


class Way(NamedTuple):
  """One way to tell what is strange.

  Attributes:
    text: What its score is.
    run: (state, batch, keys [B], knobs) -> "score" [B]; other columns [B]; where
      it can say so, "map" [B, H, W], and "again" [B, ...], what the model makes of
      the image.
    knobs: With their defaults; all are traced.
    columns: Name of a column beside the score -> what it is.
    search: (begin, step) of one that searches first: begin(state, batch, keys,
      knobs) -> what is searched for, step(.., that) -> the same, better. It is
      taken `steps` times and becomes the last argument of `run`. Not a loop of the
      program: on CPUs gradients of convolutions are far slower within one.
  """

  text: str
  run: Run
  knobs: dict[str, float]
  columns: dict[str, str] = {}
  search: tuple[Run, Run] | None = None


def anogan(sampler: Sampler) -> Way:
  """The nearest image that a GAN makes, by gradient descent on z (Schlegl et al. 2017).

  The sum of |x - G(z)| over pixels, and of |f(x) - f(G(z))| over D's last features,
  weighted 1 - weight and weight: what Adam lowers, and the score.
  """
  gan = sampler.model.gan if isinstance(sampler.model, AnoGANEncoder) else sampler.model
  adam = optax.scale_by_adam()

  def parts(state, batch, keys, knobs):
    """z -> score [B], both sums [B], G(z)."""
    x, y = batch["x"], batch.get("y")
    noise, features = fold(keys, 1), critic(gan, state, y)
    count = x[0].size, jax.eval_shape(features, x).shape[1]

    def of(z):
      again = generated(gan, state, z, noise, y)
      sums = [n * e for n, e in zip(count, errors(features, x, again, jnp.abs), strict=True)]
      return (1 - knobs["weight"]) * sums[0] + knobs["weight"] * sums[1], *sums, again

    return of

  def begin(state, batch, keys, knobs):
    of = parts(state, batch, keys, knobs)

    def closer(i, best):
      z = normal(fold(fold(keys, 2), i), (gan.z_dim,))
      score = of(z)[0]
      better = score < best[1]
      return jnp.where(better[:, None], z, best[0]), jnp.where(better, score, best[1])

    none = jnp.zeros((len(keys), gan.z_dim)), jnp.full(len(keys), jnp.inf)
    z, _ = jax.lax.fori_loop(0, jnp.maximum(jnp.int32(knobs["starts"]), 1), closer, none)
    return z, adam.init(z)

  def step(state, batch, keys, knobs, place):
    z, opt = place
    of = parts(state, batch, keys, knobs)
    # Each image has its own z: gradients do not meet.
    update, opt = adam.update(jax.grad(lambda z: jnp.sum(of(z)[0]))(z), opt)
    return z - knobs["lr"] * update, opt

  def run(state, batch, keys, knobs, place):
    score, residual, feature, again = parts(state, batch, keys, knobs)(place[0])
    gap = jnp.mean(jnp.abs(batch["x"] - again), -1)
    return {"score": score, "residual": residual, "feature": feature, "map": gap, "again": again}

  return Way(
    "(1 - weight) |x - G(z)| + weight |f(x) - f(G(z))|, sums, of the nearest z",
    run,
    {"steps": 500.0, "lr": 0.05, "weight": 0.1, "starts": 1.0},
    {"residual": "sum of |x - G(z)|", "feature": "sum of |f(x) - f(G(z))|"},
    (begin, step),
  )


def fanogan(sampler: Sampler) -> Way:
  """What an encoder's latent lacks of the image (Schlegl et al. 2019, Eq. 5)."""
  model = sampler.model

  def run(state, batch, keys, knobs):
    x = batch["x"]
    z = model.encode(state, x)
    again = model.decode(state, z)
    pixels, feature = errors(critic(model.gan, state), x, again, jnp.square)
    return {
      "score": pixels + knobs["kappa"] * feature,
      "residual": pixels,
      "feature": feature,
      "latent": jnp.mean((model.encode(state, again) - z) ** 2, 1),
      "map": jnp.mean((x - again) ** 2, -1),
      "again": again,
    }

  return Way(
    "mean square of x - G(E(x)), and kappa times that of D's features",
    run,
    {"kappa": model.kappa},
    {
      "residual": "mean of (x - G(E(x)))^2",
      "feature": "mean square of the features' difference",
      "latent": "mean of (E(G(E(x))) - E(x))^2",
    },
  )


def decoded(sampler: Sampler) -> Way:
  """What a codec loses of the image: encoded at the mode, and decoded."""
  model = sampler.model

  def run(state, batch, keys, knobs):
    x, y = batch["x"], batch.get("y")
    again = model.decode(state, model.encode(state, x, None, y), y)
    return squared(x, again)

  return Way("mean of (x - decode(encode(x)))^2", run, {})


def partial_diffusion(sampler: Sampler, noise: str | None = None) -> Way:
  """What is redrawn otherwise once it was hidden by noise: AnoDDPM.

  x is noised to where a share `fraction` of the sampler's steps is left, and
  denoised from there (Wyatt et al. 2022, Sec. 3.1); squared errors are means over
  `repeats` draws. The authors go 250 of 1000 linear steps, and so does a discrete
  process by default. Others go 0.45, to about sigma = 0.6 on the path of digits: of a
  few shares the one by which held-out test digits were found best.

  Args:
    sampler: Of a diffusion model of whole images.
    noise: "gauss" or "simplex"; None: what the model was trained with.
  """
  model = sampler.model
  draw = NOISES[noise] if noise else model.noise

  def run(state, batch, keys, knobs):
    x = batch["x"]
    own = {k: v for k, v in knobs.items() if k in model.knobs}
    path, n = model.path_points(own)
    left = jnp.clip(jnp.int32(jnp.round(knobs["fraction"] * n)), 1, n)
    # The last `left` points; beyond them the last one again.
    rest = jnp.minimum(n - left + jnp.arange(len(path.t)), n - 1)
    path = jax.tree.map(lambda a: a[rest], path)
    D = model.guided(state, batch, own)

    def once(i, total):
      key = fold(fold(keys, 3), i)
      x_t = path.alpha[0] * x + path.sigma[0] * draw(fold(key, 0), x.shape[1:])
      again = model.run_sampler(D, x_t, path, left, fold(key, 1), own)
      return total[0] + again, total[1] + jnp.mean((again - x) ** 2, -1)

    repeats = jnp.maximum(jnp.int32(knobs["repeats"]), 1)
    zero = jnp.zeros_like(x), jnp.zeros(x.shape[:-1])
    again, gap = jax.lax.fori_loop(0, repeats, once, zero)
    gap = gap / repeats
    return {"score": jnp.mean(gap, (1, 2)), "map": gap, "again": again / repeats}

  own = {"fraction": 0.25 if core.trait(model.process, "steps") else 0.45, "repeats": 1.0}
  return Way("mean of (x - its reconstruction)^2", run, model.knobs | own)


def bound(sampler: Sampler) -> Way:
  """The variational bound of a short chain, in bits per dimension."""
  run = chain(sampler, BOUND_STEPS)
  return Way(
    f"bound on -log2 p(x), bits per dimension, of a chain of {BOUND_STEPS} steps",
    lambda state, batch, keys, knobs: {"score": run(state, batch, keys, None)["total"]},
    {},
  )


def flow(sampler: Sampler) -> Way:
  """-log2 p(x) by the probability-flow ODE, in bits per dimension."""
  run = ode(sampler)
  return Way(
    "-log2 p(x) by the probability-flow ODE, bits per dimension",
    lambda state, batch, keys, knobs: {
      "score": run(state, batch, keys, jnp.int32(knobs["steps"]))["total"]
    },
    {"steps": 16.0},
  )


def elbo(sampler: Sampler) -> Way:
  """A VAE's evidence bound, in bits per dimension."""
  run = evidence(sampler)
  return Way(
    "evidence bound on -log2 p(x), bits per dimension",
    lambda state, batch, keys, knobs: {"score": run(state, batch, keys, None)["total"]},
    {},
  )


def squared(x: jax.Array, again: jax.Array) -> dict[str, jax.Array]:
  """Score, map and image of what a model makes of x."""
  gap = jnp.mean((x - again) ** 2, -1)
  return {"score": jnp.mean(gap, (1, 2)), "map": gap, "again": again}


def ways(sampler: Sampler, noise: str | None = None) -> dict[str, Callable[[], Way]]:
  """How images can be scored by a model, the customary way first; {}: they cannot."""
  model, of = sampler.model, functools.partial
  if isinstance(model, AnoGANEncoder):
    return {"fanogan": of(fanogan, sampler), "anogan": of(anogan, sampler)}
  if isinstance(model, GAN):
    return {"anogan": of(anogan, sampler)}
  if denoises_images(model):
    own = {"reconstruction": of(partial_diffusion, sampler, noise), "ode": of(flow, sampler)}
    return own | ({"bound": of(bound, sampler)} if sampler.dtype == np.uint8 else {})
  if core.trait(model, "encode"):
    own = {"reconstruction": of(decoded, sampler)}
    bounded = isinstance(model, VAE) and sampler.dtype == np.uint8
    return own | ({"elbo": of(elbo, sampler)} if bounded else {})
  return {}


def choose(sampler: Sampler, how: str | None, noise: str | None = None) -> tuple[str, Way]:
  """A way by its name, or the customary one. UserError if there is none such."""
  kind, known = type(sampler.model).__name__, ways(sampler, noise)
  if len(sampler.shape) != 3 or not known:
    raise UserError(
      f"{sampler.card['workdir']} holds a {kind} of {list(sampler.shape)}: anomalies of images are "
      "found by a GAN, an encoder of one, a diffusion model of whole images, a VAE or a codec"
    )
  if how and how not in known:
    raise UserError(f"--how={how}: a {kind} tells by {' or '.join(known)}")
  if noise and (noise not in NOISES or not denoises_images(sampler.model)):
    raise UserError(f"--noise={noise}: want {' or '.join(NOISES)}, of a diffusion model")
  name = how or next(iter(known))
  return name, known[name]()


def with_critic(sampler: Sampler) -> Sampler:
  """A GAN with its discriminator, which sampling does not read; others as they are."""
  if not isinstance(sampler.model, GAN):
    return sampler
  disc = dict(sampler.variables("disc"))
  state = sampler.state
  params = state.params | {"disc": disc.pop("params")}
  state = state.replace(params=params, stats=state.stats | {"disc": disc})
  return dataclasses.replace(sampler, state=sharding.everywhere(state, sampler.mesh))


class Scorer:
  """One way of one model: its program, for any weights of it."""

  def __init__(self, sampler: Sampler, way: Way):
    self.sampler, self.way = sampler, way
    dtype = sampler.dtype

    def program(f):
      def traced(state, key, knobs, rows, *place):
        with guarding(f"{sampler.card.get('workdir', 'this model')} cannot be asked"):
          i, batch = rows["i"], core.on_device({k: v for k, v in rows.items() if k != "i"})
          keys = fold(jnp.broadcast_to(key, i.shape), i)
          result = f(state, batch, keys, knobs, *place)
          if isinstance(result, dict) and "again" in result:
            result["again"] = core.as_data(result["again"], dtype)
          return result

      return jax.jit(traced)

    self.program = program(way.run)
    self.search = tuple(map(program, way.search or ()))

  def settings(self, knobs: Mapping[str, float]) -> dict[str, float]:
    """All knobs. UserError for one that it does not have, or out of range."""
    for name, value in knobs.items():
      if name not in self.way.knobs:
        raise UserError(f"there is no knob {name!r} here" + nearest(name, self.way.knobs))
      presets.check_knob(name, value, self.way.knobs[name])
      if value < 0 or name == "fraction" and not 0 < value <= 1:
        raise UserError(f"{name}={value:g}: want {RANGES.get(name, 'at least 0')}")
    return self.way.knobs | dict(knobs)

  def __call__(
    self,
    x: np.ndarray,
    y: np.ndarray | None = None,
    knobs: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
    batch: int = 64,
    state: core.State | None = None,
    bars: Bars | None = None,
  ) -> dict[str, np.ndarray]:
    """Scores images.

    What becomes of image i depends on the seed, i, and the knobs alone.

    Args:
      x: As the model's data: uint8 [N, H, W, C].
      y: Labels [N], where the model was trained with them.
      knobs: Those that are not to be as by default.
      seed: Of all randomness.
      batch: Images at a time.
      state: Other weights of the same model; None: the sampler's own.
      bars: Where progress is shown.

    Returns:
      "score" float32 [N] and what else the way says, see `Way`.

    Raises:
      UserError: Some score is not finite.
    """
    values = {k: jnp.float32(v) for k, v in self.settings(knobs or {}).items()}
    rows = {"x": x, "i": np.arange(len(x), dtype=np.int32)} | ({} if y is None else {"y": y})
    state = self.sampler.state if state is None else state
    key, done = key_of(seed), itertools.count(1)
    batches = -(-len(x) // min(batch, len(x)))

    def run(rows):
      args, place = (state, key, values, rows), ()
      if self.search:
        begin, step = self.search
        place = (begin(*args),)
        for _ in range(int(values["steps"])):
          place = (step(*args, *place),)
      result = jax.block_until_ready(self.program(*args, *place))
      if bars:
        bars("batches", next(done), batches)
      return result

    result = in_batches(run, rows, batch, self.sampler.mesh)
    if not np.isfinite(result["score"]).all():
      raise UserError("some scores are not finite: the weights are ill, or the knobs too far")
    return result
