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
import contextlib
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
from jaxgen.train import Hooks


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
    bare, loop, records = sides(config, workdir, checkpoints)
    rows = [(timed(bare, args.steps), timed(loop, args.steps)) for _ in range(args.blocks + 1)]
    saves = [timed_save(loop, records) for _ in range(args.saves + 1)]
  rows, saves = rows[1:], saves[1:]  # the first ones warm up
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


def sides(config, workdir, checkpoints):
  """-> bare(n) and loop(n), which take n steps each, and the records."""
  experiment, source = Experiment.of(config), open_data(config)
  mesh = sharding.make_mesh(config.mesh)
  step, times = Compiled(experiment, mesh), Goodput()
  seed = jax.random.key(0)
  own = {"state": experiment.fresh(source, mesh)}
  batch = next(sharding.prefetch(iter([source.read(range(config.batch))]), mesh))
  logger = Logger(workdir, total_steps=config.steps, batch=config.batch, stream=io.StringIO())
  records = Hooks(
    experiment, mesh, source, workdir, checkpoints, logger, describe(config, source), times, {}
  )
  stream = train.updates(step, mesh, source, experiment.fresh(source, mesh), times)

  def bare(n):
    for _ in range(n):
      own["state"], metrics = step(0, own["state"], batch, seed)
    jax.block_until_ready((own["state"], metrics))

  def loop(n):
    for _ in range(n):
      i, state, metrics = next(stream)
      records.keep(i, state, metrics, step.facts, last=False)
    jax.block_until_ready(state)
    return i, state

  return bare, loop, records


def timed(block, n):
  """Seconds of a block: by the clock, of the CPU."""
  wall, cpu = time.perf_counter(), time.process_time()
  block(n)
  return time.perf_counter() - wall, time.process_time() - cpu


def timed_save(loop, records):
  """Seconds for which a save blocks, when steps and the last one are done."""
  with contextlib.suppress(StopIteration):
    step, state = loop(5)
  records.watch.catch_up()
  records.checkpoints.wait()
  start = time.perf_counter()
  records.save(step, state, records.meta | records.spent())
  return time.perf_counter() - start


if __name__ == "__main__":
  main()
