"""Train steps, forward passes and sampling against PyTorch's on the same CPUs.

  python tests/helpers/against_torch.py --torch PYTHON [--cases unet_train dcgan]

PYTHON is one that imports torch; this one imports jaxgen, and neither needs what the
other has. Both sides are processes of their own that take rounds in turn, so that
others on the machine slow down both: what is printed is the median of the ratios of
neighbours, with the least and the largest, by the clock and in CPU time (below 1,
jaxgen is faster). PyTorch runs in whichever way is the fastest in CPU time: eagerly
with channels second or last in memory, or compiled where its compiler can. A round is
one step, or of GANs whose players take turns, until all have moved; StyleGAN2's is 16
batches.

Every side is bound to the same cores, as many as threads: XLA's flags for one thread
do not reach all of its pools. PyTorch's threads wait passively, for on a machine that
others use they would spin away several times the CPU time of their work.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys

from timed_rounds import answer

STYLEGAN2 = {
  "model.z_dim": 128,
  **{f"model.gen.{k}": v for k, v in dict(size=32, most=128, w_dim=128).items()},
  **{f"model.disc.{k}": v for k, v in dict(most=128, group=4).items()},
  **{f"model.{net}.base": 2048 for net in ("gen", "disc")},
  **{f"model.{net}.dtype": "float32" for net in ("gen", "disc")},
  **{f"model.{net}.clamp": None for net in ("gen", "disc")},
}
# Config, its changes, batch, height of images.
CASES = {
  "unet_forward": ("images_diffusion.py:32-small", {}, 16, 32),
  "unet_train": ("images_diffusion.py:32-small", {}, 16, 32),
  "unet_ddim": (
    "images_diffusion.py:32-small",
    {"model.sampler": dict(name="diffusion.samplers.ancestral", eta=0.0), "model.steps": 25},
    8,
    32,
  ),
  "dit_train": ("dit.py:photos", {}, 16, 32),
  "vae_train": ("images_vae.py:32-small", {}, 32, 32),
  "dcgan": ("dcgan.py:64", {}, 16, 64),
  "sngan": ("sngan.py:32", {"model.gen.widths": (64,) * 4, "model.disc.widths": (64,) * 4}, 16, 32),
  "stylegan2": ("stylegan2.py:256", STYLEGAN2, 8, 32),
  "inception": (None, {}, 32, 299),
}
WAYS = ("eager", "channels_last", "compiled")
HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def main() -> None:
  """Prints a line for each case."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--torch", help="a Python that imports torch")
  parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
  parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="of PyTorch")
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  parser.add_argument("--rounds", type=int, default=9, help="measured pairs")
  parser.add_argument("--each", type=int, default=1, help="rounds of a measurement")
  parser.add_argument("--serve", choices=CASES, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.serve:
    serve(args.serve)
    return
  if not args.torch:
    parser.error("--torch: want a Python that imports torch")
  for name in args.cases:
    print(compare(name, args), flush=True)


def compare(name: str, args: argparse.Namespace) -> str:
  """The ratios of one case, as a line."""
  _, _, batch, _ = CASES[name]
  script = [args.torch, str(HERE / "torch_steps.py"), name, str(batch), str(args.threads)]
  commands = {way: [*script, way] for way in args.ways}
  commands["jax"] = [sys.executable, str(HERE / "against_torch.py"), "--serve", name]
  sides, ways = {}, list(args.ways)
  for side, command in commands.items():
    try:
      sides[side] = Side(command, args.threads)
    except SystemExit:
      if side != "compiled" or len(ways) == 1:
        raise
      print(f"{name}: PyTorch's compiler failed and is left out", flush=True)
      ways.remove(side)
  counts = {tuple(side.parameters) for side in sides.values()}
  if len(counts) != 1:
    raise SystemExit(f"{name}: nets differ, of {counts} parameters")
  rows = []
  for i in range(args.rounds):
    order = list(sides) if i % 2 else list(sides)[::-1]
    rows.append({side: sides[side].time(args.each) for side in order})
  for side in sides.values():
    side.close()
  best = min(ways, key=lambda way: statistics.median(row[way][1] for row in rows))
  parts = []
  for i, clock in enumerate(("wall", "CPU")):
    ratios = [row["jax"][i] / row[best][i] for row in rows]
    ms = [1e3 * statistics.median(row[side][i] for row in rows) for side in ("jax", best)]
    parts.append(
      f"{clock} {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
      f"{ms[0]:.1f} and {ms[1]:.1f} ms"
    )
  return f"{name}, {best}, {args.threads} threads: {'; '.join(parts)}"


class Side:
  """A process that takes rounds when it is told to."""

  def __init__(self, command, threads):
    flags = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    if threads == 1:
      flags["XLA_FLAGS"] = ONE_THREAD
    path = os.pathsep.join([str(ROOT), str(HERE)])
    cores = sorted(os.sched_getaffinity(0))[:threads]
    self.process = subprocess.Popen(
      ["taskset", "--cpu-list", ",".join(map(str, cores)), *command],
      env={**os.environ, **flags, "PYTHONPATH": path},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self.parameters = [int(n) for n in self.answer()]

  def answer(self):
    """The words of its next line."""
    line = self.process.stdout.readline()
    if not line:
      raise SystemExit(f"{' '.join(self.process.args)}: ended with {self.process.wait()}")
    return line.split()

  def time(self, rounds):
    """Seconds of a round, by the clock and of the CPU."""
    self.process.stdin.write(f"{rounds}\n")
    self.process.stdin.flush()
    return tuple(float(t) for t in self.answer())

  def close(self):
    self.process.stdin.close()
    self.process.wait()


def serve(name: str) -> None:
  """jaxgen's side of a case, as torch_steps.py is PyTorch's."""
  answer(*prepare(name))


def prepare(name):
  """-> parameters of each net (G before D), f() that takes a round."""
  return inception(*CASES[name][2:]) if name == "inception" else of_config(name)


def inception(batch, size):
  """The same of FID's features."""
  import jax
  import numpy as np

  from jaxgen import sharding
  from jaxgen.bench.sampling import random_arrays
  from jaxgen.distributed import cores
  from jaxgen.nets.inception import Inception

  cores.make_devices([batch])  # as `jaxgen eval` does
  x = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
  variables = random_arrays(jax.eval_shape(Inception().init, jax.random.key(0), x))
  forward = jax.jit(Inception().apply)
  mesh = sharding.make_mesh()
  variables, x = sharding.replicate(variables, mesh), jax.device_put(x, sharding.batched(mesh))
  count = sum(p.size for p in jax.tree.leaves(variables))
  return [count], lambda: jax.block_until_ready(forward(variables, x))


def of_config(name):
  """The same of a config's model."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from jaxgen import config as configs
  from jaxgen import sharding
  from jaxgen.bench.training import cycle
  from jaxgen.data.arrays import Arrays
  from jaxgen.experiment import Compiled, Experiment, prepare_devices
  from jaxgen.keys import example_keys

  path, changes, batch, size = CASES[name]
  config = configs.load(str(ROOT / "configs" / path))
  with config.unlocked():
    config.batch = batch
    for key, value in changes.items():
      *groups, last = key.split(".")
      part = config
      for group in groups:
        part = part[group]
      part[last] = value
  pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
  source = Arrays("noise", pixels)
  prepare_devices([config])  # as `jaxgen train` and `jaxgen sample` do
  experiment = Experiment.of(config)
  mesh = sharding.make_mesh(config.mesh)
  state, seed = experiment.fresh(source, mesh), jax.random.key(0)
  groups = [state.params[g] for g in ("gen", "disc", "net") if g in state.params]
  counts = [sum(x.size for x in jax.tree.leaves(group)) for group in groups]
  if name == "unet_forward":
    forward = jax.jit(experiment.model.net.apply)
    x = jax.device_put(jnp.zeros((batch, size, size, 3)), sharding.batched(mesh))
    t = jax.device_put(jnp.zeros(batch), sharding.batched(mesh))
    variables = {"params": state.params["net"]}
    return counts, lambda: jax.block_until_ready(forward(variables, x, t))
  if name == "unet_ddim":
    sample = jax.jit(experiment.model.sample)
    like, keys = {"x": jnp.zeros((batch, size, size, 3))}, example_keys(seed, batch)
    keys = sharding.layout(mesh).rows(keys)
    return counts, lambda: jax.block_until_ready(sample(state, like, keys))
  step = Compiled(experiment, mesh)
  rows = next(sharding.prefetch(iter([source.read(range(batch))]), mesh))

  def take():
    nonlocal state
    for i in range(len(cycle(experiment.model))):
      state, metrics = step(i, state, rows, seed)
    jax.block_until_ready((state, metrics))

  return counts, take


if __name__ == "__main__":
  main()
