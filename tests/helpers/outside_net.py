"""How much of a diffusion model's time is spent outside its net.

  python tests/helpers/outside_net.py --config configs/dit.py:digits
  python tests/helpers/outside_net.py --config configs/dit.py:digits --batch 256

In one process and in turn, so that a machine that others use too does little
harm: the net alone, forward and backward; the gradient of the loss, which draws
times and noise, drops labels and weighs errors; the train step, with optimiser,
averages and checks; then the sampler, and the net alone as often. Ratios of
neighbours, in CPU time and by the clock: median and quartiles.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from jaxgen import config as configs
from jaxgen import core, sharding
from jaxgen.cli import keep_programs
from jaxgen.experiment import Compiled, Experiment, open_data
from jaxgen.keys import example_keys


def main() -> None:
  """Prints two tables."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--config", required=True)
  parser.add_argument("--batch", type=int, default=0, help="default: the config's")
  parser.add_argument("--rounds", type=int, default=20)
  parser.add_argument("--steps", type=int, default=20, help="of the sampler")
  args = parser.parse_args()
  config = configs.load(args.config)
  config.batch = args.batch or config.batch
  keep_programs()
  experiment, source = Experiment.of(config), open_data(config)
  mesh = sharding.make_mesh(config.mesh)
  batch = next(sharding.prefetch(iter([source.read(range(config.batch))]), mesh))
  print(f"{args.config}, batch {config.batch}")
  report(measure(training(experiment, mesh, source, batch), args.rounds), "net, forward + backward")
  report(measure(sampling(experiment, mesh, source, batch, args), args.rounds), "net alone")


def training(experiment, mesh, source, batch):
  """-> {name: f() that runs it once}."""
  model, state = experiment.model, experiment.fresh(source, mesh)
  seed, n = jax.random.key(0), len(batch["x"])
  x, key = core.on_device(batch), example_keys(seed, n)
  c_noise, conditions = jnp.linspace(0.0, 1.0, n), labels(model, x)

  def energy(params):  # some number that every output moves
    F = model.net.apply({"params": params["net"]}, x["x"], c_noise, key=None, **conditions)
    return jnp.mean(F**2)

  loss = lambda params: model.loss(state.replace(params=params), x, key)[0]
  net, gradient = jax.jit(jax.value_and_grad(energy)), jax.jit(jax.value_and_grad(loss))
  step, own = Compiled(experiment, mesh), [experiment.fresh(source, mesh)]

  def whole():
    own[0], metrics = step(0, own[0], batch, seed)
    return own[0], metrics

  return {
    "net, forward + backward": lambda: net(state.params),
    "gradient of the loss": lambda: gradient(state.params),
    "train step": whole,
  }


def sampling(experiment, mesh, source, batch, args):
  """The same of a sampler, and of its net as often."""
  model, state = experiment.model, experiment.fresh(source, mesh)
  x, key = core.on_device(batch), example_keys(jax.random.key(0), len(batch["x"]))
  conditions, variables = labels(model, x), state.variables("net")

  @jax.jit
  def alone(variables, z):
    n, like = model.nfe(steps=args.steps), jnp.zeros_like(z)

    def visit(i, z):
      level = jnp.full(len(z), i / n)
      F = model.net.apply(variables, z, level, key=None, **conditions)
      return F[..., : like.shape[-1]]

    return jax.lax.fori_loop(0, n, visit, z)

  draw = jax.jit(lambda state, x, key: model.sample(state, x, key, steps=args.steps))
  return {"net alone": lambda: alone(variables, x["x"]), "sampler": lambda: draw(state, x, key)}


def labels(model, x):
  """What the net is told beside x."""
  return {"y": x["y"]} if model.classes else {}


def measure(programs, rounds):
  """-> {name: [(CPU seconds, seconds), ...]}, in turn."""
  rows = {name: [] for name in programs}
  for _ in range(rounds + 1):
    for name, run in programs.items():
      start = time.process_time(), time.perf_counter()
      jax.block_until_ready(run())
      rows[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
  return {name: times[1:] for name, times in rows.items()}  # the first one compiles


def report(rows, base):
  """Prints times, and what is beyond those of `base`."""
  for i, clock in enumerate(("CPU", "wall")):
    for name, times in rows.items():
      ms = 1e3 * statistics.median(t[i] for t in times)
      shares = sorted(1 - b[i] / t[i] for b, t in zip(rows[base], times, strict=True))
      low, middle, high = statistics.quantiles(shares, n=4)
      line = f"  {clock} {name}: {ms:.1f} ms"
      print(line + (f"; outside the net {middle:.1%} ({low:.1%} to {high:.1%})" * (name != base)))


if __name__ == "__main__":
  main()
