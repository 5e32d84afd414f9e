"""What a training costs beside its steps: data, logging, checkpoints.

  python tests/helpers/overhead.py --config configs/digits_diffusion.py

In one process and in turn: blocks of bare steps on a batch that is on the
device already, and blocks of the loop as `train` runs it, with its data, log
and watch. Ratios of neighbouring blocks, so that a machine that others use too
does little harm; in wall time and in CPU time, which counts what runs in the
background as well. Then saves, as often as the config asks: how long each one
keeps the loop from its next step.
"""

import argparse
import io
import statistics
import tempfile
import time

import jax

from jaxgen import config as configs
from jaxgen import sharding, train
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.cli import keep_programs
from jaxgen.experiment import Compiled, Experiment, describe, open_data
from jaxgen.monitor.goodput import Goodput
from jaxgen.monitor.log import Logger


def main() -> None:
  """Prints a table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--config", required=True)
  parser.add_argument("--blocks", type=int, default=10)
  parser.add_argument("--steps", type=int, default=50, help="in a block")
  parser.add_argument("--saves", type=int, default=5)
  args = parser.parse_args()
  config = configs.load(args.config)
  every = config.checkpoint.every
  with config.unlocked():
    config.steps = config.checkpoint.every = 10**9
    config.log.pictures = 0
  keep_programs()
  with tempfile.TemporaryDirectory() as workdir, Checkpoints(workdir, every=1) as checkpoints:
    rows, saves = measure(config, workdir, checkpoints, args)
  step = statistics.median(b[0] for b, _ in rows) / args.steps
  blocked = statistics.median(saves)
  stall = blocked / (every * step)
  for name, i in ("wall", 0), ("CPU", 1):
    share = statistics.median(b[i] / f[i] for b, f in rows)
    print(
      f"{name}: bare step {1e3 * rows[0][0][i] / args.steps:.1f} ms; the "
      f"loop runs at {share:.1%} of bare steps, with saves at "
      f"{share * (1 - stall):.1%}"
    )
  print(
    f"a save blocks for {1e3 * blocked:.0f} ms "
    f"({', '.join(f'{1e3 * s:.0f}' for s in saves)}): {stall:.2%} of "
    f"{every} steps"
  )


def measure(config, workdir, checkpoints, args):
  """-> [((wall, CPU) of a bare block, the same of the loop), ...], [save, ...]."""
  experiment, source = Experiment.of(config), open_data(config)
  mesh, times = sharding.make_mesh(config.mesh), Goodput()
  logger = Logger(workdir, total_steps=config.steps, batch=config.batch, stream=io.StringIO())
  meta = describe(config, source)
  hooks = Measured(experiment, mesh, source, workdir, checkpoints, logger, meta, times, {})
  hooks.args, hooks.bare_steps = args, bare_steps(experiment, mesh, source)
  hooks.rows, hooks.saves, hooks.start_of_block = [], [], clocks()
  is_over = lambda: len(hooks.saves) > args.saves
  train.run(experiment, mesh, source, experiment.fresh(source, mesh), hooks, is_over)
  return hooks.rows[1:], hooks.saves[1:]  # the first ones warm up


def bare_steps(experiment, mesh, source):
  """-> f(n), which takes n steps on one batch that is on the device."""
  step, seed = Compiled(experiment, mesh), jax.random.key(0)
  state = experiment.fresh(source, mesh)
  batch = next(sharding.prefetch(iter([source.read(range(experiment.config.batch))]), mesh))

  def take(n):
    nonlocal state
    for _ in range(n):
      state, metrics = step(0, state, batch, seed)
    jax.block_until_ready((state, metrics))

  return take


class Measured(train.Hooks):
  """Those of training, with a bare block after each block of the loop."""

  def after(self, done, state, metrics, facts, last):
    """First all the blocks, then a save after every fifth step."""
    super().after(done, state, metrics, facts, last=False)
    if len(self.rows) <= self.args.blocks:
      if done % self.args.steps == 0:
        jax.block_until_ready(state)
        loop, start = since(self.start_of_block), clocks()
        self.bare_steps(self.args.steps)
        self.rows.append((since(start), loop))
        self.start_of_block = clocks()
    elif done % 5 == 0:  # how long one blocks, when steps and the last one are done
      self.watch.catch_up()
      self.checkpoints.wait()
      start = clocks()
      self.save(done, state, self.meta | self.spent())
      self.saves.append(since(start)[0])


def clocks():
  """Seconds: by the clock, of the CPU."""
  return time.perf_counter(), time.process_time()


def since(start):
  """Seconds since `start`: by the clock, of the CPU."""
  return tuple(now - then for now, then in zip(clocks(), start, strict=True))


if __name__ == "__main__":
  main()
