"""Do other machines train alike? Losses of a training's first steps, compared.

  python tests/helpers/trajectories.py --steps 50 --machines 1x4,2x4 --fsdp 4 \
    --configs configs/digits_gan.py:debug,configs/stylegan2.py:debug

Real train steps on real batches; nothing is logged or saved. A machine is
processes x devices of each, and all are compared with one device. Says for each
config by how much a loss differs at most, as a share of it (of losses below 1:
by how much at all).
"""

import argparse
import contextlib
import json
import pathlib
import tempfile
from collections.abc import Sequence

import jax
import pod

from jaxgen import config, sharding
from jaxgen.data.pipeline import batches
from jaxgen.experiment import Compiled, Experiment, open_data

Losses = list[dict[str, float]]  # by step, by player
CODE = """
import sys
import trajectories
trajectories.record({out!r}, {names!r}, {steps}, {shapes!r})
"""


def trajectory(name: str, steps: int, shape: dict[str, int]) -> Losses:
  """The losses of a config's first steps, on all devices there are."""
  c, mesh = config.load(name), sharding.make_mesh(shape)
  experiment, source = Experiment.of(c), open_data(c)
  sharding.check_batch(c.batch, c.accumulate, mesh)
  step, state = Compiled(experiment, mesh), experiment.fresh(source, mesh)
  seed, losses = jax.random.key(c.seed), []
  with contextlib.closing(
    batches(
      source, batch=c.batch, seed=c.seed, process=jax.process_index(), processes=jax.process_count()
    )
  ) as stream:
    for i, batch in zip(range(steps), sharding.prefetch(stream, mesh), strict=False):
      state, metrics = step(i, state, batch, seed)
      losses.append({k: float(v) for k, v in metrics.items() if k.endswith("/loss")})
  return losses


def record(out: str, names: Sequence[str], steps: int, shapes: Sequence[dict[str, int]]) -> None:
  """Writes {name: [losses for every shape of the mesh]}."""
  sharding.SMALL = 64  # of small nets, most leaves are cut
  losses = {name: [trajectory(name, steps, shape) for shape in shapes] for name in names}
  if jax.process_index() == 0:
    pathlib.Path(out).write_text(json.dumps(losses))


def on(
  processes: int, devices: int, names: Sequence[str], steps: int, shapes: Sequence[dict[str, int]]
) -> dict[str, list[Losses]]:
  """`record` on a machine."""
  with tempfile.TemporaryDirectory() as folder:
    out = f"{folder}/losses.json"
    code = CODE.format(out=out, names=list(names), steps=steps, shapes=list(shapes))
    for done in pod.run(
      processes, devices, code, timeout=3000, env={"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    ):
      assert done.status == 0, done.stderr
    return json.loads(pathlib.Path(out).read_text())


def apart(mine: Losses, theirs: Losses) -> float:
  """The largest difference of two losses, see above."""
  return max(
    abs(a[k] - b[k]) / max(abs(b[k]), 1.0) for a, b in zip(mine, theirs, strict=True) for k in b
  )


def main() -> None:
  """The script."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--configs", required=True)
  parser.add_argument("--steps", type=int, default=6)
  parser.add_argument("--machines", default="2x4")
  parser.add_argument("--fsdp", type=int, default=4)
  args = parser.parse_args()
  shapes = [dict(data=0, fsdp=1), dict(data=0, fsdp=args.fsdp)]
  for name in args.configs.split(","):
    ((one,),) = on(1, 1, [name], args.steps, shapes[:1]).values()
    for machine in args.machines.split(","):
      where = map(int, machine.split("x"))
      (runs,) = on(*where, [name], args.steps, shapes).values()
      for shape, losses in zip(shapes, runs, strict=True):
        first = next(
          (i + 1 for i in range(args.steps) if apart(losses[: i + 1], one[: i + 1]) > 1e-5), "none"
        )
        print(
          f"{name} {machine} fsdp={shape['fsdp']}: {apart(losses, one):.1e}"
          f" in {args.steps} steps; above 1e-5 from step {first}",
          flush=True,
        )


if __name__ == "__main__":
  main()
