"""Measures jaxgen on one GPU: a table, and the ten kernels that take most of a step.

  python tests/helpers/on_gpu.py [--torch PYTHON] [--cases peak adm ...] [--json F]
  python tests/helpers/on_gpu.py --tiny    the same program with toys, for a CPU

Made for an H100 or H200 and 12 minutes: what would begin later is left out, and the
table says so. Cases run in the order of CASES, and each prints its row when it is done:
milliseconds of a step or batch (median, least and largest), operations a second as XLA
counts the model's, and their share of the peak that a large product in bfloat16 reaches
on this machine. `+cudnn` rows run with JAXGEN_ATTENTION=cudnn.

The pairs `unet` and `dit` are nets of `torch_nets.py`, as wide as a GPU wants them, on
both sides: PyTorch compiled (torch.compile) with autocast to bfloat16, ours in bfloat16,
with equal parameter counts. PYTHON is one that imports torch, by default this one; if it
does not, these rows are ours alone.
"""

import argparse
import collections
import contextlib
import gc
import glob
import gzip
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
CASES = (
  "peak adm adm+cudnn dit_xl dit_xl+cudnn stylegan2 sampling features unet unet_torch dit dit_torch"
)
SWITCH = "JAXGEN_ATTENTION"
# Config, its changes, batch: on a GPU, and with --tiny.
STEPS = {
  "adm": ("adm_imagenet64.py", {}, 64),
  "dit_xl": ("dit.py:XL-2", {}, 64),
  "stylegan2": ("stylegan2.py:256", {}, 32),
  "unet": (
    "images_diffusion.py:32-small",
    {"model.net.width": 256, "model.net.dtype": "bfloat16"},
    256,
  ),
  "dit": (
    "dit.py:photos",
    {
      "model.net.width": 1024,
      "model.net.depth": 12,
      "model.net.unroll": 12,
      "model.net.heads": 16,
      "model.net.dtype": "bfloat16",
    },
    256,
  ),
}
TINY = {
  "adm": ("adm_imagenet64.py:debug", {}, 4),
  "dit_xl": ("dit.py:debug", {}, 4),
  "stylegan2": ("stylegan2.py:debug", {}, 4),
  "unet": ("images_diffusion.py:32-small", {"model.net.dtype": "bfloat16"}, 2),
  "dit": ("dit.py:photos", {"model.net.dtype": "bfloat16"}, 2),
}
TORCH_NETS = {  # arguments on a GPU, and with --tiny
  "unet": ("UNet", dict(width=256), dict()),
  "dit": ("DiT", dict(d=1024, depth=12, heads=16), dict()),
}


def main() -> None:
  """Prints a row for each case, then the kernels."""
  args = parse()
  if args.serve:
    torch_side(args)
    return
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch wants some, too
  sys.path[:0] = [str(ROOT)]
  start, rows = time.perf_counter(), []
  describe()
  for case in args.cases:
    if time.perf_counter() - start > 60 * args.minutes:
      rows.append({"case": case, "left_out": "no time left"})
    else:
      rows.append(measure(case, args, rows))
      gc.collect()
    print(line(rows[-1], peak_of(rows)), flush=True)
  for row in rows:
    if row.get("kernels"):
      print(f"\n{row['case']}: kernels of two steps, ms")
      print("\n".join(f"  {ms:9.3f}  {name[:90]}" for name, ms in row["kernels"]))
  if args.json:
    pathlib.Path(args.json).write_text(json.dumps(rows, indent=2))


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--cases", nargs="+", choices=CASES.split(), default=CASES.split())
  parser.add_argument("--tiny", action="store_true", help="toys, to see that it runs")
  parser.add_argument("--torch", default=sys.executable, help="a Python that imports torch")
  parser.add_argument("--minutes", type=float, default=10, help="when no case may begin any more")
  parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
  parser.add_argument("--json", help="write all numbers to this file, too")
  parser.add_argument("--serve", choices=TORCH_NETS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.tiny:
    args.seconds, args.minutes = 0.2, float("inf")
  return args


def describe() -> None:
  """What it runs on."""
  import jax

  from jaxgen.bench import device

  print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {device.cpu_model()}", flush=True)
  print(f"{'':16}{'ms':>10}  {'(least to largest)':>22}{'TFLOP/s':>10}{'of peak':>9}  notes")


def measure(case: str, args: argparse.Namespace, rows: list[dict]) -> dict:
  """One row; a case that fails is a row that says why, for the others are still wanted."""
  name, _, kernel = case.partition("+")
  with environment(kernel):
    try:
      if name == "peak":
        return {"case": case} | peak(args)
      if name.endswith("_torch"):
        return {"case": case} | of_torch(name.removesuffix("_torch"), args, rows)
      special = {"sampling": sampling, "features": features}
      return {"case": case} | special.get(name, lambda a: step(name, a))(args)
    except Exception as e:
      return {"case": case, "left_out": f"{type(e).__name__}: {str(e).splitlines()[0][:120]}"}


@contextlib.contextmanager
def environment(kernel: str):
  """Attention by a kernel, while programs are traced."""
  before = os.environ.pop(SWITCH, None)
  if kernel:
    os.environ[SWITCH] = kernel
  try:
    yield
  finally:
    os.environ.pop(SWITCH, None)
    if before is not None:
      os.environ[SWITCH] = before


def peak(args):
  """Operations/s of a large product in bfloat16, as the best of a second."""
  from jaxgen.bench import device

  best = device.measured_peak("bfloat16", 256 if args.tiny else None, args.seconds / 4)
  published = device.published_peak(device.machine()["device_kind"])
  note = f"published {published / 1e12:.0f}" if published else "no published peak"
  return {"flops_per_s": best, "notes": note}


def load(name, tiny):
  """A config of STEPS, ready to be built, and its batch."""
  from jaxgen import config as configs

  path, changes, batch = (TINY if tiny else STEPS)[name]
  config = configs.load(str(ROOT / "configs" / path))
  with config.unlocked():
    config.batch = batch
    if name == "dit_xl" and "codec" in config.model:  # its latents, made before
      config.model = config.model.model
      config.data.flip = False
    for key, value in changes.items():
      *groups, last = key.split(".")
      part = config
      for group in groups:
        part = part[group]
      part[last] = value
  return config, batch


def noise(name, config, batch, tiny):
  """A source of as many random examples, shaped as the config's data."""
  import numpy as np

  from jaxgen.data.arrays import Arrays

  rng = np.random.default_rng(0)
  classes = config.data.classes
  labels = rng.integers(0, classes, batch).astype(np.int32) if classes else None
  if name == "dit_xl" and not tiny:
    return Arrays("noise", rng.normal(size=(batch, 32, 32, 4)).astype(np.float32), labels, classes)
  size = config.data.size or {"adm": 8, "dit_xl": 8, "stylegan2": 8}.get(name, 32)
  channels = 1 if tiny and config.data.source == "digits" else 3
  pixels = rng.integers(0, 256, (batch, size, size, channels), np.uint8)
  return Arrays("noise", pixels, labels, classes)


def step(name, args):
  """A train step of the turn that most steps take, its kernels, and the parameters."""
  import jax

  from jaxgen import sharding
  from jaxgen.bench.training import cycle, step_flops
  from jaxgen.experiment import Compiled, Experiment

  config, batch = load(name, args.tiny)
  source = noise(name, config, batch, args.tiny)
  experiment, mesh = Experiment.of(config), sharding.make_mesh(None, jax.devices()[:1])
  state, seed = experiment.fresh(source, mesh), jax.random.key(0)
  counts = [sum(x.size for x in jax.tree.leaves(group)) for group in state.params.values()]
  rows = next(sharding.prefetch(iter([source.read(range(batch))]), mesh))
  turns = cycle(experiment.model)
  index = turns.index(max(turns, key=turns.count))
  program = Compiled(experiment, mesh)
  start = time.perf_counter()

  def take():
    nonlocal state
    state, metrics = program(index, state, rows, seed)
    jax.block_until_ready((state, metrics))

  take()
  compiling = time.perf_counter() - start
  seconds = times(take, args.seconds)
  flops = step_flops(experiment, source, batch)[turns[index]]
  return {
    "seconds": seconds,
    "flops_per_s": flops / statistics.median(seconds),
    "parameters": sum(counts),
    "kernels": kernels(take),
    "notes": f"batch {batch}, {batch / statistics.median(seconds):,.0f} images/s, "
    f"compiled in {compiling:.0f} s",
  }


def sampling(args):
  """ADM's sampler in 25 steps."""
  import jax
  import numpy as np

  from jaxgen import sharding
  from jaxgen.bench import device
  from jaxgen.bench.sampling import compile_sampler, inputs
  from jaxgen.experiment import Experiment
  from jaxgen.sampling.sampler import Sampler

  config, batch = load("adm", args.tiny)
  source = noise("adm", config, batch, args.tiny)
  experiment = Experiment.of(config)
  state = experiment.fresh(source, sharding.make_mesh(None, jax.devices()[:1]))
  state = state.replace(opt={}, ema={})
  shape, kind = tuple(source.shape), np.dtype(source.dtype)
  facts = {"dataset": source.name, "step": 0}
  sampler = Sampler(experiment.model, state, shape, kind, config.data.classes, facts)
  vars(sampler)["mesh"] = sharding.make_mesh(None, jax.devices()[:1])
  steps = 3 if args.tiny else 25
  inputs_ = inputs(sampler, batch, {"steps": steps})
  run, _ = compile_sampler(sampler, inputs_)
  seconds = times(lambda: jax.block_until_ready(run()), args.seconds)
  flops = device.flops(jax.jit(sampler.program.__wrapped__), *inputs_, turns=steps)
  median = statistics.median(seconds)
  notes = f"{steps} steps, batch {batch}, {batch / median:.1f} images/s"
  return {"seconds": seconds, "flops_per_s": flops / median, "notes": notes}


def features(args):
  """FID's Inception, of images in memory to features on the host."""
  import itertools

  import numpy as np

  from jaxgen.bench.extraction import untrained

  batch = 2 if args.tiny else 256
  extractor = untrained("tf", batch)
  images = np.random.default_rng(0).integers(0, 256, (batch, 256, 256, 3), np.uint8)
  stream = extractor.stream(itertools.repeat(images), ("pool3",))
  seconds = times(lambda: next(stream), args.seconds)
  stream.close()
  median = statistics.median(seconds)
  return {"seconds": seconds, "notes": f"batch {batch}, {batch / median:,.0f} images/s"}


def of_torch(name, args, rows):
  """PyTorch's side of a pair, by a process of its own, and the ratio to ours."""
  command = [args.torch, str(HERE / "on_gpu.py"), "--serve", name, "--seconds", str(args.seconds)]
  path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
  process = subprocess.run(
    command + ["--tiny"] * args.tiny,
    env={**os.environ, "PYTHONPATH": path},
    capture_output=True,
    text=True,
    timeout=600,
  )
  if process.returncode:
    raise RuntimeError(process.stderr.strip().splitlines()[-1] if process.stderr else "it died")
  row = json.loads(process.stdout.splitlines()[-1])
  ours = next((r for r in rows if r["case"] == name and "seconds" in r), None)
  if ours is None:
    return row
  if ours["parameters"] != row["parameters"]:
    raise RuntimeError(f"nets differ: {ours['parameters']} and {row['parameters']} parameters")
  ratio = statistics.median(ours["seconds"]) / statistics.median(row["seconds"])
  return row | {"notes": f"{row['notes']}; ours takes {ratio:.2f} of it"}


def torch_side(args):
  """Prints a row as JSON; here there need be no jax."""
  import torch
  import torch_nets
  from torch_steps import One, edm

  where = "cuda" if torch.cuda.is_available() else "cpu"
  torch.set_default_device(where)
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  kind, large, small = TORCH_NETS[args.serve]
  batch = (TINY if args.tiny else STEPS)[args.serve][2]
  net = getattr(torch_nets, kind)(**(small if args.tiny else large))
  net = net.to(memory_format=torch.channels_last) if kind == "UNet" else net
  parameters = sum(p.numel() for p in net.parameters())
  compiled = net if args.tiny else torch.compile(net)

  def loss(_, x):
    with torch.autocast(where, torch.bfloat16):
      return edm(compiled, x)

  game = One(net, loss, torch.rand(batch, 3, 32, 32) * 2 - 1, 1.0)

  def take():
    game.round()
    if where == "cuda":
      torch.cuda.synchronize()

  seconds = times(take, args.seconds)
  how = "eager" if args.tiny else "compiled"
  notes = f"torch {torch.__version__}, {how}, batch {batch}"
  print(json.dumps({"seconds": seconds, "parameters": parameters, "notes": notes}))


def times(take, seconds):
  """Seconds of each call, three at least, after two that are not counted."""
  take()
  take()
  durations, start = [], time.perf_counter()
  while len(durations) < 3 or time.perf_counter() - start < seconds:
    begin = time.perf_counter()
    take()
    durations.append(time.perf_counter() - begin)
  return durations


def kernels(take, most=10):
  """What took most of two steps: (name, milliseconds), by jax's profiler."""
  import jax

  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      take()
      take()
    files = glob.glob(f"{folder}/**/*.trace.json.gz", recursive=True)
    events = [e for f in files for e in json.loads(gzip.open(f).read())["traceEvents"]]
  processes = {
    e["pid"]: e["args"].get("name", "") for e in events if e.get("name") == "process_name"
  }
  total = collections.Counter()
  on_gpu = any("GPU" in name for name in processes.values())
  for e in events:
    device = "GPU" in processes.get(e.get("pid"), "") if on_gpu else True
    if e.get("ph") == "X" and device and "hlo_op" in e.get("args", {}):
      total[e["name"]] += e["dur"] / 1e3
  return total.most_common(most)


def peak_of(rows):
  """The measured peak, if that case has run."""
  return next((r["flops_per_s"] for r in rows if r["case"] == "peak" and "flops_per_s" in r), None)


def line(row, peak):
  """A row as text."""
  if "left_out" in row:
    return f"{row['case']:16}left out: {row['left_out']}"
  ms = [1e3 * s for s in row.get("seconds", [])]
  clock = f"{statistics.median(ms):10.2f}  {f'({min(ms):.2f} to {max(ms):.2f})':>22}" if ms else ""
  rate = row.get("flops_per_s")
  text = f"{row['case']:16}{clock:34}" + (f"{rate / 1e12:10.2f}" if rate else " " * 10)
  text += f"{rate / peak:9.1%}" if rate and peak else " " * 9
  return f"{text}  {row['notes']}"


if __name__ == "__main__":
  main()
